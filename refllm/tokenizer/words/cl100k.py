r"""The words of cl100k (GPT-4) and Llama 3, found by arrays.

With q and p before x, a word starts at x
    in whitespace     as whitespace.py says; but newlines directly behind a sign belong to the sign's word,
    at a number       iff it is the first of its run, or 3, 6, 9 … places from it (or 1, 2, 3 …, 2, 4, 6 … by other patterns),
    at a letter       iff p ends the text, is a newline or a number, or is a sign that is not the first of its word:
                      whitespace and single signs are prefixes of the letters behind them,
    at another sign   iff p is neither a sign nor the space U+0020.
A contraction such as 'll cuts behind itself, where its apostrophe starts a word.
"""

from refllm.array_api import namespace, op
from refllm.tokenizer.words.contractions import contraction_letters, cut_behind, folded
from refllm.tokenizer.words.kinds import END, NEWLINE, NUMBER, SPACE, before, is_letter, is_white
from refllm.tokenizer.words.scans import coming, latest, place_in_run
from refllm.tokenizer.words.whitespace import whitespace_starts


@op
def llama3_word_starts(points, table, digits):
    """Whether a word of Llama 3's starts at each character.

    points: (N,) int32 code points    table: (0x110000,) uint8, the kind of every code point
    digits: how many numbers a word may hold
    Returns starts: (N,) bool.
    """
    xp = namespace(points)
    x = xp.take(table, points, axis=0)
    p, q = before(x, 1, END), before(x, 2, END)
    sign, newline = is_sign(x), x == NEWLINE
    of_signs = latest(sign, ~newline, False)  # signs, and the newlines directly behind them
    starts = whitespace_starts(is_white(x) & ~of_signs, newline)
    starts = starts | (x == NUMBER) & (place_in_run(x == NUMBER) % digits == 0)
    starts = starts | is_letter(x) & letter_rule(q, p)
    starts = starts | sign & ~is_sign(p) & (p != SPACE)
    return cut_behind(starts, contraction_letters(folded(points)))


@op
def cl100k_word_starts(points, table, digits):
    r"""Whether a word of cl100k's starts at each character: as for Llama 3, but whitespace that ends the text is never cut.

    points: (N,) int32 code points    table: (0x110000,) uint8, the kind of every code point
    digits: how many numbers a word may hold
    Returns starts: (N,) bool. tiktoken 0.14 has `\s++$` before `\s*[\r\n]`, which js-tiktoken and minbpe have not.
    """
    xp = namespace(points)
    starts = llama3_word_starts(points, table, digits)
    white = is_white(xp.take(table, points, axis=0))
    ends_text = ~coming(~white, ~white, False)
    n_starts = xp.cumulative_sum(xp.astype(starts & ends_text, xp.int32), axis=0)
    return starts & (~ends_text | (n_starts == 1))


def letter_rule(q, p):
    """Whether a word starts at a letter behind characters of kinds q and p."""
    return (p == END) | (p == NEWLINE) | (p == NUMBER) | is_sign(p) & (is_sign(q) | (q == SPACE))


def is_sign(kinds):
    """Neither letter, number nor whitespace: marks among them."""
    return (kinds != END) & ~is_letter(kinds) & (kinds != NUMBER) & ~is_white(kinds)
