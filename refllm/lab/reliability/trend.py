"""Does something rise with something else? A rank correlation, and how often chance alone gives one as large."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.verdict import FAILS, HOLDS, SIGNIFICANT, UNDECIDABLE


class Trend(NamedTuple):
    """Kendall's τ (1938, doi:10.1093/biomet/30.1-2.81) of y with x: 1 where y always rises, −1 where it always falls."""

    tau: float
    p_rising: float  # the share of orders of y with a τ at least as large
    p_falling: float  # … at most as large

    def verdict(self, rising: bool) -> str:
        """Whether y rises (or falls), by a one-sided test at 5 %; it fails where the opposite is as sure."""
        yes, no = (self.p_rising, self.p_falling) if rising else (self.p_falling, self.p_rising)
        return HOLDS if yes <= SIGNIFICANT else FAILS if no <= SIGNIFICANT else UNDECIDABLE


def trend(x: Sequence[float], y: Sequence[float], seed: int = 0) -> Trend:
    """The trend of y (n,) over x (n,): all orders are tried for up to seven points, 5,000 drawn ones beyond.

    Equal values count half a step each way, as nothing. Raises ValueError for fewer than two points or different numbers of them.
    """
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"a trend needs two points or more, and {len(x)} values of x go with {len(y)} of y.")
    signs = np.sign(np.subtract.outer(np.asarray(x, dtype=float), np.asarray(x, dtype=float)))
    values = np.asarray(y, dtype=float)
    if len(x) <= 7:
        orders = np.array(list(itertools.permutations(range(len(x)))))
    else:
        rng = generator(seed, "trend")
        orders = np.stack([np.arange(len(x)), *(rng.permutation(len(x)) for _ in range(4999))])
    drawn = values[orders]
    scores = (np.sign(drawn[:, :, None] - drawn[:, None, :]) * signs).sum(axis=(1, 2))
    own = float((np.sign(np.subtract.outer(values, values)) * signs).sum())
    pairs = math.sqrt(float((signs != 0).sum()) * max(1.0, float((np.subtract.outer(values, values) != 0).sum())))
    return Trend(own / pairs if pairs else 0.0, float((scores >= own).mean()), float((scores <= own).mean()))
