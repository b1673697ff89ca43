"""Texts that are ever easier to foresee, of words between single spaces.

Random letters, of which each takes log2 27 bits whoever reads them; the words of a real text in random order; the real text; a
piece of it over and over; numbers counted up.
"""

from typing import NamedTuple

import numpy as np

from refllm.lab import corpus

KINDS = ("random letters", "shuffled words", "text", "repetition", "counting")
LETTERS = "abcdefghijklmnopqrstuvwxyz "
DIGITS = "0123456789"
SPACE = " "  # what every text is thought to follow
PERIOD = 16  # characters of the piece that is repeated
LARGEST = 5000  # numbers that counting may begin at lie below


class Source(NamedTuple):
    """Where texts come from."""

    words: tuple[str, ...]  # of a real text, in its order
    symbols: str  # the characters in the order of their ids

    def draw(self, kind: str, rng: np.random.Generator, length: int) -> str:
        """A text of one kind, of so many characters."""
        if kind == "random letters":
            return "".join(rng.choice(list(LETTERS), length))
        if kind == "counting":
            first = int(rng.integers(1, LARGEST))
            return SPACE.join(str(first + i) for i in range(length))[:length]
        if kind == "shuffled words":
            return SPACE.join(self.words[i] for i in rng.integers(0, len(self.words), length))[:length]
        begin = int(rng.integers(0, len(self.words)))
        text = SPACE.join(self.words[(begin + i) % len(self.words)] for i in range(length))
        if kind == "repetition":
            text = text[:PERIOD] * (length // PERIOD + 1)
        return text[:length]

    def ids(self, texts: list[str]) -> np.ndarray:
        """The texts' characters, a space before each: (R, 1 + length) int32."""
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        return np.array([[place[c] for c in SPACE + text] for text in texts], dtype=np.int32)


def sources(text: str) -> tuple[Source, Source]:
    """What is learned from, and what is held out for questions. text: a file or a folder; "" for Python's standard library

    Raises ValueError for a text without words in either part.
    """
    read = corpus.load(text or None)
    known = read.symbols or ""
    symbols = "".join(sorted({*known, *LETTERS, *DIGITS}))
    parts = [tuple("".join(known[i] for i in ids.tolist()).split()) for ids in (read.train, read.held_out)]
    if not all(parts):
        raise ValueError(f"{read.source} has too few words for a part to learn from and a part held out.")
    return Source(parts[0], symbols), Source(parts[1], symbols)
