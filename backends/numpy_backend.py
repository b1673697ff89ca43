"""NumPy, the reference backend: its primitives are the definitions."""

import math
import sys
from types import SimpleNamespace

import numpy as np

from refllm.array_api import Backend
from refllm.array_api.contract import OPTIONAL_DTYPES, STANDARD

from .kernels.numpy_kernels import KERNELS
from .kernels.numpy_memory import keep_freed_memory

try:
    import resource
except ImportError:  # Windows
    resource = None


def astype(x, dtype, /, *, copy=True):
    return x.astype(dtype, copy=copy)  # NumPy's own function refuses its scalars


def reshape(x, /, shape, *, copy=None):
    return x.reshape(shape, copy=copy)  # NumPy's own function takes six times as long to get here


def permute_dims(x, /, axes):
    return x.transpose(axes)


def matrix_transpose(x, /):
    return x.swapaxes(-1, -2)


def take(x, indices, /, *, axis=None):
    return x.take(indices, axis=axis)


def argmax(x, /, *, axis=None, keepdims=False):
    return x.argmax(axis=axis, keepdims=keepdims)


def largest(x, /, *, axis=None, keepdims=False):
    return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


def matmul(x1, x2, /):
    if x1.dtype == x2.dtype == np.float16:  # NumPy's own loop for halves is 500 times slower
        return np.matmul(x1.astype(np.float32), x2.astype(np.float32)).astype(np.float16)
    return np.matmul(x1, x2)


def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    if dtype is None and x.dtype == np.float16:
        return np.add.reduce(x, axis=axis, dtype=np.float32, keepdims=keepdims).astype(np.float16)
    return np.add.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)


def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    if dtype is None and x.dtype == np.float16:
        wide = np.cumulative_sum(x, axis=axis, dtype=np.float32, include_initial=include_initial)
        return wide.astype(np.float16)
    return np.cumulative_sum(x, axis=axis, dtype=dtype, include_initial=include_initial)


def sort(x, /, *, axis=-1, descending=False, stable=True):
    y = np.sort(x, axis=axis, stable=stable)
    return np.flip(y, axis=axis) if descending else y


def argsort(x, /, *, axis=-1, descending=False, stable=True):
    if not descending:
        return np.argsort(x, axis=axis, stable=stable)
    # a stable ascending order of the reversed array, read backwards, is the stable descending order
    backwards = np.flip(np.argsort(np.flip(x, axis=axis), axis=axis, stable=stable), axis=axis)
    return x.shape[axis] - 1 - backwards


def from_numpy(a, dtype=None):
    return np.array(a, dtype=dtype)


def to_numpy(x):
    return np.array(x)


def scatter_add(y, indices, rows):
    total = np.array(y, dtype=np.float32 if y.dtype == np.float16 else y.dtype)
    np.add.at(total, indices, rows)
    return total.astype(y.dtype)


def write(buffer, start, value, axis):
    where = (slice(None),) * (axis % buffer.ndim) + (slice(start, start + value.shape[axis]),)
    buffer[where] = value
    return buffer


def segment_min(values, starts):
    return np.minimum.reduceat(values, starts)


def compress(x, keep):
    return x[keep]


def cumulative_max(x):
    return np.maximum.accumulate(x)


_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x):
    return np.asarray(_erf(x)).astype(x.dtype)


def rsqrt(x):
    return 1 / np.sqrt(x)


def memory():
    """Bytes of this process: resident now, and at their peak; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as f:
            used = int(f.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        used = 0
    if resource is None:
        return 0, 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return used or peak, max(used, peak)  # the kernel counts the two a little apart


def nothing(*arrays):
    """NumPy computes at once and has nothing to wait for."""


keep_freed_memory()
backend = Backend(
    name="numpy",
    standard=SimpleNamespace(
        **{n: getattr(np, n) for n in (*STANDARD, *OPTIONAL_DTYPES) if hasattr(np, n)}
        | {f.__name__: f for f in (astype, reshape, permute_dims, matrix_transpose, take, argmax, matmul, sum)}
        | {"max": largest, "cumulative_sum": cumulative_sum, "sort": sort, "argsort": argsort}
    ),
    primitives={
        "from_numpy": from_numpy,
        "to_numpy": to_numpy,
        "scatter_add": scatter_add,
        "write": write,
        "segment_min": segment_min,
        "compress": compress,
        "cumulative_max": cumulative_max,
        "erf": erf,
        "rsqrt": rsqrt,
        "evaluate": nothing,
        "async_evaluate": nothing,
        "synchronize": nothing,
        "memory": memory,
        "all_sum": lambda x: x,
        "dtypes": lambda: frozenset(
            ("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64")
        ),
    },
    kernels=KERNELS,
    array_type=np.ndarray,
    scalar_types=(np.generic,),
    version=np.__version__,
    device="cpu",
)
