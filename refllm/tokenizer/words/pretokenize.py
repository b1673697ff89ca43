"""Pre-tokenization: text to words that no merge crosses.

The pattern itself runs on the text's shadow. The known ones have an array form too, which decides at every character at once
whether a word starts there: it finds the same words, and those of a book sooner.

A pattern may be a sequence of patterns: each cuts the pieces that the one before it leaves.
"""

import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from refllm.tokenizer.words.patterns import GPT2, GPT2_ENCODER, GPT2_MINBPE, runner
from refllm.tokenizer.words.starts import FORMS, has_array_form, word_starts

CHUNK = 1 << 17  # characters, about; what is made of so many stays in the processor's cache
SHORT = 2048  # characters; up to here the pattern finds the words sooner than arrays do

# Where a word starts in any context, and no word before depends on what follows: a space behind something else,
# and a newline or a mark of punctuation behind a letter or number. (A newline behind a sign may belong to the sign's word.)
LETTER, PUNCTUATION = "[0-9A-Za-zぁ-ゖァ-ヺ一-龥가-힣]", "、。，！？"
CUTS = {
    pattern: re.compile(
        rf"\S(?=[ \n])|{LETTER}(?=[{PUNCTUATION}])"
        if pattern in (GPT2, GPT2_ENCODER, GPT2_MINBPE)
        else rf"\S(?= )|{LETTER}(?=[\n{PUNCTUATION}])"
    )
    for pattern in FORMS
}

Pattern = str | tuple[str, ...]


def words(text: str, pattern: Pattern = GPT2) -> Iterable[str]:
    """The words of a text, in order; joined, they are the text."""
    if isinstance(pattern, tuple):
        pieces: Iterable[str] = [text] * bool(text)
        for part in pattern:
            pieces = [word for piece in pieces for word in words(piece, part)]
        return pieces
    if len(text) <= SHORT:
        return words_by_pattern(text, pattern)
    find = words_by_arrays if has_array_form(pattern) else words_by_pattern
    return itertools.chain.from_iterable(find(piece, pattern) for piece in chunked(text, pattern))


def words_by_pattern(text: str, pattern: str = GPT2) -> list[str]:
    """What the pattern finds, and what it leaves between."""
    run, sees = runner(pattern)
    seen = sees(text)
    found = [] if run.groups else run.findall(seen)
    spans: Iterable[int]
    if sum(map(len, found)) < len(text) or "" in found:
        spans = [span for match in run.finditer(seen) for span in match.span()]
    elif seen is text:
        return found
    else:
        spans = itertools.accumulate(map(len, found))
    bounds = dict.fromkeys([0, *spans, len(text)])
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def check(pattern: Pattern) -> None:
    """Raise ValueError for a pattern that cannot be run, ImportError for one that takes the package regex, which is absent."""
    for part in pattern if isinstance(pattern, tuple) else (pattern,):
        runner(part)


def words_by_arrays(text: str, pattern: str = GPT2) -> list[str]:
    """The words between their starts. pattern: one that has an array form"""
    bounds = [*np.flatnonzero(word_starts(code_points(text), pattern)).tolist(), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def code_points(text: str) -> np.ndarray:
    """The code points of a text: (characters,) int32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4")


def chunked(text: str, pattern: Pattern = GPT2, size: int | None = None) -> Iterator[str]:
    """The text in pieces of size characters or a little more, cut where that changes no word; whole, where no cut is known.

    size: CHUNK where it is not given
    """
    start = 0
    while start < len(text):
        cut = CUTS[pattern].search(text, start + (size or CHUNK)) if pattern in CUTS else None
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end
