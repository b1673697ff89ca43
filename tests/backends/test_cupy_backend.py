"""CuPy's backend, as far as a machine without a GPU goes: its names, its signatures and its imports.

With a GPU, `pytest -m gpu` runs every test of every backend on it, and test_cupy_on_gpu.py beside this file.
"""

import inspect

import numpy as np
import pytest

pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'cupy-cuda12x[ctk]'")

from refllm.array_api.contract import OPTIONAL_DTYPES, PRIMITIVES, STANDARD
from refllm.backends import cupy_backend, numpy_backend

KEYWORDS = {  # by which refllm names an argument
    **dict.fromkeys(("asarray", "arange", "zeros", "ones", "full", "empty", "eye"), ("dtype",)),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like"), ("dtype",)),
    **dict.fromkeys(("mean", "max", "min", "any", "all", "argmax", "count_nonzero"), ("axis", "keepdims")),
    **dict.fromkeys(
        ("concat", "stack", "flip", "roll", "repeat", "expand_dims", "squeeze", "take", "take_along_axis"), ("axis",)
    ),
    **dict.fromkeys(("sort", "argsort"), ("axis", "descending", "stable")),
    "sum": ("axis", "keepdims", "dtype"),
    "cumulative_sum": ("axis", "dtype", "include_initial"),
    "searchsorted": ("side",),
    "clip": ("min", "max"),
    "astype": ("copy",),
    "tril": ("k",),
    "triu": ("k",),
    "from_numpy": ("dtype",),
}


def test_it_offers_the_whole_contract():
    offered = {name for name in vars(cupy_backend.backend.xp) if not name.startswith("__")}
    assert offered == {*STANDARD, *PRIMITIVES} | (set(OPTIONAL_DTYPES) & cupy_backend.DTYPES)


@pytest.mark.parametrize("name", KEYWORDS)
def test_its_functions_take_the_keywords_of_the_standard(name):
    taken = inspect.signature(getattr(cupy_backend.backend.xp, name)).parameters
    assert not [k for k in KEYWORDS[name] if k not in taken]


def test_its_dtypes_are_numpys():
    xp = cupy_backend.backend.xp
    for name in cupy_backend.DTYPES:
        assert np.dtype(getattr(xp, name)).name == name
    assert xp.isdtype(np.dtype("float16"), "real floating")
    assert xp.result_type(xp.float16, xp.float32) == np.float32
    assert float(xp.finfo(xp.float16).eps) == 2.0**-10


def test_its_functions_are_cupys_and_not_numpys():
    """Except those that work on dtypes, a NumPy function would drag arrays to the host, or refuse them."""
    xp = cupy_backend.backend.xp
    on_dtypes = {"isdtype", "finfo", "iinfo", "result_type", "inf", *cupy_backend.DTYPES}
    assert not [n for n in STANDARD if n not in on_dtypes and getattr(xp, n) is getattr(numpy_backend.backend.xp, n)]


def test_without_a_device_it_says_why():
    backend = cupy_backend.backend
    assert bool(backend.unavailable) != backend.device.startswith("gpu")
    if backend.unavailable:
        assert backend.unavailable.startswith("the cupy backend finds no CUDA device (")
