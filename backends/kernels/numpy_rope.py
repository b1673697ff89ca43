"""Rotary positions for NumPy: one pass with the cosines over whole heads, one with the signed sines over their swapped halves.

[a, b] ↦ [a, b] · [c, c] + [b, a] · [−s, s]. The result lies in memory as x does, so that merging the heads copies nothing.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import reference, served


class Turned(NamedTuple):
    cos: Any
    sin: Any


class Factors(NamedTuple):
    """What whole heads are multiplied by."""

    cos: Any  # the cosines that the others belong to
    sin: Any
    twice: Any  # (…, T, K): the cosines of both halves
    signed: Any  # (…, T, 2, K/2): the sines of the swapped halves, −sin and sin
    heads: dict[int, Any]  # the same laid out for one position's heads, by their number


_last: Factors | None = None  # those of the last call: the queries and keys of every layer turn alike


def factors(cos, sin) -> Factors:
    """The factors of angles with these cosines and sines, (…, T, K/2)."""
    global _last
    last = _last
    if last is None or last.cos is not cos or last.sin is not sin:
        signed = np.concatenate([-sin, sin], axis=-1).reshape(*sin.shape[:-1], 2, sin.shape[-1])
        last = Factors(cos, sin, np.concatenate([cos, cos], axis=-1), signed, {})
        _last = last
    return last


def of_heads(found: Factors, H: int):
    """The same for one position's H heads in a row: the cosines (H·K,), the signed sines, and where each number's partner is."""
    if H not in found.heads:
        K = found.twice.shape[-1]
        rows = np.empty((2, H, K), dtype=found.twice.dtype)
        rows[0], rows[1] = found.twice.reshape(-1), found.signed.reshape(-1)
        found.heads[H] = *rows.reshape(2, -1), partners(H, K)
    return found.heads[H]


@lru_cache(maxsize=16)
def partners(H: int, K: int):
    """Where the other number of each pair is, in a row of H heads: (H·K,)."""
    return np.arange(H * K).reshape(H, 2, K // 2)[:, ::-1].reshape(-1)


def turn(x, cos, sin):
    """x: (B, H, T, K) turned by angles with these cosines and sines, (T, K/2) or (B, 1, T, K/2)."""
    found = factors(cos, sin)
    if x.shape[0] == x.shape[2] == 1:  # decoding's step: whole rows of one axis, on which NumPy's functions begin at once
        twice, signed, others = of_heads(found, x.shape[1])
        row = x.reshape(-1)
        y = row.take(others)
        y *= signed
        y += row * twice
        return y.reshape(x.shape)
    _, _, twice, signed, _ = found
    y = np.empty_like(x)  # in x's own order of axes
    np.multiply(x, twice, out=y)
    swapped = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)[..., ::-1, :] * signed
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
