"""A backend that refllm does not know: PyTorch on the CPU, through array-api-compat."""

from types import SimpleNamespace

import array_api_compat.torch as compat
import numpy as np
import torch

from refllm.array_api import Backend, portable
from refllm.array_api.contract import STANDARD

DTYPES = frozenset(("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64", "float16", "bfloat16", "float32", "float64"))


def from_numpy(a, dtype=None):
    return torch.from_numpy(np.array(a)).to(dtype)


def to_numpy(x):
    return np.array((x.float() if x.dtype == torch.bfloat16 else x).numpy())


def take_along_axis(x, indices, /, *, axis=-1):
    return torch.take_along_dim(x, indices.long(), axis)  # compat passes int32 on, which torch refuses


def scatter_add(y, indices, rows):
    wide = torch.promote_types(y.dtype, torch.float32) if y.dtype.is_floating_point else y.dtype
    return y.to(wide).index_add(0, indices, rows.to(wide)).to(y.dtype)


def memory():
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak, peak


backend = Backend(
    name="torch",
    standard=SimpleNamespace(
        **{name: getattr(compat, name) for name in (*STANDARD, "float16", "bfloat16", "float64")}
        | {"take_along_axis": take_along_axis}
    ),
    primitives={
        "from_numpy": from_numpy,
        "to_numpy": to_numpy,
        "scatter_add": scatter_add,
        "write": portable.write,
        "segment_min": portable.segment_min,
        "compress": portable.compress,
        "cumulative_max": lambda x: torch.cummax(x, 0).values,
        "erf": torch.erf,
        "rsqrt": torch.rsqrt,
        "evaluate": portable.nothing,
        "async_evaluate": portable.nothing,
        "synchronize": portable.nothing,
        "memory": memory,
        "all_sum": portable.all_sum,
        "dtypes": lambda: DTYPES,
    },
    array_type=torch.Tensor,
    version=torch.__version__,
    device="cpu",
)
