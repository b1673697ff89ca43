"""What BERT's basic tokenizer makes of every character, frozen as Hugging Face's tokenizers 0.23 does it.

make_bert_characters.py makes the table. It holds no decompositions, only which characters have one: Unicode never changes one.
"""

import functools
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("bert_characters.bin")

DROPPED = 1  # removed from clean text: controls, formats, private use, U+0000 and U+FFFD
PUNCTUATION = 2  # a word of its own
MARK = 4  # a nonspacing mark, such as an accent
DECOMPOSED = 8  # has a canonical decomposition
ORDERED = 16  # has a canonical combining class above 0

# The ideographs that BERT takes for Chinese characters, first and last of each block.
IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


@functools.cache
def flags() -> np.ndarray:
    """What each code point is, of the flags above: (0x110000,) uint8."""
    numbers, kinds = _table()
    return np.repeat(kinds, numbers[2 : 2 + kinds.size])


@functools.cache
def lower_case() -> dict[int, str]:
    """The lower case of every code point that has another, whatever stands around it."""
    numbers, kinds = _table()
    pairs = numbers[2 + kinds.size :].reshape(-1, 2).tolist()
    return {point: chr(lower) for point, lower in pairs} | {0x130: "i\u0307"}  # İ is the one that becomes two


def is_ideograph(point: int) -> bool:
    """Whether a code point is one that BERT takes for a Chinese character."""
    return any(first <= point <= last for first, last in IDEOGRAPHS)


def _table() -> tuple[np.ndarray, np.ndarray]:
    packed = zlib.decompress(PATH.read_bytes())
    n_runs, n_pairs = np.frombuffer(packed, "<u4", 2).tolist()
    n_numbers = 2 + n_runs + 2 * n_pairs
    return np.frombuffer(packed, "<u4", n_numbers), np.frombuffer(packed, np.uint8, n_runs, offset=4 * n_numbers)
