"""GPT-2's words found by arrays: whether a word starts at a character depends on its two neighbours alone.

With p before x and n after it, a word starts at x iff
    x is the first of the text, or
    x is whitespace, and p is not, or n is something else (the last of a run stands alone or joins what follows), or
    x is no whitespace, p is not the space U+0020, and p is of another class.
A contraction such as 'll cuts behind itself, where its apostrophe starts a word.
"""

import functools

import numpy as np

from refllm.tokenizer.words.unicode_categories import members

CONTRACTIONS = ("s", "d", "m", "t", "ll", "ve", "re")

# The classes the rules ask for, three bits each.
_OTHER, _LETTER, _NUMBER, _WHITE, _BLANK, _APOSTROPHE, _END = range(7)
_STARTS, _MAY_CONTRACT = 1, 2  # the answers of the rules: a word starts here; an apostrophe that starts a word, before a letter


def word_starts(text: str) -> np.ndarray:
    """The position in text of the first character of each word, increasing: (words,) int64."""
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


def code_points(text: str) -> np.ndarray:
    """The code points of a text: (characters,) uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


@functools.cache
def _classes() -> np.ndarray:
    """What the rules tell apart, for every code point: (0x110000,) uint16."""
    classes = np.select([members("L"), members("N"), members("s")], [_LETTER, _NUMBER, _WHITE], _OTHER).astype(np.uint16)
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
