"""Five kinds of text, each more predictable than the one before, of words with single spaces between them.

    random letters    each of 27 symbols equally likely: log2 27 = 4.75 bits a character at least, under any model
    shuffled words    the words of a passage in random order: words can be predicted, their order cannot
    text              the passage as it stands
    repetition        its first PERIOD characters over and over: 16 or more bits a text, as text takes 1 or more a character
    counting          consecutive numbers, of which only the first is random: log2 LARGEST = 12.3 bits a text

So the order is known without any model.
"""

from typing import NamedTuple

import numpy as np

from refllm.lab.materials import corpus

KINDS = ("random letters", "shuffled words", "text", "repetition", "counting")
LETTERS = "abcdefghijklmnopqrstuvwxyz "
DIGITS = "0123456789"
SPACE = " "
PERIOD = 16  # characters
LARGEST = 5000  # counting begins at a number below this


class Source(NamedTuple):
    """What texts are drawn from."""

    words: tuple[str, ...]  # of a real text, in its order
    symbols: str  # the characters of all kinds of text in the order of their ids

    def draw(self, kind: str, rng: np.random.Generator, length: int) -> str:
        """A text of one kind, of at most so many characters: as many whole words as fit.

        Generators in the same state give the same passage to shuffled words, text and repetition.
        """
        if kind == "random letters":
            return "".join(rng.choice(list(LETTERS), length))
        if kind == "counting":
            first = int(rng.integers(0, LARGEST))
            return whole_words([str(first + i) for i in range(length)], length)
        begin = int(rng.integers(0, len(self.words)))
        passage = whole_words([self.words[(begin + i) % len(self.words)] for i in range(length)], length)
        if kind == "shuffled words":
            return SPACE.join(rng.permutation(passage.split()))
        if kind == "repetition":
            return (passage[:PERIOD] * (length // PERIOD + 1))[: len(passage)]
        return passage

    def ids(self, text: str) -> list[int]:
        """The ids of a text's characters, preceded by that of a space."""
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        return [place[c] for c in SPACE + text]


def whole_words(words: list[str], length: int) -> str:
    """As many of the first words as fit into so many characters; of a first word that does not fit, its beginning."""
    text = SPACE.join(words)
    if len(text) <= length:
        return text
    end = text.rfind(SPACE, 0, length + 1)
    return text[: end if end > 0 else length]


def sources(text: str, length: int) -> tuple[Source, Source]:
    """A part of a text to train on and a part held out. text: a file or a folder; "" for Python's standard library

    Raises ValueError for a text in which a part has fewer than `length` characters.
    """
    read = corpus.load(text or None, as_bytes=True)
    parts = [tuple(ids.tobytes().decode(errors="ignore").split()) for ids in (read.train, read.held_out)]
    for words in parts:
        if len(SPACE.join(words)) < length:
            raise ValueError(
                f"{read.source} is too short for texts of {length} characters: of its two parts, one to train on and one "
                f"held out, one has {len(SPACE.join(words))}. Give more text, or set a smaller length."
            )
    symbols = "".join(sorted({*LETTERS, *DIGITS}.union(*(word for words in parts for word in words))))
    return Source(parts[0], symbols), Source(parts[1], symbols)
