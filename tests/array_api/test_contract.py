"""A namespace offers the contract's names and no others, and a backend that lacks one is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from refllm.array_api import Backend, load
from refllm.array_api.contract import OPTIONAL_DTYPES, PRIMITIVES, STANDARD


def test_a_namespace_offers_exactly_the_contract(backend):
    offered = {name for name in vars(backend.xp) if not name.startswith("__")}
    assert offered == {*STANDARD, *PRIMITIVES} | {d for d in OPTIONAL_DTYPES if d in backend.xp.dtypes()}


@pytest.mark.parametrize("name", ["einsum", "linalg", "random", "float128", "nonzero", "dot"])
def test_a_namespace_refuses_every_other_name(backend, name):
    with pytest.raises(AttributeError, match=f"'{name}' is not in refllm's array API; refllm/array_api/contract.py lists"):
        getattr(backend.xp, name)


def test_a_dtype_that_a_backend_lacks_is_refused_with_those_it_has(backend):
    for dtype in set(OPTIONAL_DTYPES) - backend.xp.dtypes():
        with pytest.raises(AttributeError, match=f"{backend.name} backend does not compute in {dtype}; it has bfloat16|bool"):
            getattr(backend.xp, dtype)


def test_every_name_has_one_line_of_meaning():
    for name, meaning in {**STANDARD, **PRIMITIVES}.items():
        assert meaning, name
        assert "\n" not in meaning, name
    assert not STANDARD.keys() & PRIMITIVES.keys()


def parts(**changes):
    """What NumPy's backend is made of, with changes."""
    numpy_backend = load("numpy")
    xp = vars(numpy_backend.xp)
    made = {
        "name": "mine",
        "standard": SimpleNamespace(**{n: xp[n] for n in (*STANDARD, "float16", "float64")}),
        "primitives": {n: xp[n] for n in PRIMITIVES},
        "array_type": np.ndarray,
        "version": "1",
        "device": "cpu",
    }
    return made | changes


@pytest.mark.parametrize("lost", ["matmul", "float64", "bool"])
def test_a_backend_that_lacks_a_standard_name_is_refused(lost):
    made = parts()
    delattr(made["standard"], lost)
    with pytest.raises(TypeError, match=f"the mine backend lacks {lost} of the array API"):
        Backend(**made)


@pytest.mark.parametrize("lost", ["scatter_add", "dtypes"])
def test_a_backend_that_lacks_a_primitive_is_refused(lost):
    made = parts()
    del made["primitives"][lost]
    with pytest.raises(TypeError, match=f"the mine backend lacks {lost} of the array API"):
        Backend(**made)


def test_a_backward_kernel_without_its_forward_is_refused():
    with pytest.raises(TypeError, match="kernels norm_backward of mine come without their forward"):
        Backend(**parts(kernels={"norm_backward": abs}))


def test_backends_are_values_that_print_short_and_hash():
    backend = Backend(**parts())
    assert repr(backend) == "<refllm backend mine 1 on cpu>"
    assert repr(backend.xp) == "<refllm array API over mine>"
    assert len({backend, Backend(**parts())}) == 2
    with pytest.raises(TypeError):
        backend.kernels["norm"] = abs
