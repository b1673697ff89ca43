"""The ends of English contractions: an apostrophe and s, d, m, t, ll, ve or re."""

from functools import reduce
from operator import or_

from refllm.array_api import namespace
from refllm.tokenizer.words.kinds import after, before

ONE_LETTER = ("s", "d", "m", "t")
TWO_LETTERS = ("ll", "ve", "re")
LONG_S = 0x17F  # ſ, an s where case does not matter


def contraction_letters(points):
    """How many letters of a contraction stand behind each apostrophe: (N,) int32, 0 where none does and at other characters.

    points: (N,) int32 code points
    """
    xp = namespace(points)
    first, second = after(points, 1, 0), after(points, 2, 0)
    one = reduce(or_, [first == ord(letter) for letter in ONE_LETTER])
    two = reduce(or_, [(first == ord(letters[0])) & (second == ord(letters[1])) for letters in TWO_LETTERS])
    letters = xp.astype(one, xp.int32) + 2 * xp.astype(two, xp.int32)
    return letters * xp.astype(points == ord("'"), xp.int32)


def folded(points):
    """The points of A to Z and of the long s as those of the small letters they are where case does not matter: (N,) int32."""
    xp = namespace(points)
    upper = (points >= ord("A")) & (points <= ord("Z"))
    small = points + (ord("a") - ord("A")) * xp.astype(upper, points.dtype)
    return xp.where(points == LONG_S, xp.full_like(points, ord("s")), small)


def cut_behind(starts, letters):
    """The starts of words, changed where one begins with a contraction: none between its two, and one behind it.

    starts: (N,) bool    letters: (N,) int32, as contraction_letters has them
    """
    xp = namespace(starts)
    letters = letters * xp.astype(starts, xp.int32)
    starts = starts & ~(before(letters, 1, 0) > 0)
    return starts | (before(letters, 2, 0) == 1) | (before(letters, 3, 0) == 2)
