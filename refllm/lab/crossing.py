"""Where two kinds of model, each with losses at several sizes, are equally good: straight lines through the losses over ln size,
and the same for the windows drawn again and again, which both kinds share.
"""

from typing import NamedTuple

import numpy as np

from refllm.array_api import generator


class Line(NamedTuple):
    """One kind of model."""

    sizes: np.ndarray  # (m,) ascending
    losses: np.ndarray  # (m, W), of every window


class Crossing(NamedTuple):
    """Where two lines meet between the smallest and the largest size that both have."""

    size: float | None  # the first; None where they do not meet
    low: float | None  # 2.5 % and 97.5 % of it over the resamples in which they meet
    high: float | None
    reached: float | None  # the share of resamples in which the first is somewhere as good as the second; None without sizes
    range: tuple[float, float] | None  # the sizes that both have


def crossing(first: Line, second: Line, resamples: int, seed: int) -> Crossing:
    """Where the two meet."""
    log_sizes = np.log(first.sizes), np.log(second.sizes)
    x, n = common(*log_sizes), first.losses.shape[1]
    if not len(x):
        return Crossing(None, None, None, None, None)

    def gap(chosen: slice | np.ndarray) -> np.ndarray:
        a, b = (
            np.interp(x, log, line.losses[:, chosen].mean(axis=1)) for log, line in zip(log_sizes, (first, second), strict=True)
        )
        return a - b

    gaps = [gap(chosen) for chosen in generator(seed, "resampled windows").integers(0, n, (resamples, n))]
    reached = float(np.mean([g.min() <= 0 for g in gaps]))
    met = [np.exp(at) for at in (zero(x, g) for g in gaps) if at is not None]
    at, ends = zero(x, gap(slice(None))), (float(np.exp(x[0])), float(np.exp(x[-1])))
    if at is None or not met:
        return Crossing(None, None, None, reached, ends)
    size, (low, high) = float(np.exp(at)), np.quantile(met, [0.025, 0.975]).tolist()
    return Crossing(size, min(low, size), max(high, size), reached, ends)


def common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The points of two lines between the ends of both, ascending; none where they do not overlap."""
    low, high = max(a.min(), b.min()), min(a.max(), b.max())
    return np.unique([x for x in (low, *a, *b, high) if low <= x <= high])


def zero(x: np.ndarray, y: np.ndarray) -> float | None:
    """Where a line through points first changes its sign; None where it does not."""
    turns = np.flatnonzero(y[:-1] * y[1:] <= 0)
    if not len(turns):
        return None
    i = int(turns[0])
    step = y[i] / (y[i] - y[i + 1]) if y[i] != y[i + 1] else 0.0
    return float(x[i] + (x[i + 1] - x[i]) * step)
