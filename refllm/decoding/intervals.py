"""What a sampler's cuts may leave when logits are not known exactly: every cut of `cuts`, on intervals.

A cut leaves a token that it may drop an interval that begins at −∞, and one that it surely drops −∞ itself; so cuts compose
as they do on numbers. The share of some tokens among all is largest with them at the upper ends of their intervals and all
others at the lower ends. Every bound here follows from that.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding.sampler import Sampler


class Interval(NamedTuple):
    """Where numbers may lie. Logits of tokens that may be cut begin at −∞."""

    low: np.ndarray  # (V,) float64
    high: np.ndarray  # (V,) float64


class Weights(NamedTuple):
    """exp(logit), in units of the largest that there can be, at least and at most; both (V,)."""

    least: np.ndarray
    most: np.ndarray


def after_cuts(logits: Interval, sampler: Sampler, mu: float | None, slack: float) -> Interval:
    """Tempered logits behind every cut of the sampler, in its order.

    mu: of mirostat, bits, or None    slack: by how much a computed sum of probabilities, or a surprise in nats, may be off
    """
    if mu is not None:
        return surprising(logits, mu * math.log(2), slack)
    if sampler.top_k is not None:
        logits = top_k(logits, sampler.top_k)
    if sampler.top_p is not None and sampler.top_p < 1:
        logits = first_of(logits, likeliest_first(logits), sampler.top_p, slack)
    if sampler.min_p is not None and sampler.min_p > 0:
        logits = min_p(logits, sampler.min_p, slack)
    if sampler.typical_p is not None and sampler.typical_p < 1:
        logits = first_of(logits, typical_first(logits, slack), sampler.typical_p, slack)
    if sampler.epsilon is not None:
        logits = surprising(logits, -math.log(sampler.epsilon), slack)
    return logits if sampler.eta is None else eta_cut(logits, sampler.eta, slack)


def weights(logits: Interval) -> Weights:
    """What the softmax divides by its sum."""
    largest = np.max(logits.high)
    return Weights(np.exp(logits.low - largest), np.exp(logits.high - largest))


def surprises(logits: Interval) -> Interval:
    """−log of the probabilities, nats."""
    w = weights(logits)
    least = w.least / (w.least + (np.sum(w.most) - w.most))
    most = w.most / (w.most + (np.sum(w.least) - w.least))
    return Interval(-np.log(np.minimum(most, 1.0)), -np.log(least))


def entropy(surprise: Interval) -> tuple[float, float]:
    """The least and the largest that the expected surprise may be, nats."""
    p, q = np.exp(-surprise.high), np.exp(-surprise.low)  # −p log p rises up to p = 1/e and falls behind
    ends = [np.where(x > 0, -x * np.log(x), 0.0) for x in (p, q)]
    top = np.where((p < 1 / math.e) & (q > 1 / math.e), 1 / math.e, np.maximum(*ends))
    return float(np.sum(np.minimum(*ends))), float(np.sum(top))


def kept(logits: Interval, surely, possibly) -> Interval:
    """Behind a cut, given which tokens it surely keeps and which it may keep, both (V,) bool."""
    return Interval(np.where(surely, logits.low, -np.inf), np.where(possibly, logits.high, -np.inf))


def likeliest(logits: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens are surely the likeliest, and which may be: (V,) bool each."""
    second, first = np.partition(np.append(logits.high, -np.inf), -2)[-2:]
    others = np.where(logits.high == first, second, first)  # the largest upper end but a token's own
    return logits.low >= others, logits.high >= np.max(logits.low)


def top_k(logits: Interval, k: int) -> Interval:
    """The k largest."""
    low, high = np.sort(logits.low), np.sort(logits.high)
    may_precede = len(low) - np.searchsorted(high, logits.low, side="left") - 1  # all that may be as large, but itself
    must_precede = len(low) - np.searchsorted(low, logits.high, side="right")
    return kept(logits, may_precede < k, must_precede < k)


def min_p(logits: Interval, p: float, slack: float) -> Interval:
    """Those at least p times as likely as the likeliest."""
    surely, possibly = likeliest(logits)
    edge = math.log(p)
    surely = surely | (logits.low - slack >= np.max(logits.high) + edge)
    return kept(logits, surely, possibly | (logits.high + slack >= np.max(logits.low) + edge))


def surprising(logits: Interval, most: float, slack: float) -> Interval:
    """Those that surprise by at most so many nats, and the likeliest."""
    (surely, possibly), s = likeliest(logits), surprises(logits)
    return kept(logits, surely | (s.high + slack <= most), possibly | (s.low - slack <= most))


def eta_cut(logits: Interval, epsilon: float, slack: float) -> Interval:
    """Those at least as likely as min(ε, √ε · e⁻ᴴ), and the likeliest."""
    (surely, possibly), s = likeliest(logits), surprises(logits)
    least, most = (max(-math.log(epsilon), -math.log(epsilon) / 2 + H) for H in entropy(s))
    return kept(logits, surely | (s.high + 2 * slack <= least), possibly | (s.low - 2 * slack <= most))


def likeliest_first(logits: Interval) -> Interval:
    """Where tokens may stand in the order of their logits, the largest first."""
    return Interval(-logits.high, -logits.low)


def typical_first(logits: Interval, slack: float) -> Interval:
    """Where tokens may stand in the order of how far their surprise lies from the expected one."""
    s = surprises(logits)
    least, most = entropy(s)
    low, high = s.low - most - 2 * slack, s.high - least + 2 * slack  # the surprise beyond the entropy
    return Interval(np.maximum(low, -high), np.maximum(high, -low))  # its absolute value; where 0 lies within, below 0 is as low


def first_of(logits: Interval, place: Interval, p: float, slack: float) -> Interval:
    """The fewest tokens, in the order of their places, whose probabilities sum to p or more."""
    w = weights(logits)
    by_low, by_high = np.argsort(place.low, kind="stable"), np.argsort(place.high, kind="stable")
    n_may = np.searchsorted(place.low[by_low], place.high, side="right")  # may stand before a token, which is itself among them
    n_must = np.searchsorted(place.high[by_high], place.low, side="left")
    may, others = sums(w.most, by_low)[n_may] - w.most, np.sum(w.least) - sums(w.least, by_low)[n_may] + w.least
    must, behind = sums(w.least, by_high)[n_must], np.sum(w.most) - sums(w.most, by_high)[n_must]
    surely = (n_may == 1) | (may / (may + others) + slack < p)
    return kept(logits, surely, (n_must == 0) | (must / (must + behind) - slack < p))


def sums(numbers: np.ndarray, order: np.ndarray) -> Any:
    """The sums of the first 0, 1, …, V numbers in an order: (V + 1,)."""
    return np.concatenate([[0.0], np.cumsum(numbers[order])])
