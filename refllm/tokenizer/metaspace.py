"""Hugging Face's Metaspace: a text's words by its spaces (pre_tokenizers/metaspace.rs and whitespace.rs of tokenizers 0.23)."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from refllm.tokenizer.added_tokens import WHITESPACE
from refllm.tokenizer.character_map import one_of
from refllm.tokenizer.model import Span

ESCAPED_SPACE = "\u2581"
CHUNKS = re.compile(one_of(WHITESPACE).replace("[", "[^") + "+")  # what stands between whitespace
WORDS = re.compile(" ?[^ ]+| ")

PrependScheme = Literal["always", "first", "never"]


class Metaspace(NamedTuple):
    """Words, spaces plain, each the text of its own search.

    scheme: which of them get a space before that have none: all, only the one that the text begins with, or none
    split: whether each space begins a word    at_whitespace: whether whitespace only parts words, and is lost (WhitespaceSplit)
    """

    scheme: PrependScheme
    split: bool = True
    at_whitespace: bool = False

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        if not self.at_whitespace:
            chunks = [self._spaced(text, 0)] if text else []
        elif self.scheme == "always":
            chunks = [self._spaced(chunk, 0) for chunk in CHUNKS.findall(text)]
        else:
            chunks = [self._spaced(match.group(), match.start()) for match in CHUNKS.finditer(text)]
        return [word for chunk in chunks for word in WORDS.findall(chunk)] if self.split else chunks

    def sources(self, text: str) -> list[Span]:
        """The characters of the text that each character of its words comes from."""
        return list(self._sources(text))

    def _sources(self, text: str) -> Iterator[Span]:
        for match in CHUNKS.finditer(text) if self.at_whitespace else re.finditer("(?s:.+)", text):
            start, end = match.span()
            if len(self._spaced(match.group(), start)) > end - start:
                yield start, start + 1  # the space belongs to the character that it is put before
            yield from ((place, place + 1) for place in range(start, end))

    def _spaced(self, chunk: str, start: int) -> str:
        """A stretch of the text, which begins at start, with a space before it where it gets one."""
        plain = chunk.replace(ESCAPED_SPACE, " ")
        prepends = self.scheme == "always" or (self.scheme == "first" and start == 0)
        return " " + plain if prepends and plain[0] != " " else plain
