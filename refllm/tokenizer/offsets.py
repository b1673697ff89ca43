"""Where in a text its tokens lie, as spans of characters.

A token of part of a character's bytes spans the whole character, so the spans of such neighbours overlap.
"""

from collections.abc import Iterable

import numpy as np

from refllm.tokenizer.model import Span


def spans_of_bytes(text: str, lengths: Iterable[int], start: int = 0) -> list[Span]:
    """The characters that each of consecutive tokens covers.

    lengths: how many bytes of the text's UTF-8 each token stands for, 1 or more    start: the byte at which the first begins;
    below 0 where it also holds something put before the text, which no character covers
    """
    ends = np.cumsum(np.fromiter(lengths, np.int64)) + start
    begins = np.concatenate([[start], ends[:-1]])[: ends.size]
    character = character_of_each_byte(text)
    firsts, lasts = np.maximum(begins, 0), np.maximum(ends, 0) - 1
    first = character.take(firsts, mode="clip") if character.size else firsts
    behind = np.where(lasts >= 0, character.take(lasts, mode="clip") + 1 if character.size else 0, 0)
    return list(zip(first.tolist(), behind.tolist(), strict=True))


def character_of_each_byte(text: str) -> np.ndarray:
    """The position in the text of the character that each byte of its UTF-8 belongs to: (bytes,) int64."""
    if text.isascii():
        return np.arange(len(text))
    data = np.frombuffer(text.encode(), np.uint8)
    return np.cumsum(data & 0xC0 != 0x80) - 1  # every byte but a continuation begins a character
