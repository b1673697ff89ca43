"""Words found by NumPy: what neighbours decide by comparing bytes, and the rest only where it can matter.

Runs of whitespace, numbers and signs, contractions and upper-case letters behind those without case ask for more than a
character's neighbours. Such places are few: they are found first, and only they are followed up.
"""

import numpy as np

from .numpy_blocks import reference

# The kinds of characters, as the table that comes with the text numbers them.
END, SIGN, APOSTROPHE, SLASH, CASELESS, UPPER, LOWER, MARK, NUMBER, BLANK, SPACE, NEWLINE = range(12)
FREE, JOINED, EATEN = range(3)  # what a word of signs has done with a character
LONG_S = 0x17F
ROUNDS = 500  # for signs, marks and newlines that depend on one another, before the readable body takes over


def gpt2_word_starts(points, table):
    _, p, x, n = neighbours(points, table)
    unlike = is_letter(p) != is_letter(x)
    unlike |= (p == NUMBER) != (x == NUMBER)
    unlike |= p >= BLANK
    unlike &= p != SPACE
    unlike &= x < BLANK
    last = n < BLANK
    last &= n != END
    last |= p < BLANK
    last &= x >= BLANK
    starts = unlike | last
    starts[:1] = True
    places, letters = contractions(points, starts & (x == APOSTROPHE) & is_letter(n), 0)
    starts[places + 1] = False
    start_at(starts, places + letters + 1)
    return starts


def llama3_word_starts(points, table, digits):
    q, p, x, n = neighbours(points, table)
    newline, sign, p_sign = x == NEWLINE, is_sign_or_mark(x), is_sign_or_mark(p)
    starts = whitespace_starts(p, x, n)
    starts &= ~(newline & p_sign)
    starts |= sign & ~p_sign & (p != SPACE)
    fresh = p_sign & (is_sign_or_mark(q) | (q == SPACE))
    starts |= is_letter(x) & (fresh | (p == NEWLINE) | (p == NUMBER) | (p == END))
    between = between_newlines(p, x)
    if between.size:
        before_newlines = run_starts(newline, between - 1) - 1
        starts[between[(before_newlines < 0) | ~sign[before_newlines]]] = False
    start_numbers(starts, x, digits)
    places, letters = contractions(points, starts & (x == APOSTROPHE) & is_letter(n), 32)
    start_at(starts, places + letters + 1)
    return starts


def cl100k_word_starts(points, table, digits):
    starts = llama3_word_starts(points, table, digits)
    for size in (min(64, points.size), points.size):  # mostly a few characters tell where the whitespace at the end begins
        others = np.flatnonzero(table[points[points.size - size :]] < BLANK)
        if others.size:
            break
    tail = starts[points.size - size + others[-1] + 1 :] if others.size else starts
    tail[np.flatnonzero(tail)[1:]] = False
    return starts


def o200k_word_starts(points, table, digits):
    _, p, x, n = neighbours(points, table)
    letter = is_letter_or_mark(x)
    signs = sign_states(p, x, n)
    if signs is None:
        return reference("o200k_word_starts", points, table, digits)
    joined, p_signs = signs == JOINED, np.zeros_like(signs)
    p_signs[1:] = signs[:-1]
    letter &= ~joined
    starts = whitespace_starts(p, x, n)
    starts &= signs != EATEN
    starts |= joined & (p_signs != JOINED) & (p != SPACE)
    starts |= (x <= SLASH) & (signs == FREE)
    starts |= letter & ((p_signs != FREE) | (p == NEWLINE) | (p == NUMBER) | (p == END))
    starts |= (x == UPPER) & (p == LOWER)
    between = between_newlines(p, x)
    starts[between[signs[between - 1] != EATEN]] = False
    start_numbers(starts, x, digits)
    follows_letter = np.zeros_like(letter)
    follows_letter[1:] = letter[:-1]
    places, letters = contractions(points, (x == APOSTROPHE) & follows_letter & is_letter(n), 32)
    places, letters = every_other_of_chains(places, letters)
    second = places[letters == 2] + 2
    starts[places] = starts[places + 1] = starts[second] = False
    start_at(starts, places + letters + 1)
    without_case = letter & ((x == CASELESS) | (x == MARK))
    behind_without_case = np.flatnonzero((x[1:] == UPPER) & without_case[:-1]) + 1
    if behind_without_case.size:
        kinds = x.copy()
        kinds[places + 1] = kinds[second] = END  # the letters of contractions are no part of the word before or behind
        first = run_starts(without_case, behind_without_case - 1)
        lower = (first > 0) & (kinds[first - 1] == LOWER)
        end = run_ends(x == UPPER, behind_without_case)
        starts[behind_without_case[lower | ~np.append(letter, False)[end]]] = True
    return starts


def neighbours(points, table):
    """The kinds of the characters two before and one before each, its own, and that of the one behind: four times (N,) uint8."""
    kinds = np.zeros(points.size + 3, np.uint8)
    kinds[2:-1] = table.take(points)
    return kinds[:-3], kinds[1:-2], kinds[2:-1], kinds[3:]


