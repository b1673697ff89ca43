"""How errors compound: the share of answers of n steps with no error, against what each step's reliability says.

    qₖ = share right at step k        EM(n) = share of items whose first n steps are all right
    p^n, p the mean of all qₖ         Πₖ qₖ, the product by position         E[p^n] where p differs from item to item

Steps fail independently if EM(n) = Πₖ qₖ; p^n holds besides only where all positions are equally hard. Greedy decoding of
n tokens is right if and only if no step errs given the right tokens before it: one pass over the right answers gives EM(n)
for every n.

With p distributed as Beta over items (Skellam 1948), in the form of Griffiths 1973 with mean μ and spread θ (0: none):

    P(c of n right) ~ Π_{j<c} (μ + jθ) · Π_{j<n−c} (1 − μ + jθ) / Π_{j<n} (1 + jθ)          E[p^n] = Π_{j<n} (μ + jθ) / (1 + jθ)
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator


class YieldCurve(NamedTuple):
    """Exact match at lengths 1 … m, measured and as three laws have it: (m,) each."""

    measured: np.ndarray
    power: np.ndarray  # p^n
    product: np.ndarray  # Πₖ qₖ
    spread: np.ndarray  # E[p^n], p drawn from the Beta law fitted to the items
    low: np.ndarray  # where 95 % of the curves lie if steps fail independently
    high: np.ndarray
    p_value: float  # of the measured curve's end under that
    power_error: np.ndarray  # standard error of measured − power
    product_error: np.ndarray  # … of measured − product


def exact_match(right: Any) -> np.ndarray:
    """The share of items (I, m) whose first n steps are right, for n = 1 … m: (m,)."""
    return np.logical_and.accumulate(right, axis=1).mean(axis=0)


def power(p: float, n: Any) -> Any:
    """p^n: steps that all are right with probability p."""
    return p**n


def reliability_needed(yield_: float, n: int) -> float:
    """The p of p^n = yield."""
    return yield_ ** (1 / n)


def length_at(yield_: float, p: float) -> float:
    """The n of p^n = yield; infinite for p = 1."""
    return math.log(yield_) / math.log(p) if 0 < p < 1 else math.inf if p == 1 else 0.0


def curve(right: Any, permutations: int = 500, seed: int = 0) -> YieldCurve:
    """The yield curve of items (I, m) bool.

    The band comes from shuffling each step's outcomes over the items, which keeps every qₖ and breaks what ties steps together.
    Raises ValueError for fewer than two items.
    """
    right = checked(right)
    measured, q = exact_match(right), right.mean(axis=0)
    n = np.arange(1, right.shape[1] + 1)
    shuffled = np.stack([exact_match(s) for s in shuffles(right, permutations, seed)])
    low, high = np.percentile(shuffled, (2.5, 97.5), axis=0)
    mean, theta = beta_binomial(right.sum(axis=1), right.shape[1])
    spread = np.cumprod((mean + theta * (n - 1)) / (1 + theta * (n - 1)))
    p_value = two_sided(measured[-1], shuffled[:, -1])
    return YieldCurve(measured, right.mean() ** n, np.cumprod(q), spread, low, high, p_value, *standard_errors(right))


def standard_errors(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How sure the measured curve's distances from p^n and from Πₖ qₖ are, for items (I, m) drawn independently: (m,) each.

    By the infinitesimal jackknife (Jaeckel 1972; Efron 1982): the spread, over items, of each item's influence on the distance,
    over √I. To first order an item moves Πₖ qₖ by Σₖ (rightₖ − qₖ) Π_{j≠k} qⱼ, and p^n by n p^{n−1} (its own p − p).
    """
    items, m = right.shape
    p, own = right.mean(), right.mean(axis=1)
    whole, moved, product = np.ones(items), np.zeros(items), 1.0
    powers, products = np.empty(m), np.empty(m)
    for k, q in enumerate(right.mean(axis=0)):
        whole = whole * right[:, k]
        moved, product = moved * q + product * (right[:, k] - q), product * q
        powers[k] = np.std(whole - (k + 1) * p**k * own)
        products[k] = np.std(whole - moved)
    return powers / math.sqrt(items), products / math.sqrt(items)


