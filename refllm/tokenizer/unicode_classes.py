"""The class of every Unicode code point, frozen as the reference tokenizers see it (make_unicode_classes.py makes the table)."""

import functools
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("unicode_classes.bin")
N_CODE_POINTS = 0x110000

OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE = range(7)  # LETTER: a letter without case, \p{Lm} or \p{Lo}


@functools.cache
def unicode_classes() -> np.ndarray:
    """One of OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE for each code point: (0x110000,) uint8."""
    packed = zlib.decompress(PATH.read_bytes())
    n_runs = len(packed) // 5
    lengths = np.frombuffer(packed, "<u4", n_runs)
    return np.repeat(np.frombuffer(packed, np.uint8, n_runs, offset=4 * n_runs), lengths)
