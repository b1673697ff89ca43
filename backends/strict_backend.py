"""array-api-strict: refuses everything outside the standard; for tests only.

It has no half precision. On its simulated devices it refuses NumPy arrays and conversion to them, as a GPU library does.
"""

from types import SimpleNamespace

import array_api_strict as strict
import numpy as np

from refllm.array_api import Backend, portable
from refllm.array_api.contract import STANDARD
from refllm.backends import numpy_backend

DTYPES = frozenset(("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64", "float32", "float64"))
CREATION = ("asarray", "arange", "zeros", "ones", "full", "empty", "eye")

# These hold for the whole process, as array-api-strict has it.
strict.set_array_api_strict_flags(api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False)


def on_device(device: str) -> Backend:
    """The backend whose new arrays stand on a device: "CPU_DEVICE", or "device1", which the host cannot read."""
    place = strict.Device(device)
    standard = SimpleNamespace(**{name: getattr(strict, name) for name in (*STANDARD, "float64")})

    def there(create):
        return lambda *args, **kwargs: create(*args, **{"device": place} | kwargs)

    for name in CREATION:
        setattr(standard, name, there(getattr(strict, name)))

    def from_numpy(a, dtype=None):
        return strict.asarray(np.array(a), dtype=dtype, device=place)

    def to_numpy(x):
        return np.array(x._array)

    return Backend(
        name="strict",
        standard=standard,
        primitives={
            "from_numpy": from_numpy,
            "to_numpy": to_numpy,
            "scatter_add": portable.scatter_add,
            "write": portable.write,
            "segment_min": portable.segment_min,
            "compress": portable.compress,
            "cumulative_max": portable.cumulative_max,
            "erf": lambda x: from_numpy(numpy_backend.erf(x._array)),
            "rsqrt": portable.rsqrt,
            "evaluate": portable.nothing,
            "async_evaluate": portable.nothing,
            "synchronize": portable.nothing,
            "memory": numpy_backend.memory,
            "all_sum": portable.all_sum,
            "dtypes": lambda: DTYPES,
        },
        array_type=type(strict.empty(0)),
        version=strict.__version__,
        device="cpu" if device == "CPU_DEVICE" else device,
        asynchronous=device != "CPU_DEVICE",  # as a GPU is
    )


backend = on_device("CPU_DEVICE")
