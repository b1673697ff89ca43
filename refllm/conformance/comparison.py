"""One computation on two backends: inputs carried over, results compared as a share of their error bound."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refllm.array_api import Backend

from . import bounded


def to_half(a, dtype: str):
    """Round float32 to the nearest value that a half dtype holds, still stored as float32."""
    if dtype == "float16":
        return np.clip(a, -65504, 65504).astype(np.float16).astype(np.float32)
    bits = np.asarray(a, dtype=np.float32, order="C").view(np.uint32)
    nearest_even = bits + 0x7FFF + ((bits >> 16) & 1)
    return (nearest_even & np.uint32(0xFFFF0000)).view(np.float32)


def carried(value: Any, backend: Backend, dtype: str) -> Any:
    """value with every NumPy array in it made an array of the backend; floating ones in dtype.

    value: an array, or a dict, list, tuple or NamedTuple of such; anything else passes unchanged.
    """
    if isinstance(value, np.ndarray):
        xp = backend.xp
        if value.dtype.kind != "f":
            return xp.from_numpy(value)
        return xp.from_numpy(value if dtype == "float32" else to_half(value, dtype), dtype=getattr(xp, dtype))
    if isinstance(value, Mapping):
        return {key: carried(v, backend, dtype) for key, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(carried(v, backend, dtype) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(carried(v, backend, dtype) for v in value)
    return value


def share_of_bound(result: Any, oracle: bounded.Bounded, backend: Backend) -> float:
    """The worst |result − oracle| as a share of the oracle's bound: at most 1 when every element is right, ∞ for NaN.

    Raises AssertionError when shape or kind of dtype differ.
    """
    found = np.asarray(backend.xp.to_numpy(result))
    if tuple(found.shape) != tuple(oracle.shape):
        raise AssertionError(f"shape {tuple(found.shape)}, but the definition gives {tuple(oracle.shape)}")
    if found.size == 0:
        return 0.0
    if not isinstance(oracle.dtype, bounded.Float):
        return 0.0 if np.array_equal(found, oracle.value) else np.inf
    found, exact = found.astype(np.float64), oracle.value
    with np.errstate(invalid="ignore", over="ignore"):
        bound = oracle.error + oracle.dtype.smallest_normal
        within = np.abs(exact) + bound <= oracle.dtype.max  # beyond it the dtype overflows, and any large value may stand
        share = np.where(np.isinf(exact), np.where(found == exact, 0.0, np.inf), np.abs(found - exact) / bound)
        share = np.where(within | np.isinf(exact), share, np.where(np.abs(found) >= oracle.dtype.max / 2, 0.0, share))
    return float(np.max(np.where(np.isnan(share), np.inf, share)))
