"""Choosing the next token: greedy, or a draw tempered and cut to the likeliest (Fan 2018, arXiv:1805.04833, top-k;
Holtzman 2019, arXiv:1904.09751, top-p).

    p = softmax(logits / temperature)          token = the first i with p₀ + … + pᵢ > u,   u uniform in [0, 1)

Every function works on the device and never waits for it: a token that is chosen can be fed to the next step unread.
Tokens that a cut drops get the logit −∞, so cuts compose, and a token of probability zero is never drawn.
"""

from dataclasses import dataclass

import numpy as np

from refllm.array_api import generator, namespace


@dataclass(frozen=True)
class Sampler:
    """How tokens are chosen: tempered first, then cut to the top_k likeliest, then to the top_p of what is left."""

    temperature: float = 1.0  # 0: always the most likely token
    top_k: int | None = None  # keep so many tokens
    top_p: float | None = None  # keep the fewest tokens whose probabilities reach it

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} cannot be; it is 0 (the most likely token) or a positive number.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} would keep no token; it must be at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is not a probability to reach; it must be above 0 and at most 1.")


def sample(logits, uniforms, sampler: Sampler):
    """Choose one token per row.

    logits: (B, V)    uniforms: (B,) in [0, 1), which decide the draw
    Returns (B,) int32; −1 where a row's logits hold NaN or +∞, which a caller sees when it reads the token.
    """
    xp = namespace(logits)
    sound = xp.isfinite(xp.max(logits, axis=-1))
    if sampler.temperature == 0:
        token = greedy(logits)
    else:
        logits = temperature(logits, sampler.temperature)
        logits = logits if sampler.top_k is None else top_k(logits, sampler.top_k)
        logits = logits if sampler.top_p is None else top_p(logits, sampler.top_p)
        token = draw(logits, uniforms)
    return xp.where(sound, token, xp.full_like(token, -1))


def greedy(logits):
    """The most likely token, the lowest id among equals. logits: (..., V) -> (...) int32"""
    xp = namespace(logits)
    return xp.astype(xp.argmax(logits, axis=-1), xp.int32)


def temperature(logits, temperature: float):
    """Divide logits (..., V) by a positive temperature: below 1 sharpens, above 1 flattens.

    The largest logit is taken to 0 first, which changes no probability and lets a temperature near 0 overflow to −∞ only.
    """
    xp = namespace(logits)
    return (logits - xp.max(logits, axis=-1, keepdims=True)) / temperature


def top_k(logits, k: int):
    """Keep the k largest of (..., V), the lower ids among equals; the others become −∞."""
    _, rank = _order(logits)
    return _keep(logits, rank < k)


def top_p(logits, p: float):
    """Keep the fewest of (..., V), likeliest first, whose probabilities sum to p or more; the others become −∞.

    The token whose probability crosses p is kept; p = 1 keeps all.
    """
    if p >= 1:
        return logits
    xp = namespace(logits)
    order, rank = _order(logits)
    so_far = xp.cumulative_sum(xp.take_along_axis(_probabilities(logits), order, axis=-1), axis=-1)
    reached = xp.take_along_axis(so_far, xp.maximum(rank - 1, xp.zeros_like(rank)), axis=-1)  # by the likelier tokens
    return _keep(logits, (rank == 0) | (reached < p))


def draw(logits, uniforms):
    """Draw from softmax(logits) by the inverse of its distribution function, in order of ids.

    logits: (..., V)    uniforms: (...) in [0, 1)    Returns (...) int32
    """
    xp = namespace(logits)
    weights = _weights(logits)
    reached = xp.cumulative_sum(weights, axis=-1)
    reached = xp.where(weights > 0, reached, xp.zeros_like(reached))  # so that none of weight zero is ever the first
    total = xp.max(reached, axis=-1, keepdims=True)
    threshold = xp.expand_dims(xp.astype(uniforms, total.dtype), axis=-1) * total
    passed = (reached > threshold) | (reached >= total)  # a uniform that rounds to 1 draws the last
    return xp.astype(xp.argmax(xp.astype(passed, xp.int32), axis=-1), xp.int32)


def uniforms(seed: int, step: int, B: int) -> np.ndarray:
    """The (B,) float32 numbers in [0, 1) that decide one step's draws; a row's number is the same in any batch."""
    return generator(seed, "sample", step).random(B, dtype=np.float32)


def _weights(logits):
    """exp(logits − largest): (..., V), in float32 at least, since long sums follow."""
    xp = namespace(logits)
    wide = xp.astype(logits, xp.result_type(logits.dtype, xp.float32))
    return xp.exp(wide - xp.max(wide, axis=-1, keepdims=True))


def _probabilities(logits):
    """softmax(logits): (..., V), in float32 at least."""
    weights = _weights(logits)
    return weights / namespace(weights).sum(weights, axis=-1, keepdims=True)


def _order(logits):
    """The ids from the likeliest down, the lower first among equals, and every id's rank in that order: both (..., V)."""
    xp = namespace(logits)
    order = xp.argsort(logits, axis=-1, descending=True, stable=True)
    return order, xp.argsort(order, axis=-1)  # the order that sorts an order is its inverse


def _keep(logits, kept):
    xp = namespace(logits)
    return xp.where(kept, logits, xp.full_like(logits, -xp.inf))
