"""MLX: Apple silicon, and its CPU and CUDA builds on Linux.

A namespace over MLX's own arrays, in the standard's names; expected to shrink as MLX adopts the standard.
Its float64 runs on the CPU only and computes exp, sin and cos to float32, so float32 is the widest dtype here.
"""

import os

# Read once, when MLX is imported: by default MLX multiplies float32 matrices with 10-bit mantissas where it can.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

from types import SimpleNamespace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from refllm.array_api import Backend, portable
from refllm.array_api.contract import STANDARD
from refllm.backends.kernels.mlx_kernels import KERNELS

DTYPES = frozenset(("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64", "float16", "bfloat16", "float32"))
HALVES = (mx.float16, mx.bfloat16)


class FloatInfo(NamedTuple):
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: mx.Dtype


class IntegerInfo(NamedTuple):
    bits: int
    max: int
    min: int
    dtype: mx.Dtype


def finfo(kind):
    dtype = kind.dtype if isinstance(kind, mx.array) else kind
    info = mx.finfo(dtype)
    return FloatInfo(8 * dtype.size, float(info.eps), float(info.max), float(info.min), float(info.smallest_normal), dtype)


def iinfo(kind):
    dtype = kind.dtype if isinstance(kind, mx.array) else kind
    info = mx.iinfo(dtype)
    return IntegerInfo(8 * dtype.size, int(info.max), int(info.min), dtype)


def full(shape, fill_value, *, dtype=None):
    return mx.full(shape, fill_value, dtype=dtype)


def full_like(x, /, fill_value, *, dtype=None):
    return mx.full(x.shape, fill_value, dtype=x.dtype if dtype is None else dtype)


def astype(x, dtype, /, *, copy=True):
    return x.astype(dtype)  # arrays are values, so a copy and x itself are the same


def clip(x, /, min=None, max=None):
    return x if min is None and max is None else mx.clip(x, min, max)


def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    return mx.sum(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims)


def mean(x, /, *, axis=None, keepdims=False):
    if x.dtype in HALVES:  # MLX divides a half sum, which may have overflowed
        return mx.mean(x.astype(mx.float32), axis=axis, keepdims=keepdims).astype(x.dtype)
    return mx.mean(x, axis=axis, keepdims=keepdims)


def argmax(x, /, *, axis=None, keepdims=False):
    return mx.argmax(x, axis=axis, keepdims=keepdims).astype(mx.int32)


def count_nonzero(x, /, *, axis=None, keepdims=False):
    return mx.sum(x != 0, axis=axis, keepdims=keepdims)


def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    result = dtype or (mx.int32 if x.dtype == mx.bool_ else x.dtype)
    axis = 0 if axis is None else axis
    total = mx.cumsum(x.astype(mx.float32 if result in HALVES else result), axis=axis).astype(result)
    if include_initial:
        total = mx.concatenate([mx.zeros_like(mx.take(total, mx.array([0]), axis=axis)), total], axis=axis)
    return total


def sort(x, /, *, axis=-1, descending=False, stable=True):
    y = mx.sort(x, axis=axis)
    return mx.flip(y, axis=axis) if descending else y


def argsort(x, /, *, axis=-1, descending=False, stable=True):
    if not descending:
        return mx.argsort(x, axis=axis).astype(mx.int32)
    # a stable ascending order of the reversed array, read backwards, is the stable descending order
    backwards = mx.flip(mx.argsort(mx.flip(x, axis=axis), axis=axis), axis=axis)
    return x.shape[axis] - 1 - backwards.astype(mx.int32)


def searchsorted(x1, x2, /, *, side="left"):
    return mx.searchsorted(x1, x2, side=side).astype(mx.int32)


def concat(arrays, /, *, axis=0):
    return mx.concatenate(list(arrays), axis=axis)


def stack(arrays, /, *, axis=0):
    return mx.stack(list(arrays), axis=axis)


def roll(x, /, shift, *, axis=None):
    return mx.roll(x, shift, axis)


def from_numpy(a, dtype=None):
    """float64, which this backend lacks, becomes float32 unless dtype names another."""
    a = np.asarray(a)
    if min(a.strides, default=0) < 0:  # which MLX refuses
        a = a.copy()
    return mx.array(a.astype(np.float32) if a.dtype == np.float64 else a, dtype=dtype)


def to_numpy(x):
    return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x, copy=True)


def scatter_add(y, indices, rows):
    wide = mx.float32 if y.dtype in HALVES else y.dtype
    return y.astype(wide).at[indices].add(rows.astype(wide)).astype(y.dtype)


def segment_min(values, starts):
    begins = mx.zeros(values.shape, dtype=mx.int32).at[starts].add(1)
    segments = mx.cumsum(begins)  # from 1; 0 for values before the first start
    top = finfo(values).max if mx.issubdtype(values.dtype, mx.floating) else iinfo(values).max
    least = mx.full((starts.shape[0] + 1,), float("inf") if isinstance(top, float) else top, dtype=values.dtype)
    return least.at[segments].minimum(values)[1:]


def memory():
    return mx.get_active_memory(), mx.get_peak_memory()


ON_GPU = mx.default_device().type == mx.gpu


def device() -> str:
    """The kind, cpu or gpu, and for a gpu the name that MLX knows it by."""
    return f"gpu ({mx.device_info().get('device_name', 'unnamed')})" if ON_GPU else "cpu"


ADAPTED = (
    *(finfo, iinfo, full, full_like, astype, clip, sum, mean, argmax, count_nonzero, cumulative_sum, sort, argsort),
    *(searchsorted, concat, stack, roll),
)

backend = Backend(
    name="mlx",
    standard=SimpleNamespace(
        **{name: getattr(mx, name) for name in (*STANDARD, "float16", "bfloat16") if hasattr(mx, name)}
        | {f.__name__: f for f in ADAPTED}
        | {"bool": mx.bool_}
    ),
    primitives={
        "from_numpy": from_numpy,
        "to_numpy": to_numpy,
        "scatter_add": scatter_add,
        "write": portable.write,
        "segment_min": segment_min,
        "compress": portable.compress,
        "cumulative_max": mx.cummax,
        "erf": mx.erf,
        "rsqrt": mx.rsqrt,
        "evaluate": mx.eval,
        "async_evaluate": mx.async_eval,
        "synchronize": mx.synchronize,
        "memory": memory,
        "all_sum": mx.distributed.all_sum,
        "dtypes": lambda: DTYPES,
    },
    kernels=KERNELS if ON_GPU else {},
    array_type=mx.array,
    version=mx.__version__,
    device=device(),
    asynchronous=True,
)
