"""The kinds of characters that the array forms of the patterns tell apart, and what stands beside a character."""

import functools

import numpy as np

from refllm.array_api import Namespace, namespace
from refllm.tokenizer.words.unicode_categories import members

END = 0  # no character: before the first and after the last
SIGN, APOSTROPHE, SLASH = 1, 2, 3  # neither letter, number, mark nor whitespace
CASELESS, UPPER, LOWER = 4, 5, 6  # letters: Lm and Lo, Lu and Lt, Ll
MARK, NUMBER = 7, 8
BLANK, SPACE, NEWLINE = 9, 10, 11  # whitespace: SPACE is U+0020 alone, NEWLINE is \r or \n
N_KINDS = 12


@functools.cache
def kind_table(xp: Namespace):
    """The kind of every code point: (0x110000,) uint8, an array of one backend."""
    categories = {"Lm": CASELESS, "Lo": CASELESS, "Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "M": MARK, "N": NUMBER, "s": BLANK}
    characters = {"'": APOSTROPHE, "/": SLASH, " ": SPACE, "\r": NEWLINE, "\n": NEWLINE}
    table = np.full(members("L").size, SIGN, np.uint8)
    for name, kind in categories.items():
        table[members(name)] = kind
    for character, kind in characters.items():
        table[ord(character)] = kind
    return xp.from_numpy(table)


def is_letter(kinds):
    return (kinds >= CASELESS) & (kinds <= LOWER)


def is_white(kinds):
    return kinds >= BLANK


def before(x, count, fill):
    """What stands count places before each: (N,), with fill where nothing does."""
    xp = namespace(x)
    return xp.concat([xp.full((count,), fill, dtype=x.dtype), x], axis=0)[: x.shape[0]]


def after(x, count, fill):
    """What stands count places after each: (N,), with fill where nothing does."""
    xp = namespace(x)
    return xp.concat([x, xp.full((count,), fill, dtype=x.dtype)], axis=0)[count:]
