"""What the NumPy kernels share: which inputs they serve, and blocks of rows that stay in the cache.

NumPy runs a chain of n elementwise functions as n passes over memory. Run block by block, with a block that fits a core's
second-level cache, only the first and last pass touch memory.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refllm.array_api import OPS

BLOCK = 1 << 16  # elements: 256 KiB of float32, so that the three or four arrays of a chain fit 1 MiB together


def served(*arrays: Any) -> bool:
    """Whether the kernels compute these: non-empty arrays, all float32 or all float64. Others go to the readable body."""
    dtype = arrays[0].dtype
    if dtype.char not in "fd":
        return False
    for a in arrays:  # noqa: SIM110 -- a generator would double the time of the smallest kernels
        if a.dtype != dtype or not a.size:
            return False
    return True


def reference(name: str, *args: Any) -> Any:
    """What the readable body of an op returns."""
    return OPS[name].reference(*args)  # type: ignore[attr-defined]  # every op carries its body


def blocks(rows: int, width: int) -> Sequence[slice]:
    """Slices over rows of `width` elements, about BLOCK elements each."""
    step = max(1, BLOCK // width)
    if rows <= step:
        return (slice(0, rows),)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def flat(x: Any) -> Any:
    """x: (..., D) -> (N, D), a view where the memory allows it."""
    return x.reshape(-1, x.shape[-1])


def ones(n: int, dtype: Any) -> Any:
    """n ones. A product with them is a sum that runs in BLAS, several times as fast as NumPy's own."""
    known = _ONES.get(dtype.char)
    if known is None or len(known) < n:
        known = np.ones(2 * n, dtype=dtype)
        known.flags.writeable = False
        _ONES[dtype.char] = known
    return known[:n]


_ONES: dict[str, Any] = {}  # the longest yet, by dtype
