"""What every tokenizer model gives: ids for a stretch of text, once the added tokens are out of it, and bytes for each id.

The models are ByteLevelBPE, SentencePieceBPE, Unigram and WordPiece; `Tokenizer` puts the added tokens and the doors around one.
"""

from collections.abc import Mapping
from typing import Any, Protocol

MOST_IDS = 1 << 22  # ids are below, so that no damaged file makes tables of every id too large to hold
Span = tuple[int, int]  # the first character, and the one behind the last


class Model(Protocol):
    """Stretches of text to ids.

    vocabulary: id -> the bytes of text that it stands for in the middle of a text
    prefix: what the first token of a stretch loses when it is decoded: "" or " "
    """

    @property
    def vocabulary(self) -> Mapping[int, bytes]: ...

    @property
    def prefix(self) -> str: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
