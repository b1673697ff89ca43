r"""The words of o200k (GPT-4o, GPT-OSS), found by arrays.

A sign is a prefix of the letters or marks behind it, or belongs to a run of signs. From the first sign on that no letter or
mark follows, or that a space precedes, all signs and marks up to another character are one word (they are *joined*),
which also takes the newlines behind it and then all of `[\r\n/]*` (they are *eaten*). A mark that is not joined is as a letter.

A contraction belongs to the letters before it; it is no contraction where another one has just ended a word.

Letters are cut before an upper-case one behind a lower-case one, letters without case and marks between them aside.
A word that ends in upper-case letters behind one without case is cut between them, for `[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` asks for
one that is not upper-case.

Numbers and whitespace are as Llama 3's.
"""

from refllm.array_api import namespace, op
from refllm.tokenizer.words.contractions import contraction_letters, folded
from refllm.tokenizer.words.kinds import (
    APOSTROPHE,
    CASELESS,
    END,
    LOWER,
    MARK,
    N_KINDS,
    NEWLINE,
    NUMBER,
    SIGN,
    SLASH,
    SPACE,
    UPPER,
    after,
    before,
    is_letter,
    is_white,
)
from refllm.tokenizer.words.scans import coming, latest, place_in_run, state_map, states_after
from refllm.tokenizer.words.whitespace import whitespace_starts

FREE, JOINED, EATEN = 0, 1, 2  # what has become of a character, as the word of signs before it decides
NO_CONTRACTION, ENDED = 0, 1  # a state above says that one letter less than it is still to come


@op
def o200k_word_starts(points, table, digits):
    """Whether a word of o200k's starts at each character.

    points: (N,) int32 code points    table: (0x110000,) uint8, the kind of every code point
    digits: how many numbers a word may hold
    Returns starts: (N,) bool.
    """
    xp = namespace(points)
    x = xp.take(table, points, axis=0)
    p = before(x, 1, END)
    signs = sign_states(x)
    letter = (is_letter(x) | (x == MARK)) & (signs == FREE)
    contraction = contraction_states(points, letter)
    behind_contraction = before(contraction, 1, NO_CONTRACTION) == ENDED
    white = is_white(x) & (signs != EATEN)
    after_signs = before(signs, 1, FREE)
    joined = signs == JOINED
    starts = whitespace_starts(white, x == NEWLINE)
    starts = starts | (x == NUMBER) & (place_in_run(x == NUMBER) % digits == 0)
    starts = starts | joined & (after_signs != JOINED) & (p != SPACE)
    starts = starts | is_sign(x) & (signs == FREE)
    suffix = (contraction > ENDED) | (before(contraction, 1, NO_CONTRACTION) > ENDED)
    letter = letter & ~suffix
    fresh = behind_contraction | (after_signs != FREE) | (p == END) | (p == NEWLINE) | (p == NUMBER)
    starts = starts | letter & (fresh | case_starts(x, letter))
    return starts & ~suffix


def sign_states(x):
    """Whether each character is free, joined to a word of signs or eaten by one: (N,) int32. x: (N,) uint8 kinds"""
    xp = namespace(x)
    n = after(x, 1, END)
    joins = ~is_letter(n) & (n != MARK) | (before(x, 1, END) == SPACE)
    maps = [[state_map((FREE, FREE, FREE))] * 2 for _ in range(N_KINDS)]  # by kind, and whether a sign joins
    maps[SIGN] = maps[APOSTROPHE] = [state_map((FREE, JOINED, FREE)), state_map((JOINED, JOINED, JOINED))]
    maps[SLASH] = [state_map((FREE, JOINED, EATEN)), state_map((JOINED, JOINED, EATEN))]
    maps[MARK] = [state_map((FREE, JOINED, FREE))] * 2
    maps[NEWLINE] = [state_map((FREE, EATEN, EATEN))] * 2
    table = xp.asarray([number for pair in maps for number in pair], dtype=xp.int32)
    return states_after(xp.take(table, 2 * xp.astype(x, xp.int32) + xp.astype(joins, xp.int32), axis=0))


def contraction_states(points, letter):
    """How many letters of a contraction are still to come behind each character, and one: (N,) int32; 0 outside contractions.

    points: (N,) int32    letter: (N,) bool, the letters and marks of words
    """
    xp = namespace(points)
    letters = contraction_letters(folded(points)) * xp.astype(before(letter, 1, False), xp.int32)
    goes_on = (NO_CONTRACTION, NO_CONTRACTION, 1, 2)
    maps = [state_map(goes_on)] + [state_map((ENDED + count, *goes_on[1:])) for count in (1, 2)]
    return states_after(xp.take(xp.asarray(maps, dtype=xp.int32), letters, axis=0))


def case_starts(x, letter):
    """Whether a word starts at each upper-case letter for the case of those beside it: (N,) bool.

    x: (N,) uint8 kinds    letter: (N,) bool, the letters and marks of words, those of contractions aside
    """
    upper, without_case = x == UPPER, (x == CASELESS) | (x == MARK)
    behind_lower = before(latest(letter & (x == LOWER), ~without_case, False), 1, False)
    ends_in_upper = coming(~letter, ~upper, True)
    return upper & (behind_lower | before(without_case, 1, False) & ends_in_upper)


def is_sign(x):
    """Neither letter, mark, number nor whitespace."""
    return x <= SLASH
