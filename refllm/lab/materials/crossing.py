"""Where two kinds of model, each with losses at several sizes, are equally good, with losses linear in ln size between sizes.

Intervals are percentiles over resamples. Each resamples the evaluation windows, the same for all models, and draws for every size
one of the models that differ in their seeds alone: so they show how the crossing of single models on other windows would vary.
"""

from typing import NamedTuple

import numpy as np

from refllm.array_api import generator

LOW, HIGH = 0.025, 0.975


class Line(NamedTuple):
    """One kind of model."""

    sizes: np.ndarray  # (m,) ascending
    losses: np.ndarray  # (m, S, W) of the models with S seeds on W windows


class Means(NamedTuple):
    """One kind's mean losses."""

    sizes: np.ndarray  # (m,)
    found: np.ndarray  # (m,) over all seeds and windows
    drawn: np.ndarray  # (R, m) of every resample


class Crossing(NamedTuple):
    """Where two lines meet between the smallest and the largest size that both have."""

    size: float | None  # the first; None where they do not meet
    low: float | None  # its 95 % interval; None for an end beyond these sizes
    high: float | None
    reached: float | None  # the share of resamples in which the first is as good as the second at some size; None without sizes
    range: tuple[float, float] | None  # the sizes that both have


def means(line: Line, resamples: int, seed: int) -> Means:
    """The mean losses of a kind. Windows and seeds are drawn alike for all lines with equal numbers of them."""
    m, S, W = line.losses.shape
    windows = generator(seed, "resampled windows").multinomial(W, np.full(W, 1 / W), size=resamples)
    models = generator(seed, "resampled models").integers(0, S, (resamples, m))
    every = line.losses @ windows.T / W  # (m, S, R)
    return Means(line.sizes, line.losses.mean(axis=(1, 2)), every[np.arange(m), models, np.arange(resamples)[:, None]])


def crossing(first: Means, second: Means) -> Crossing:
    """Where the two meet, with the interval from their resamples."""
    x = common(np.log(first.sizes), np.log(second.sizes))
    if not len(x):
        return Crossing(None, None, None, None, None)

    def line(kind: Means, losses: np.ndarray) -> np.ndarray:
        return np.interp(x, np.log(kind.sizes), losses)

    gaps = np.array([line(first, a) - line(second, b) for a, b in zip(first.drawn, second.drawn, strict=True)])
    at = where(x, line(first, first.found) - line(second, second.found), gaps)
    return Crossing(*at, float(np.mean(gaps.min(axis=1) <= 0)), (float(np.exp(x[0])), float(np.exp(x[-1]))))


def where(x: np.ndarray, gap: np.ndarray, drawn: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """The e^x at which a gap (n,) over x (n,) first changes its sign, and the 95 % interval from those of resamples (R, n).

    Three times None where it does not. A resample without a change of sign counts as beyond the range of x, on the side that its
    sign tells; an end of the interval that falls there is None.
    """
    at = zero(x, gap)
    if at is None:
        return None, None, None
    places = [zero(x, g) for g in drawn]
    beyond = np.where(drawn[:, 0] * gap[0] > 0, np.inf, -np.inf)
    found = [b if place is None else place for place, b in zip(places, beyond, strict=True)]
    low, high = np.quantile(found, (LOW, HIGH), method="inverted_cdf")
    ends = [float(np.exp(end)) if np.isfinite(end) else None for end in (min(low, at), max(high, at))]
    return float(np.exp(at)), ends[0], ends[1]


def common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The points of two lines between the ends of both, ascending; none where they do not overlap."""
    low, high = max(a.min(), b.min()), min(a.max(), b.max())
    return np.unique([x for x in (low, *a, *b, high) if low <= x <= high])


def zero(x: np.ndarray, y: np.ndarray) -> float | None:
    """Where the line through points x, y (n,) first changes its sign; None where it does not."""
    turns = np.flatnonzero(y[:-1] * y[1:] <= 0)
    if not len(turns):
        return None
    i = int(turns[0])
    step = y[i] / (y[i] - y[i + 1]) if y[i] != y[i + 1] else 0.0
    return float(x[i] + (x[i + 1] - x[i]) * step)
