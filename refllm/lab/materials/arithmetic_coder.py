"""Arithmetic coding (Witten, Neal & Cleary 1987, doi:10.1145/214762.214771): a text takes about −log2 of its probability in bits.

A text is coded as an interval of the numbers from 0 to 1. Each symbol narrows it to the symbol's share:

    low ← low + range · before / total          range ← range · frequency / total

so after a whole text range = Π p, and about −log2 Π p binary digits name a number inside. All in integers of 48 bits: leading
digits on which both ends agree are written and dropped. Where both ends lie in the middle half, the next digit is not known yet
but the one after it will be its opposite, and is counted until then. So the range stays above a quarter of all numbers.
"""

import math
from collections.abc import Iterator

import numpy as np

DIGITS = 48
TOP = 1 << DIGITS  # the ends of the interval are integers 0 … TOP − 1
HALF, QUARTER = TOP // 2, TOP // 4
TOTAL = 1 << 32  # the most that frequencies add up to: a vocabulary of 100,000 takes a forty-thousandth of it


def frequencies(p: np.ndarray) -> np.ndarray:
    """Integers in proportion to probabilities (..., V), each at least 1: (..., V) int64, adding up to TOTAL at most."""
    p = np.asarray(p, dtype=np.float64)
    V = p.shape[-1]
    return 1 + np.floor(p / p.sum(axis=-1, keepdims=True) * (TOTAL - V)).astype(np.int64)


def precision(p: np.ndarray, vocab_size: int) -> float:
    """By how many bits a code of symbols with probabilities p (n,) may differ from −Σ log2 p, besides the two digits at its end.

    A frequency lies between max(1, p·(TOTAL − V)) and 1 + p·(TOTAL − V), the total between TOTAL − V and TOTAL. The interval has
    more than QUARTER/TOTAL numbers for each unit of frequency, and rounding shifts it by less than one.
    """
    share = p * (TOTAL - vocab_size)
    rounded = TOTAL / QUARTER / np.maximum(share, 1.0)
    longer = math.log2(TOTAL / (TOTAL - vocab_size)) - np.log2(1 - rounded)
    shorter = np.log2(1 + 1 / share) + np.log2(1 + rounded)
    return float(np.maximum(longer, shorter).sum())


class Encoder:
    """Encodes symbols as binary digits."""

    def __init__(self) -> None:
        self.bits = bytearray()  # one digit each
        self._low, self._high = 0, TOP - 1
        self._pending = 0  # digits that will be the opposite of the next

    def write(self, symbol: int, cumulative: np.ndarray) -> None:
        """Add a symbol, given the cumulative sums of the frequencies: (V,) int64, the last their total."""
        self._low, self._high = narrowed(self._low, self._high, symbol, cumulative)
        while True:
            if self._high < HALF:
                self._put(0)
            elif self._low >= HALF:
                self._put(1)
                self._low, self._high = self._low - HALF, self._high - HALF
            elif self._low >= QUARTER and self._high < HALF + QUARTER:
                self._pending += 1
                self._low, self._high = self._low - QUARTER, self._high - QUARTER
            else:
                return
            self._low, self._high = 2 * self._low, 2 * self._high + 1

    def finish(self) -> bytes:
        """The code: two digits more, which name a quarter that lies within the interval, and zeros up to a whole byte."""
        self._pending += 1
        self._put(0 if self._low < QUARTER else 1)
        return np.packbits(np.frombuffer(bytes(self.bits), np.uint8)).tobytes()

    def _put(self, bit: int) -> None:
        self.bits.append(bit)
        self.bits.extend([1 - bit] * self._pending)
        self._pending = 0


class Decoder:
    """Decodes binary digits to symbols, given the same frequencies."""

    def __init__(self, code: bytes) -> None:
        self._bits: Iterator[int] = iter(np.unpackbits(np.frombuffer(code, np.uint8)).tolist())
        self._low, self._high, self._number = 0, TOP - 1, 0
        for _ in range(DIGITS):
            self._number = 2 * self._number + self._next()

    def read(self, cumulative: np.ndarray) -> int:
        """The next symbol, given the cumulative sums of the frequencies: (V,) int64, the last their total."""
        width, total = self._high - self._low + 1, int(cumulative[-1])
        place = ((self._number - self._low + 1) * total - 1) // width
        symbol = int(np.searchsorted(cumulative, place, side="right"))
        self._low, self._high = narrowed(self._low, self._high, symbol, cumulative)
        while True:
            if self._high < HALF:
                away = 0
            elif self._low >= HALF:
                away = HALF
            elif self._low >= QUARTER and self._high < HALF + QUARTER:
                away = QUARTER
            else:
                return symbol
            self._low, self._high = 2 * (self._low - away), 2 * (self._high - away) + 1
            self._number = 2 * (self._number - away) + self._next()

    def _next(self) -> int:
        return next(self._bits, 0)  # any digits may follow the code


def narrowed(low: int, high: int, symbol: int, cumulative: np.ndarray) -> tuple[int, int]:
    """The ends of a symbol's share of the interval low … high, both included; cumulative: (V,) int64 as in `Encoder.write`."""
    width, total = high - low + 1, int(cumulative[-1])
    before = int(cumulative[symbol - 1]) if symbol else 0
    return low + width * before // total, low + width * int(cumulative[symbol]) // total - 1
