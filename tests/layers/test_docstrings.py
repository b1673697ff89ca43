"""What every layer promises in its docstring and in its file: shapes, dtypes, a backward, arguments left alone."""

import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import refllm.layers
from refllm.array_api import OPS
from refllm.layers.attention import Mask

for module in pkgutil.iter_modules(refllm.layers.__path__):
    importlib.import_module(f"refllm.layers.{module.name}")
DECODING = {"cached_attention"}  # has no backward, since decoding never goes back, and takes blocks, not arrays
LAYERS = {n: f for n, f in OPS.items() if f.__module__.startswith("refllm.layers.") and n not in DECODING}
FORWARDS = sorted(name for name in LAYERS if not name.endswith("_backward"))
NO_LAYERS = {"blocks", "cache_blocks", "cache_rows", "kv_cache", "precision"} | DECODING  # files of shared means, and of decoding

SIZES = {"B": 2, "T": 3, "S": 5, "D": 8, "H": 4, "G": 2, "K": 6, "K/2": 3, "F": 7, "V": 9, "E": 4}
ANY_AXES = (2, 3)  # what "..." stands for
SETTINGS = {
    "eps": 1e-5,
    "mask": Mask(start=SIZES["S"] - SIZES["T"]),
    "scale": 0.5,
    "activation": "gelu_tanh",
    "rate": 0.25,
    "ignore_index": -100,
    "block": 2,
    "top_k": 2,
    "cap": 1.5,
    "softcap": 0.75,
}


def stated(text):
    """The arrays that a part of a docstring states: {name: (shape, what it holds)}."""
    found = re.findall(r"\b(\w+): \(([^)]*)\)((?: integers| bool)?)", text)
    return {name: (shape_of(axes), holds.strip()) for name, axes, holds in found}


def shape_of(axes):
    shape = ()
    for axis in filter(None, (a.strip() for a in axes.split(","))):
        shape += ANY_AXES if axis == "..." else (SIZES[axis],)
    return shape


def array(xp, shape, holds, dtype):
    rng = np.random.default_rng(len(shape))
    if holds == "bool":
        return xp.from_numpy(rng.random(shape) < 0.5)
    if holds == "integers":
        return xp.from_numpy(rng.integers(0, SIZES["V"], shape).astype(np.int32))
    return xp.from_numpy(rng.random(shape, dtype=np.float32), dtype)


def arguments_of(xp, name, dtype):
    """The arguments of a layer, made from the shapes that its docstring states."""
    arrays = stated(LAYERS[name].__doc__.partition("Returns ")[0])
    parameters = inspect.signature(LAYERS[name]).parameters
    return [array(xp, *arrays[p], dtype) if p in arrays else SETTINGS[p] for p in parameters]


def floating_dtypes(xp):
    return [getattr(xp, name) for name in ("float16", "bfloat16", "float32", "float64") if name in xp.dtypes()]


@pytest.mark.parametrize("name", FORWARDS)
def test_results_have_the_shapes_stated_and_the_dtype_that_came_in(name, backend):
    xp = backend.xp
    forward, backward = LAYERS[name], LAYERS[f"{name}_backward"]
    ((y_shape, _),) = stated(forward.__doc__.partition("Returns ")[2]).values()
    results, _, given = backward.__doc__.partition("given")
    gradient_shapes = [shape for shape, _ in stated(results).values()]
    ((dy_shape, _),) = stated(given.partition(".\n")[0]).values()
    for dtype in floating_dtypes(xp):
        y, saved = forward(*arguments_of(xp, name, dtype))
        gradients = backward(array(xp, dy_shape, "", dtype), saved)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        assert type(y) is backend.array_type
        assert [tuple(a.shape) for a in (y, *gradients)] == [y_shape, *gradient_shapes]
        assert [a.dtype for a in (y, *gradients)] == [dtype] * (1 + len(gradients))


@pytest.mark.parametrize("name", FORWARDS)
def test_every_array_of_a_docstring_is_an_argument_and_every_gradient_is_of_one(name):
    forward, backward = LAYERS[name], LAYERS[f"{name}_backward"]
    parameters = list(inspect.signature(forward).parameters)
    arrays = stated(forward.__doc__.partition("Returns ")[0])
    assert set(arrays) <= set(parameters)
    gradients = list(stated(backward.__doc__.partition("given")[0]))
    differentiated = [g.removeprefix("d") for g in gradients]
    assert differentiated == [p for p in parameters if p in differentiated], "gradients come in the order of the arguments"


@pytest.mark.parametrize("name", FORWARDS)
def test_no_layer_changes_its_arguments(name, backend):
    xp = backend.xp
    arguments = arguments_of(xp, name, xp.float32)
    arrays = [a for a in arguments if isinstance(a, backend.array_type)]
    before = [np.array(xp.to_numpy(a)) for a in arrays]
    y, saved = LAYERS[name](*arguments)
    dy = xp.ones_like(y)
    results = []
    for _ in range(2):  # twice from the same saved, which the first must have left as it was
        gradients = LAYERS[f"{name}_backward"](dy, saved)
        results.append([np.array(xp.to_numpy(g)) for g in (gradients if isinstance(gradients, tuple) else (gradients,))])
    for now, then in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(xp.to_numpy(now), then)
    np.testing.assert_array_equal(xp.to_numpy(dy), 1)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_every_file_of_a_layer_has_ops_and_every_op_its_backward():
    files = {module.name for module in pkgutil.iter_modules(refllm.layers.__path__)} - NO_LAYERS
    assert files == {f.__module__.rpartition(".")[2] for f in LAYERS.values()}
    for name in FORWARDS:
        assert LAYERS[f"{name}_backward"].__module__ == LAYERS[name].__module__
    assert {name.removesuffix("_backward") for name in LAYERS} == set(FORWARDS)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_backward_stands_directly_below_its_forward(name):
    if name in FORWARDS:
        home = inspect.getsource(inspect.getmodule(LAYERS[name]))
        functions = re.findall(r"^@op\ndef (\w+)", home, re.MULTILINE)
        assert functions[functions.index(name) + 1] == f"{name}_backward"


def test_every_layer_s_file_names_its_source_or_formula_in_its_head():
    for name in FORWARDS:
        head = inspect.getmodule(LAYERS[name]).__doc__
        assert re.search(r"[=↦∝]|arXiv", head), name