def largest(differences: Any, errors: Any) -> tuple[float, float, float]:
    """The largest of |differences| (n,) with standard errors (n,), and an interval that holds the largest true one with 95 %
    confidence: the largest of intervals that hold all n at once (Bonferroni; Dunn 1961, doi:10.1080/01621459.1961.10482090).

    The largest of many noisy differences is large by chance; this interval allows for it.
    """
    distance, reach = np.abs(differences), NormalDist().inv_cdf(1 - 0.025 / np.size(differences)) * np.asarray(errors)
    return float(distance.max()), max(0.0, float((distance - reach).max())), float((distance + reach).max())


def checked(right: Any) -> np.ndarray:
    """Outcomes (I, m) as booleans. Raises ValueError where they are not two items or more of one length."""
    right = np.asarray(right)
    if right.ndim != 2 or right.shape[0] < 2 or right.shape[1] < 1:
        raise ValueError(f"outcomes have shape {right.shape}; they need (items, steps), with two items at least.")
    return right.astype(bool)


def shuffles(right: np.ndarray, count: int, seed: int) -> Any:
    """`count` copies of outcomes (I, m) in which every step's are shuffled over the items."""
    rng = generator(seed, "shuffles")
    for _ in range(count):
        yield rng.permuted(right, axis=0)


def two_sided(value: float, null: np.ndarray) -> float:
    """The share of a null sample (R,) at least as far from its mean as a value, which counts as one of them."""
    far = np.abs(null - null.mean()) >= abs(value - null.mean()) - 1e-12
    return float((1 + far.sum()) / (1 + len(null)))


def beta_binomial(successes: Any, n: int) -> tuple[float, float]:
    """The likeliest mean μ and spread θ of numbers of successes (I,) out of n. ρ = θ / (1 + θ) correlates an item's steps."""
    values, counts = np.unique(np.asarray(successes), return_counts=True)
    share = float((values @ counts) / (counts.sum() * n))
    if share in (0.0, 1.0):
        return share, 0.0
    center, reach = np.array([math.log(share / (1 - share)), -4.0]), np.array([3.0, 8.0])
    for _ in range(8):  # a grid around the best so far, four times as fine each time
        logits, logs = (c + r * np.linspace(-1, 1, 17) for c, r in zip(center, reach, strict=True))
        mean, theta = np.meshgrid(1 / (1 + np.exp(-logits)), np.exp(logs), indexing="ij")
        likelihood = _log_likelihood(values, counts, n, mean[..., None], theta[..., None])
        i, j = np.unravel_index(likelihood.argmax(), likelihood.shape)
        center, reach = np.array([logits[i], logs[j]]), reach / 4
    mean, theta = 1 / (1 + math.exp(-center[0])), math.exp(center[1])
    none = _log_likelihood(values, counts, n, np.array([share]), np.array([0.0]))
    return (share, 0.0) if none >= likelihood.max() else (float(mean), float(theta))


def _log_likelihood(values, counts, n: int, mean, theta) -> Any:
    """Σ counts · ln P(values of n right), for mean and theta (…, 1)."""
    j = np.arange(n)
    zero = np.zeros((*np.broadcast_shapes(mean.shape, theta.shape)[:-1], 1))
    up = np.concatenate([zero, np.cumsum(np.log(mean + j * theta), axis=-1)], axis=-1)
    down = np.concatenate([zero, np.cumsum(np.log(1 - mean + j * theta), axis=-1)], axis=-1)
    total = np.log1p(j * theta).sum(axis=-1)
    return (counts * (up[..., values] + down[..., n - values] - total[..., None])).sum(axis=-1)
