"""Rotary positions (Su et al. 2021, arXiv:2104.09864, equation 34): pairs of features turn with the position.

frequency_i = theta^(−2i/K)          angle_i = position · frequency_i          i = 0 … K/2 − 1
(a, b) ↦ (a cos − b sin, a sin + b cos)   for every pair (a, b) of features

The product of a turned query with a turned key depends on the distance of their positions alone. `rope` pairs feature i
with i + K/2, as Hugging Face checkpoints want it; `rope_interleaved` pairs 2i with 2i + 1, as the paper and Meta's
checkpoints do. A model works with the one it was trained with, or with the other after permuting the rows of q and k.
"""

import math
from typing import NamedTuple

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen


class LinearScaling(NamedTuple):
    """Every frequency divided by one factor (Chen et al. 2023, arXiv:2306.15595)."""

    factor: float

    @property
    def kind(self) -> str:
        """Its name in configurations."""
        return "linear"


class Llama3Scaling(NamedTuple):
    """How Llama 3.1 slows its low frequencies to reach a longer context (Grattafiori et al. 2024, arXiv:2407.21783)."""

    factor: float  # low frequencies are divided by this
    low_freq_factor: float  # low: fewer turns than this in the original context
    high_freq_factor: float  # high, and kept: more turns than this in the original context
    original_max_position: int  # the original context, in positions

    @property
    def kind(self) -> str:
        """Its name in configurations."""
        return "llama3"


class YarnScaling(NamedTuple):
    """YaRN (Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4): low frequencies slowed, and all products stretched."""

    factor: float  # low frequencies are divided by this
    original_max_position: int  # the original context, in positions
    fast_turns: float = 32.0  # more turns than this in the original context: kept
    slow_turns: float = 1.0  # fewer: divided
    amplitude: float = 1.0  # by which cosines and sines are stretched: 0.1·ln(factor) + 1 in the paper
    whole: bool = True  # whether the blend begins and ends at whole indices of frequencies

    @property
    def kind(self) -> str:
        """Its name in configurations."""
        return "yarn"


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


def rope_frequencies(d_head: int, theta: float, scaling: RopeScaling | None = None) -> list[float]:
    """Return the K/2 frequencies of a head of width K = d_head, in radians per position, highest first."""
    frequencies = [theta ** (-2 * i / d_head) for i in range(d_head // 2)]
    if scaling is None:
        return frequencies
    if isinstance(scaling, LinearScaling):
        return [f / scaling.factor for f in frequencies]
    if isinstance(scaling, Llama3Scaling):
        kept = [_kept_by_llama3(f, scaling) for f in frequencies]
    else:
        kept = _kept_by_yarn(d_head, theta, scaling)
    return [k * f + (1 - k) * f / scaling.factor for k, f in zip(kept, frequencies, strict=True)]


def _kept_by_llama3(frequency: float, scaling: Llama3Scaling) -> float:
    """How much of a frequency is kept: none when low, all when high, and in between in proportion to its turns."""
    _, low, high, context = scaling
    turns = context * frequency / (2 * math.pi)
    return min(max((turns - low) / (high - low), 0.0), 1.0)


def _kept_by_yarn(d_head: int, theta: float, scaling: YarnScaling) -> list[float]:
    """How much of each frequency is kept: in between in proportion to its index."""

    def index(turns: float) -> float:
        """Where the frequency stands that turns so often in the original context."""
        return d_head * math.log(scaling.original_max_position / (2 * math.pi * turns)) / (2 * math.log(theta))

    first, last = index(scaling.fast_turns), index(scaling.slow_turns)
    if scaling.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, d_head - 1)
    length = last - first or 0.001
    return [1 - min(max((i - first) / length, 0.0), 1.0) for i in range(d_head // 2)]


def rope_amplitude(scaling: RopeScaling | None) -> float:
    """Return the number by which cosines and sines are stretched, 1 but for YaRN."""
    return scaling.amplitude if isinstance(scaling, YarnScaling) else 1.0


def rope_angles(positions, frequencies: list[float], dtype, amplitude: float = 1.0):
    """Return the cosines and sines by which positions turn.

    positions: (..., T) integers    frequencies: K/2 floats, radians per position    dtype: of the results
    amplitude: a factor of both
    Returns cos: (..., T, K/2) and sin: (..., T, K/2).
    """
    xp = namespace(positions)
    wide = xp.result_type(dtype, xp.float32)
    angles = xp.astype(positions, wide)[..., None] * xp.asarray(frequencies, dtype=wide)
    cos, sin = xp.cos(angles), xp.sin(angles)
    if amplitude != 1:
        cos, sin = cos * amplitude, sin * amplitude
    return xp.astype(cos, dtype), xp.astype(sin, dtype)


@op
def rope(x, cos, sin):
    """Turn the pairs (i, i + K/2) of every head's features by their position's angles.

    x: (B, H, T, K)    cos: (T, K/2)    sin: (T, K/2), or both (B, 1, T, K/2)
    Returns y: (B, H, T, K) and what the backward pass needs.
    """
    xp = namespace(x)
    half = x.shape[-1] // 2
    wide, c, s = widen(x), widen(cos), widen(sin)
    a, b = wide[..., :half], wide[..., half:]
    return narrow(xp.concat([a * c - b * s, a * s + b * c], axis=-1), x), (cos, sin)


@op
def rope_backward(dy, saved):
    """Return dx: (B, H, T, K), given dy: (B, H, T, K).

    The transpose of a rotation is the rotation back, by the opposite angle; a stretched one's is stretched alike.
    """
    cos, sin = saved
    dx, _ = rope(dy, cos, -sin)
    return dx


@op
def rope_interleaved(x, cos, sin):
    """Turn the pairs (2i, 2i + 1) of every head's features by their position's angles.

    x: (B, H, T, K)    cos: (T, K/2)    sin: (T, K/2), or both (B, 1, T, K/2)
    Returns y: (B, H, T, K) and what the backward pass needs.
    """
    xp = namespace(x)
    pairs = xp.reshape(widen(x), (*x.shape[:-1], x.shape[-1] // 2, 2))  # (B, H, T, K/2, 2)
    a, b, c, s = pairs[..., 0], pairs[..., 1], widen(cos), widen(sin)
    y = xp.stack([a * c - b * s, a * s + b * c], axis=-1)
    return narrow(xp.reshape(y, x.shape), x), (cos, sin)


@op
def rope_interleaved_backward(dy, saved):
    """Return dx: (B, H, T, K), given dy: (B, H, T, K): the rotation back."""
    cos, sin = saved
    dx, _ = rope_interleaved(dy, cos, -sin)
    return dx
