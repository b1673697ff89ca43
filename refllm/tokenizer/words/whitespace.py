r"""Whitespace as `\s*[\r\n]+|\s+(?!\S)|\s+` cuts it, the last alternatives of cl100k, Llama 3 and o200k."""

from refllm.tokenizer.words.kinds import after, before
from refllm.tokenizer.words.scans import coming


def whitespace_starts(white, newline):
    """Whether a word starts at each character of whitespace: (N,) bool, False at others.

    A run of whitespace is cut behind its last newline, and before its last character, unless that is a newline or ends the text:
    it stands alone or joins what follows.

    white: (N,) bool    newline: (N,) bool, the line ends
    """
    newline_comes = coming(newline, newline | ~white, False)
    first = ~before(white, 1, False)
    behind_newlines = before(newline, 1, False) & ~newline_comes
    last = ~newline & after(~white, 1, False)
    return white & (first | behind_newlines | last)
