"""The surprisal of texts, −Σ log2 p: in bits, per byte, per character and per word.

A bit is the answer to one yes–no question whose two answers are equally likely (Shannon 1948,
doi:10.1002/j.1538-7305.1948.tb01338.x). Words are separated by white space.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Surprise(NamedTuple):
    """The surprisal of a text under a model, or of several texts together."""

    bits: float  # −Σ log2 p
    n_bytes: int  # of the text in UTF-8
    n_characters: int
    n_words: int

    @property
    def per_byte(self) -> float:
        """Bits per byte, which do not depend on the tokenizer."""
        return self.bits / self.n_bytes

    @property
    def per_character(self) -> float:
        """Bits per character."""
        return self.bits / self.n_characters

    @property
    def per_word(self) -> float:
        """Bits per word, the spaces between words included: as many yes–no questions as a word takes."""
        return self.bits / self.n_words


def surprise(text: str, nats: float) -> Surprise:
    """The surprisal of a text, given −Σ ln p in nats. Raises ValueError for a text without words."""
    n_words = len(text.split())
    if not n_words:
        raise ValueError("the text has no word, so there are no bits per word.")
    return Surprise(nats / math.log(2), len(text.encode()), len(text), n_words)


def together(parts: Sequence[Surprise]) -> Surprise:
    """The surprisal of several texts together."""
    bits, *lengths = zip(*parts, strict=True)
    return Surprise(math.fsum(bits), *map(sum, lengths))
