"""GPT-2's pre-tokenization: text to words that no merge crosses (Radford et al. 2019, encoder.py), without the package regex.

    '(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Two forms with equal results: `words_by_pattern` runs it in Python's re with the frozen classes written out (quick on a prompt);
`word_starts` decides at every code point from its two neighbours whether a word starts there (quick on a book):

    a word starts at x, with p before it and n after it, iff
        x is the first of the text, or
        x is whitespace, and p is not, or n is something else (the last of a run stands alone or joins what follows), or
        x is no whitespace, p is not the space U+0020, and p is of another class.

A contraction such as 'll cuts behind itself, where its apostrophe starts a word.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from refllm.tokenizer.unicode_classes import LETTER, LOWER, NUMBER, SPACE, UPPER, unicode_classes

CONTRACTIONS = ("s", "d", "m", "t", "ll", "ve", "re")

CHUNK = 1 << 17  # characters, about; their arrays stay in the processor's cache
SHORT = 512  # characters; up to here the pattern finds the words sooner than arrays do

_CUT = re.compile(r"\S(?=[ \n])")  # Python's \s holds all that the frozen table's does

# The classes the rules ask for, three bits each.
_OTHER, _LETTER, _NUMBER, _WHITE, _BLANK, _APOSTROPHE, _END = range(7)
_STARTS, _MAY_CONTRACT = 1, 2  # the answers of the rules: a word starts here; an apostrophe that starts a word, before a letter


def words(text: str) -> Iterable[str]:
    """The words of a text, in order; joined, they are the text."""
    if len(text) <= SHORT:
        return words_by_pattern(text)
    return itertools.chain.from_iterable(map(words_by_arrays, chunked(text, CHUNK)))


def words_by_pattern(text: str) -> list[str]:
    """The words as the pattern finds them."""
    return _pattern(text.isascii()).findall(text)


def words_by_arrays(text: str) -> list[str]:
    """The words between their starts."""
    bounds = [*word_starts(text).tolist(), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def word_starts(text: str) -> np.ndarray:
    """The position in text of the first character of each word, increasing: (number of words,) int64."""
    if not text:
        return np.zeros(0, np.int64)
    points = code_points(text)
    padded = np.full(points.size + 2, _END, np.uint16)
    padded[1:-1] = _classes().take(points)
    answers = _rules().take(padded[:-2] << 6 | padded[1:-1] << 3 | padded[2:])
    starts = (answers & _STARTS).astype(bool)
    apostrophes = np.flatnonzero(answers & _MAY_CONTRACT)
    if apostrophes.size:
        follows = np.append(points, [0, 0])
        first, second = follows[apostrophes + 1], follows[apostrophes + 2]
        length = np.zeros(apostrophes.size, np.int64)
        for letters in CONTRACTIONS:
            matches = first == ord(letters[0])
            if len(letters) == 2:
                matches &= second == ord(letters[1])
            length[matches] = len(letters)
        taken = length > 0
        starts[apostrophes[taken] + 1] = False
        ends = (apostrophes + 1 + length)[taken]
        starts[ends[ends < points.size]] = True
    return np.flatnonzero(starts)


def chunked(text: str, size: int) -> Iterator[str]:
    """The text in pieces of size characters or a little more, cut where whitespace follows something else.

    A word always starts there, and no word before it depends on what comes after.
    """
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + size)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def code_points(text: str) -> np.ndarray:
    """The code points of a text: (characters,) uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


@functools.cache
def _classes() -> np.ndarray:
    """What the rules tell apart, for every code point: (0x110000,) uint16."""
    classes = np.array([_OTHER, _LETTER, _LETTER, _LETTER, _OTHER, _NUMBER, _WHITE], np.uint16)[unicode_classes()]
    classes[ord(" ")] = _BLANK
    classes[ord("'")] = _APOSTROPHE
    return classes


@functools.cache
def _rules() -> np.ndarray:
    """The answer for each class before, here and after, nine bits in all: (512,) uint8."""
    white, punctuation = (_WHITE, _BLANK), (_OTHER, _APOSTROPHE)
    table = np.zeros(512, np.uint8)
    for before in range(7):
        for here in range(6):
            for after in range(7):
                if before == _END:
                    starts = True
                elif here in white:
                    starts = before not in white or after not in (*white, _END)
                elif before == _BLANK:
                    starts = False
                else:
                    starts = before != here and not (before in punctuation and here in punctuation)
                contracts = here == _APOSTROPHE and starts and after == _LETTER
                table[before << 6 | here << 3 | after] = _STARTS * starts + _MAY_CONTRACT * contracts
    return table


@functools.cache
def _pattern(ascii_only: bool) -> re.Pattern:
    """GPT-2's pattern in Python's re, the classes written as ranges; for ASCII text, their short ASCII part."""
    classes = unicode_classes()[: 128 if ascii_only else None]
    letters = _ranges(np.isin(classes, (UPPER, LOWER, LETTER)))
    numbers = _ranges(classes == NUMBER)
    spaces = _ranges(classes == SPACE)
    return re.compile(
        f"'(?:[sdmt]|ll|ve|re)| ?[{letters}]++| ?[{numbers}]++| ?[^{spaces}{letters}{numbers}]++"
        f"|[{spaces}]+(?![^{spaces}])|[{spaces}]"
    )


def _ranges(member: np.ndarray) -> str:
    """The members as ranges of a character class."""
    edges = np.flatnonzero(np.diff(member, prepend=False, append=False)).reshape(-1, 2)
    return "".join(f"\\U{first:08x}-\\U{end - 1:08x}" for first, end in edges.tolist())
