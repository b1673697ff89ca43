"""How surprising a text is, in every unit: nats, bits, bits per byte, per character and per word.

A bit is the answer to one yes–no question whose two answers are equally likely (Shannon 1948,
doi:10.1002/j.1538-7305.1948.tb01338.x). Words stand between white space.
"""

import math
from typing import NamedTuple


class Surprise(NamedTuple):
    """What a text costs under a model."""

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
        """Bits per word: the yes–no questions that one takes, the space behind it included."""
        return self.bits / self.n_words

    @property
    def choices_per_word(self) -> float:
        """Among how many equally likely words each would be chosen: 2 to the bits per word."""
        return 2**self.per_word


def surprise(text: str, nats: float) -> Surprise:
    """A text of at least one word that costs so many nats. Raises ValueError for a text without words."""
    n_words = len(text.split())
    if not n_words:
        raise ValueError("the text has no word, so there are no bits per word.")
    return Surprise(nats / math.log(2), len(text.encode()), len(text), n_words)
