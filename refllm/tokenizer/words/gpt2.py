"""GPT-2's words found by arrays: whether a word starts at a character depends on its two neighbours alone.

With p before x and n after it, a word starts at x iff
    x is the first of the text, or
    x is whitespace, and p is not, or n is something else (the last of a run stands alone or joins what follows), or
    x is no whitespace, p is not the space U+0020, and p is of another class (letters, numbers, signs).
A contraction such as 'll cuts behind itself, where its apostrophe starts a word.
"""

from refllm.array_api import namespace, op
from refllm.tokenizer.words.contractions import contraction_letters, cut_behind
from refllm.tokenizer.words.kinds import END, NUMBER, SPACE, after, before, is_letter, is_white


@op
def gpt2_word_starts(points, table):
    """Whether a word of GPT-2's starts at each character.

    points: (N,) int32 code points    table: (0x110000,) uint8, the kind of every code point
    Returns starts: (N,) bool.
    """
    xp = namespace(points)
    kinds = xp.take(table, points, axis=0)
    starts = gpt2_rule(before(kinds, 1, END), kinds, after(kinds, 1, END))
    return cut_behind(starts, contraction_letters(points))


def gpt2_rule(p, x, n):
    """Whether a word starts at characters of kind x between kinds p and n, contractions aside."""
    return (p == END) | is_white(x) & (~is_white(p) | ~is_white(n) & (n != END)) | ~is_white(x) & (p != SPACE) & ~alike(p, x)


def alike(p, x):
    """Whether two characters, the second no whitespace, are of one class: letters, numbers, or signs."""
    return (is_letter(p) == is_letter(x)) & ((p == NUMBER) == (x == NUMBER)) & ~is_white(p)
