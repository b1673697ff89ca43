"""Rotary positions for NumPy: one pass with the cosines over whole heads, one with the signed sines over their swapped halves.

[a, b] ↦ [a, b] · [c, c] + [b, a] · [−s, s]. The result lies in memory as x does, so that merging the heads copies nothing.
"""

from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import reference, served


class Turned(NamedTuple):
    cos: Any
    sin: Any


def turn(x, cos, sin):
    """x: (B, H, T, K) turned by angles with these cosines and sines, (T, K/2) or (B, 1, T, K/2)."""
    halves = (*x.shape[:-1], 2, x.shape[-1] // 2)
    y = np.empty_like(x)  # in x's own order of axes
    np.multiply(x, np.concatenate([cos, cos], axis=-1), out=y)
    swapped = x.reshape(halves)[..., ::-1, :] * np.concatenate([-sin, sin], axis=-1).reshape(*sin.shape[:-1], *halves[-2:])
    y += swapped.reshape(x.shape)
    return y


def rope(x, cos, sin):
    if not served(x, cos, sin):
        return reference("rope", x, cos, sin)
    return turn(x, cos, sin), Turned(cos, sin)


def rope_backward(dy, saved):
    if not isinstance(saved, Turned):
        return reference("rope_backward", dy, saved)
    return turn(dy, saved.cos, -saved.sin)


KERNELS = {"rope": rope, "rope_backward": rope_backward}
