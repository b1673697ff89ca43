"""CuPy: NVIDIA GPUs.

Nothing here waits for the device but to_numpy, synchronize and compress, whose length the host must know.
float32 products keep all their bits (CUPY_TF32=0, CuPy's default). bfloat16 is left out: CuPy 14 calls it experimental.
"""

from types import SimpleNamespace

import cupy
import numpy as np
from cupyx import rsqrt
from cupyx.scipy.special import erf

from refllm.array_api import Backend, portable
from refllm.array_api.contract import STANDARD
from refllm.backends.kernels.cupy_kernels import KERNELS, add_rows

DTYPES = frozenset(("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64"))


def clip(x, /, min=None, max=None):
    return x if min is None and max is None else cupy.clip(x, min, max)


def matmul(x1, x2, /):
    return x1 @ x2  # sooner there than cupy.matmul


def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    if dtype is None and x.dtype == cupy.float16:
        return cupy.sum(x, axis=axis, dtype=cupy.float32, keepdims=keepdims).astype(cupy.float16)
    return cupy.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)


def mean(x, /, *, axis=None, keepdims=False):
    if x.dtype == cupy.float16:
        return cupy.mean(x, axis=axis, dtype=cupy.float32, keepdims=keepdims).astype(cupy.float16)
    return cupy.mean(x, axis=axis, keepdims=keepdims)


def count_nonzero(x, /, *, axis=None, keepdims=False):
    return cupy.sum(x != 0, axis=axis, keepdims=keepdims)


def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    result = x.dtype if dtype is None and x.dtype.kind == "f" else dtype
    wide = cupy.float32 if result == cupy.float16 else result
    total = cupy.cumulative_sum(x, axis=axis, dtype=wide, include_initial=include_initial)
    return total if result is None else total.astype(result, copy=False)


def sort(x, /, *, axis=-1, descending=False, stable=True):
    y = cupy.sort(x, axis=axis)
    return cupy.flip(y, axis=axis) if descending else y


def argsort(x, /, *, axis=-1, descending=False, stable=True):
    if not descending:
        return cupy.argsort(x, axis=axis)  # stable in CuPy
    # a stable ascending order of the reversed array, read backwards, is the stable descending order
    return x.shape[axis] - 1 - cupy.flip(cupy.argsort(cupy.flip(x, axis=axis), axis=axis), axis=axis)


def from_numpy(a, dtype=None):
    return cupy.array(a, dtype=dtype)


def scatter_add(y, indices, rows):
    """Sums run in the order of the indices, not by atomics, so that training is the same bit for bit."""
    if y.dtype.kind == "f":
        wide = np.promote_types(y.dtype, np.float32)
        return add_rows(cupy.array(y, dtype=wide, order="C"), indices, rows.astype(wide, copy=False)).astype(y.dtype, copy=False)
    total = cupy.array(y)
    # The atomics know unsigned 64-bit integers only, whose sums have the same bits.
    same_bits = cupy.uint64 if y.dtype == cupy.int64 else y.dtype
    total.view(same_bits).scatter_add(indices, rows.astype(y.dtype, copy=False).view(same_bits))
    return total


def memory():
    """Bytes of the pool in use, and bytes it has taken from the device, which it keeps: its peak or more."""
    pool = cupy.get_default_memory_pool()
    return pool.used_bytes(), pool.total_bytes()


def device() -> tuple[str, str]:
    """The device in words, and why there is none."""
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            return f"gpu ({cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()})", ""
        why = "the driver knows of none"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        why = str(error)
    cuda = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return "", f"the cupy backend finds no CUDA device ({why}); it needs an NVIDIA GPU and a driver for CUDA {cuda} or later."


DEVICE, UNAVAILABLE = device()

backend = Backend(
    name="cupy",
    standard=SimpleNamespace(
        **{name: getattr(cupy, name) for name in (*STANDARD, "float16", "float64")}
        | {f.__name__: f for f in (clip, matmul, sum, mean, count_nonzero, cumulative_sum, sort, argsort)}
    ),
    primitives={
        "from_numpy": from_numpy,
        "to_numpy": cupy.asnumpy,
        "scatter_add": scatter_add,
        "write": portable.write,
        "segment_min": portable.segment_min,
        "compress": lambda x, keep: x[keep],
        "cumulative_max": portable.cumulative_max,
        "erf": erf,
        "rsqrt": rsqrt,
        "evaluate": portable.nothing,
        "async_evaluate": portable.nothing,
        "synchronize": lambda: cupy.cuda.Device().synchronize(),
        "memory": memory,
        "all_sum": portable.all_sum,
        "dtypes": lambda: DTYPES,
    },
    kernels=KERNELS,
    array_type=cupy.ndarray,
    version=cupy.__version__,
    device=DEVICE,
    asynchronous=True,
    unavailable=UNAVAILABLE,
)
