"""Temperature, and the cuts that keep only some tokens: top-k (Fan 2018, arXiv:1805.04833), top-p (Holtzman 2019,
arXiv:1904.09751), min-p (Nguyen 2024, arXiv:2407.01082), locally typical (Meister 2022, arXiv:2202.00666), epsilon and
eta (Hewitt 2022, arXiv:2210.15191).

A token that is cut gets the logit −∞, so cuts compose. None cuts every token: at least the likeliest stays.
Sums run in float32 at least.
"""

import math

from refllm.array_api import namespace


def temperature(logits, temperature: float):
    """Divide logits (..., V) by a positive temperature: below 1 sharpens, above 1 flattens.

    The largest logit is taken to 0 first, which changes no probability and lets a temperature near 0 overflow to −∞ only.
    """
    xp = namespace(logits)
    return (logits - xp.max(logits, axis=-1, keepdims=True)) / temperature


def top_k(logits, k: int):
    """Keep the k largest of (..., V), the lower ids among equals."""
    xp = namespace(logits)
    if k >= logits.shape[-1]:
        return logits
    falling = xp.sort(logits, axis=-1, descending=True, stable=False)
    return keep(logits, _at_least(logits, falling[..., k - 1 : k], k))


def top_p(logits, p: float):
    """Keep the fewest of (..., V), likeliest first and the lower ids among equals, whose probabilities sum to p or more.

    The token whose probability crosses p is kept; p = 1 keeps all.
    """
    if p >= 1:
        return logits
    xp = namespace(logits)
    falling = xp.sort(logits, axis=-1, descending=True, stable=False)
    n = _fewest(weights(falling), p)
    return keep(logits, _at_least(logits, xp.take_along_axis(falling, n - 1, axis=-1), n))


def min_p(logits, p: float):
    """Keep those of (..., V) whose probability is at least p times the largest."""
    xp = namespace(logits)
    wide = widened(logits)
    largest = xp.max(wide, axis=-1, keepdims=True)
    return logits if p <= 0 else keep(logits, wide - largest >= math.log(p))


def typical(logits, p: float):
    """Keep the fewest of (..., V) whose probabilities sum to p or more, those first whose surprise is nearest to the entropy.

    Among equally near ones the lower ids come first; p = 1 keeps all.
    """
    if p >= 1:
        return logits
    xp = namespace(logits)
    surprise = surprises(logits)
    nearness = -xp.abs(surprise - entropy(logits))
    order = xp.argsort(nearness, axis=-1, descending=True, stable=True)
    n = _fewest(xp.take_along_axis(weights(logits), order, axis=-1), p)
    edge = xp.take_along_axis(nearness, xp.take_along_axis(order, n - 1, axis=-1), axis=-1)
    return keep(logits, _at_least(nearness, edge, n))


def epsilon_cut(logits, epsilon: float):
    """Keep those of (..., V) whose probability is at least epsilon, and the likeliest."""
    xp = namespace(logits)
    likeliest = logits >= xp.max(logits, axis=-1, keepdims=True)
    return keep(logits, (probabilities(logits) >= epsilon) | likeliest)


def eta_cut(logits, epsilon: float):
    """Keep those of (..., V) whose probability is at least η = min(ε, √ε · e⁻ᴴ), H the entropy in nats, and the likeliest."""
    xp = namespace(logits)
    eta = math.sqrt(epsilon) * xp.exp(-entropy(logits))
    likeliest = logits >= xp.max(logits, axis=-1, keepdims=True)
    return keep(logits, (probabilities(logits) >= xp.minimum(eta, xp.full_like(eta, epsilon))) | likeliest)


def widened(logits):
    """The logits in float32 at least."""
    xp = namespace(logits)
    return xp.astype(logits, xp.result_type(logits.dtype, xp.float32), copy=False)


def weights(logits):
    """exp(logits − largest): (..., V), in float32 at least, since long sums follow."""
    xp = namespace(logits)
    wide = widened(logits)
    return xp.exp(wide - xp.max(wide, axis=-1, keepdims=True))


def probabilities(logits):
    """softmax(logits): (..., V), in float32 at least."""
    w = weights(logits)
    return w / namespace(w).sum(w, axis=-1, keepdims=True)


def surprises(logits):
    """−log softmax(logits): (..., V), in nats and in float32 at least; ∞ where a token cannot come."""
    xp = namespace(logits)
    wide = widened(logits)
    below = xp.max(wide, axis=-1, keepdims=True) - wide
    return below + xp.log(xp.sum(xp.exp(-below), axis=-1, keepdims=True))


def entropy(logits):
    """The expected surprise: (..., 1), in nats and in float32 at least; a token that cannot come adds nothing."""
    xp = namespace(logits)
    q, surprise = probabilities(logits), surprises(logits)
    return xp.sum(q * xp.where(q > 0, surprise, xp.zeros_like(q)), axis=-1, keepdims=True)


def keep(logits, kept):
    """The logits (..., V) where kept is true, else −∞."""
    xp = namespace(logits)
    return xp.where(kept, logits, xp.full_like(logits, -xp.inf))


def _fewest(weights, p: float):
    """How many of (..., V), from the first on, sum to the share p of all: (..., 1) int32, from 1 to V."""
    xp = namespace(weights)
    so_far = xp.cumulative_sum(weights, axis=-1)
    short = xp.sum(xp.astype(so_far < p * so_far[..., -1:], xp.int32), axis=-1, keepdims=True, dtype=xp.int32)
    return xp.minimum(short + 1, xp.full_like(short, weights.shape[-1]))


def _at_least(values, edge, n):
    """Which of values (..., V) are the n largest, the lower ids among equals, given the n-th largest: edge (..., 1)."""
    xp = namespace(values)
    above, equal = values > edge, values == edge
    room = n - xp.sum(xp.astype(above, xp.int32), axis=-1, keepdims=True, dtype=xp.int32)
    return above | (equal & (xp.cumulative_sum(xp.astype(equal, xp.int32), axis=-1, dtype=xp.int32) <= room))
