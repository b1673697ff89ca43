"""A kernel stands for an op: by its name, with its signature, and with its backward beside it."""

import importlib
import importlib.util
import inspect
import pkgutil

import pytest

import refllm.layers
import refllm.models
import refllm.tokenizer
import refllm.training
from refllm.array_api import BUILT_IN, OPS, is_installed

TABLES = ("numpy", "mlx", "cupy")


@pytest.fixture(scope="module", params=TABLES)
def table(request):
    """All the kernels that a backend has, in force here or not."""
    if not is_installed(request.param):
        pytest.skip(f"not installed: {BUILT_IN[request.param].install}")
    for room in (refllm.layers, refllm.models, refllm.tokenizer, refllm.training):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    return importlib.import_module(f"refllm.backends.kernels.{request.param}_kernels").KERNELS


def test_every_kernel_replaces_an_op_of_its_name(table):
    assert table
    assert table.keys() <= OPS.keys()


def test_every_kernel_has_the_signature_of_its_op(table):
    for name, kernel in table.items():
        assert inspect.signature(kernel) == inspect.signature(OPS[name].reference), name


def test_forward_and_backward_are_replaced_together(table):
    for name in OPS:
        if f"{name}_backward" in OPS:
            assert (name in table) == (f"{name}_backward" in table), name
