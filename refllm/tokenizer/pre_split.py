"""Text cut before a model gets it, by rules that its own pattern cannot say: what is found may be dropped, or join a neighbour.

The rules are those of Split in Hugging Face's tokenizers 0.23 (normalizer.rs, SplitDelimiterBehavior).
"""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refllm.tokenizer.added_tokens import word_characters
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.model import Span
from refllm.tokenizer.normalizers import places

BEHAVIORS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
WORDS_AND_SIGNS = r"\w+|[^\w\s]+"  # the pre-tokenizer Whitespace keeps these


class Split(NamedTuple):
    """Where a text is cut, and what becomes of what is found.

    pattern: the text that is found, or a regular expression    is_regex: which
    behavior: whether what is found stands alone, is dropped, or is joined to what stands before it, behind it, or to its like
    invert: whether that is done to what lies between instead
    """

    pattern: str
    is_regex: bool
    behavior: str
    invert: bool = False

    def pieces(self, text: str) -> list[Span]:
        """The pieces of a text, in order."""
        parts = list(self._parts(text))
        if self.behavior == "Removed":
            return [span for span, found in parts if not found]
        if self.behavior == "Contiguous":
            groups = [list(group) for _, group in itertools.groupby(parts, key=lambda part: part[1])]
            return [(group[0][0][0], group[-1][0][1]) for group in groups]
        if self.behavior == "MergedWithNext":
            return [(-end, -start) for start, end in _merged_with_previous([((-e, -s), f) for (s, e), f in parts[::-1]])][::-1]
        return _merged_with_previous(parts) if self.behavior == "MergedWithPrevious" else [span for span, _ in parts]

    def _parts(self, text: str) -> Iterator[tuple[Span, bool]]:
        """What is found and what lies between, and whether it counts as found."""
        behind = 0
        for start, end in self._places(text):
            if behind < start:
                yield (behind, start), self.invert
            yield (start, end), not self.invert
            behind = end
        if behind < len(text):
            yield (behind, len(text)), self.invert

    def _places(self, text: str) -> Iterator[Span]:
        if self.is_regex and self.pattern == WORDS_AND_SIGNS:
            return (match.span() for match in _words_and_signs().finditer(text))
        return places(self.pattern, self.is_regex, text)


class PreSplit:
    """A byte-level model that gets its text in pieces, each of them a text of its own.

    splits: the rules, each cutting the pieces of the one before
    leading_space: whether a space is put before each piece that has none
    """

    prefix = ""

    def __init__(self, model: ByteLevelBPE, splits: tuple[Split, ...], leading_space: bool):
        self.model = model
        self.splits = splits
        self.leading_space = leading_space
        self.vocabulary = model.vocabulary

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        return [id for start, end in self.pieces(text) for id in self.model.encode(self._begun(text[start:end]))]

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""
        arrays = [self.model.encode_array(self._begun(text[start:end]), xp) for start, end in self.pieces(text)]
        return xp.concat(arrays, axis=0) if arrays else xp.zeros(0, dtype=xp.int32)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
        ids: list[int] = []
        spans: list[Span] = []
        for start, end in self.pieces(text):
            piece = self._begun(text[start:end])
            found, places = self.model.encode_with_offsets(piece)
            put = len(piece) - (end - start)  # a space, which counts as part of the first character
            ids += found
            spans += [(start + max(first - put, 0), start + max(last - put, 1)) for first, last in places]
        return ids, spans

    def pieces(self, text: str) -> list[Span]:
        """Where the pieces of a text begin and end."""
        spans = [(0, len(text))] if text else []
        for split in self.splits:
            spans = [(start + a, start + b) for start, end in spans for a, b in split.pieces(text[start:end])]
        return spans

    def _begun(self, piece: str) -> str:
        return " " + piece if self.leading_space and not piece.startswith(" ") else piece


def _merged_with_previous(parts: list[tuple[Span, bool]]) -> list[Span]:
    """The spans, one that is found joined to what lies before it unless that is found too."""
    spans: list[Span] = []
    before = False
    for (start, end), found in parts:
        if found and not before and spans:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        before = found
    return spans


@functools.cache
def _words_and_signs() -> re.Pattern:
    edges = np.flatnonzero(np.diff(word_characters(), prepend=False, append=False)).reshape(-1, 2)
    word = "".join(f"\\U{first:08x}-\\U{last - 1:08x}" for first, last in edges.tolist())
    white = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(f"[{word}]+|[^{word}{white}]+")