def is_letter(x):
    return x - np.uint8(CASELESS) <= LOWER - CASELESS  # below CASELESS the difference wraps


def is_letter_or_mark(x):
    return x - np.uint8(CASELESS) <= MARK - CASELESS


def is_sign_or_mark(x):
    return (x - np.uint8(SIGN) <= SLASH - SIGN) | (x == MARK)


def whitespace_starts(p, x, n):
    """Whether a word starts at each character of whitespace, if the newlines behind it in its run were the last: (N,) bool."""
    starts = n < BLANK
    starts &= n != END
    starts |= p == NEWLINE
    starts &= x != NEWLINE
    starts |= p < BLANK
    starts &= x >= BLANK
    return starts


def between_newlines(p, x):
    """Where runs of other whitespace begin that stand between two newlines."""
    behind = np.flatnonzero((x == NEWLINE) & (p - np.uint8(BLANK) <= SPACE - BLANK))
    if not behind.size:
        return behind
    first = run_starts(x - np.uint8(BLANK) <= SPACE - BLANK, behind - 1)
    return first[(first > 0) & (x[first - 1] == NEWLINE)]


def start_numbers(starts, x, digits):
    """Mark where words of numbers start, each of so many digits."""
    number = x == NUMBER
    starts[:1] |= number[:1]
    starts[1:] |= number[1:] & ~number[:-1]
    later = np.flatnonzero(number[digits:] & number[digits - 1 : -1]) + digits
    if later.size:
        starts[later[(later - run_starts(number, later)) % digits == 0]] = True


def contractions(points, apostrophes, case):
    """The places of those apostrophes that begin a contraction, and how many letters it has: two of (C,) int64.

    apostrophes: (N,) bool, before letters all    case: 32 where it does not matter, the bit that tells A from a, else 0
    """
    places = np.flatnonzero(apostrophes)
    first = points[places + 1]
    second = np.where(places + 2 < points.size, points.take(places + 2, mode="clip"), 0) | case
    if case:
        first = np.where(first == LONG_S, ord("s"), first | case)
    one = (first == ord("s")) | (first == ord("t")) | (first == ord("m")) | (first == ord("d"))
    two = (first == ord("l")) & (second == ord("l")) | ((first == ord("r")) | (first == ord("v"))) & (second == ord("e"))
    found = one | two
    return places[found], one[found] + 2 * two[found]


def every_other_of_chains(places, letters):
    """The contractions that are left where one that directly follows another, which is left, is none: a's's's."""
    follows = np.zeros(places.size, bool)
    follows[1:] = places[1:] == places[:-1] + letters[:-1] + 1
    number = np.arange(places.size)
    taken = (number - np.maximum.accumulate(np.where(follows, 0, number))) % 2 == 0
    return places[taken], letters[taken]


def start_at(starts, places):
    """Mark starts at places, of which the last may be the end of the text."""
    starts[places[places < starts.size]] = True


def run_starts(inside, places):
    """Where the runs begin that hold each of these places."""
    begins = np.flatnonzero(inside[1:] > inside[:-1]) + 1
    return np.append(0, begins)[np.searchsorted(begins, places, side="right")]


def run_ends(inside, places):
    """Where the runs are over that hold each of these places: one behind their last."""
    ends = np.flatnonzero(inside[1:] < inside[:-1]) + 1
    return np.append(ends, inside.size)[np.searchsorted(ends, places, side="right")]


def _sign_steps():
    """The state of a character by its kind, whether it joins if it is a sign, and the state before it: (12, 2, 3) uint8."""
    steps = np.zeros((12, 2, 3), np.uint8)
    steps[SIGN : SLASH + 1, 1] = JOINED
    steps[[SIGN, APOSTROPHE, SLASH, MARK], :, JOINED] = JOINED
    steps[NEWLINE, :, [JOINED, EATEN]] = EATEN
    steps[SLASH, :, EATEN] = EATEN
    return steps


STEPS = _sign_steps()


def sign_states(p, x, n):
    """What words of signs have done with each character: (N,) uint8, or None where that would take too many rounds.

    A guess from neighbours is put right from left to right where it disagrees with itself.
    """
    sign, p_sign = x - np.uint8(SIGN) <= SLASH - SIGN, p - np.uint8(SIGN) <= SLASH - SIGN
    joins = ~is_letter_or_mark(n) | (p == SPACE)
    newline, p_newline = x == NEWLINE, p == NEWLINE
    states = (sign & (joins | p_sign)).view(np.uint8)  # JOINED is 1
    states[newline & p_sign] = EATEN
    places = np.flatnonzero(newline & p_newline | (x == MARK) & p_sign | (x == SLASH) & p_newline)
    for _ in range(ROUNDS):
        found = STEPS[x[places], joins[places].view(np.uint8), states[places - 1]]
        changed = found != states[places]
        states[places[changed]] = found[changed]
        places = places[changed] + 1
        places = places[places < states.size]
        if not places.size:
            return states
    return None


KERNELS = {
    "gpt2_word_starts": gpt2_word_starts,
    "llama3_word_starts": llama3_word_starts,
    "cl100k_word_starts": cl100k_word_starts,
    "o200k_word_starts": o200k_word_starts,
}
