"""The specification binds: pages, definitions, examples, laws and vectors against refllm, and refllm against them."""

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.array_api.contract import PRIMITIVES, STANDARD
from refllm.conformance import specification, vectors
from refllm.conformance.specification import (
    agrees,
    evaluate,
    gradients,
    pages,
    printed,
    run_array_example,
    run_example,
    signatures,
)
from refllm.layers.attention import Mask

PAGES = list(pages().values())
EXAMPLES = [example for page in PAGES for example in page.examples]
ARRAY_EXAMPLES = [example for page in PAGES for example in page.array_examples]
LAWS = [law for page in PAGES for law in page.laws]
CASES = vectors.all_cases()
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


# What is drawn: multiples of 1/32, so that a failure prints short numbers


@st.composite
def numbers(draw, *shape, largest=3):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-32 * largest, 32 * largest + 1, shape) / 32


sizes = st.integers(1, 4)
leads = st.sampled_from([(1,), (2,), (1, 3)])


@st.composite
def tokens(draw, shape, V):
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, V, shape)


@st.composite
def normed(draw, vectors):
    D = draw(sizes)
    x = draw(numbers(*draw(leads), D))
    return (x, *(draw(numbers(D)) for _ in range(vectors)), draw(st.sampled_from([1e-5, 0.25, 1.0])))


@st.composite
def multiplied(draw, bias=False):
    D, F = draw(sizes), draw(sizes)
    arguments = (draw(numbers(*draw(leads), D)), draw(numbers(D, F)))
    return (*arguments, draw(numbers(F))) if bias else arguments


@st.composite
def looked_up(draw):
    V, D = draw(sizes), draw(sizes)
    return draw(tokens((*draw(leads), 3), V)), draw(numbers(V, D))


@st.composite
def one_array(draw, least_axes=0):
    shape = (*draw(leads), draw(sizes)) if least_axes else draw(leads)
    return (draw(numbers(*shape)),)


@st.composite
def gated(draw):
    D, F = draw(sizes), draw(sizes)
    return draw(numbers(*draw(leads), D)), draw(numbers(D, F)), draw(numbers(D, F)), draw(numbers(F, D))


@st.composite
def widened(draw):
    D, F = draw(sizes), draw(sizes)
    x, activation = draw(numbers(*draw(leads), D)), draw(st.sampled_from(["gelu_tanh", "gelu_erf"]))
    return x, draw(numbers(D, F)), draw(numbers(F)), draw(numbers(F, D)), draw(numbers(D)), activation


@st.composite
def turned(draw):
    B, H, T, K = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(sizes), 2 * draw(st.integers(1, 2))
    angles = draw(numbers(*draw(st.sampled_from([(T,), (B, 1, T)])), K // 2))
    return draw(numbers(B, H, T, K)), np.cos(angles), np.sin(angles)


@st.composite
def attended(draw, block=False):
    B, G, R, K = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    T, past = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    S = T + past
    valid = np.random.default_rng(draw(st.integers(0, 99))).random((B, S)) < 0.7 if draw(st.booleans()) else None
    mask = Mask(past, draw(st.booleans()), draw(st.sampled_from([None, 1, 2])), valid)
    arguments = (draw(numbers(B, G * R, T, K)), draw(numbers(B, G, S, K)), draw(numbers(B, G, S, K)), mask, K**-0.5)
    return (*arguments, draw(st.integers(1, 4))) if block else arguments


@st.composite
def dropped(draw):
    shape = draw(leads)
    uniforms = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 32, shape) / 32
    return draw(numbers(*shape)), uniforms, draw(st.sampled_from([0.0, 0.25, 0.5]))


@st.composite
def judged(draw, head=False):
    N, V, D = draw(sizes), draw(sizes), draw(sizes)
    targets = np.where(draw(tokens((N,), 4)) == 0, -100, draw(tokens((N,), V)))
    if head:
        return draw(numbers(N, D)), draw(numbers(D, V)), targets, -100, draw(st.integers(1, 5))
    return draw(numbers(N, V)), targets, -100


DRAWN = {
    "linear": multiplied(),
    "affine": multiplied(bias=True),
    "embedding": looked_up(),
    "rms_norm": normed(1),
    "layer_norm": normed(2),
    "softmax": one_array(least_axes=1),
    "gelu_erf": one_array(),
    "gelu_tanh": one_array(),
    "silu": one_array(),
    "swiglu": gated(),
    "mlp": widened(),
    "rope": turned(),
    "rope_interleaved": turned(),
    "attention": attended(),
    "blockwise_attention": attended(block=True),
    "dropout": dropped(),
    "cross_entropy": judged(),
    "linear_cross_entropy": judged(head=True),
}


def of_refllm(name):
    return getattr(importlib.import_module(vectors.home(name)), name)


def assert_equal_within(found, expected, tolerance=vectors.EXACT):
    """Equal in shape, and in value to a share of the largest number, or of 1 where all are smaller."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    error, bound = np.abs(found - expected), tolerance * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert np.all(error <= bound), f"{found}\ndiffers by up to {np.max(error):.3g}, more than {bound:.3g}, from\n{expected}"


@pytest.fixture(params=["kernels", "plain"])
def numpy_kernels(request):
    numpy = load("numpy")
    with kernels(numpy, numpy.kernels if request.param == "kernels" else {}):
        yield


# Definitions


@pytest.mark.parametrize("name", DRAWN)
def test_a_definition_agrees_with_refllm(name):
    numpy = load("numpy")

    @given(DRAWN[name])
    def agrees(arguments):
        (expected,) = evaluate(name, *arguments)
        for table in ({}, numpy.kernels):
            with kernels(numpy, table):
                y, _ = of_refllm(name)(*arguments)
            assert_equal_within(y, expected)

    agrees()


@pytest.mark.parametrize("name", DRAWN)
def test_the_complex_step_of_a_definition_gives_refllms_backward(name):
    numpy, f = load("numpy"), of_refllm(name)
    backward = getattr(importlib.import_module(vectors.home(name)), f"{name}_backward")
    of = tuple(i for i, n in enumerate(vectors.parameters(name)) if f"d{n}" in vectors.differentiated(name))

    @settings(max_examples=10)  # each draw steps every number of every argument
    @given(st.data())
    def agrees(data):
        arguments = data.draw(DRAWN[name])
        dy = data.draw(numbers(*evaluate(name, *arguments)[0].shape))
        dy = dy if dy.ndim else np.asarray(dy)
        expected = gradients(lambda *a: evaluate(name, *a)[0], arguments, dy, of)
        for table in ({}, numpy.kernels):
            with kernels(numpy, table):
                _, saved = f(*arguments)
                found = backward(dy, saved)
            found = found if isinstance(found, tuple) else (found,)
            for ours, theirs in zip(found, expected, strict=True):
                assert_equal_within(ours, theirs)

    agrees()


def test_every_definition_with_axes_is_held_to_refllm():
    assert set(DRAWN) <= set(signatures())
    differentiable = {n for n in signatures() if hasattr(importlib.import_module(vectors.home(n)), f"{n}_backward")}
    assert differentiable == set(DRAWN)


# Examples


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}.md:{e.line}")
def test_an_example_is_true(example):
    value, stated = run_example(example), printed(example.value)
    assert agrees(value, stated), f"spec/{example.page}.md:{example.line}: {example.call} is {value}, not {example.value}"


@pytest.mark.parametrize("example", ARRAY_EXAMPLES, ids=lambda e: f"{e.page}.md:{e.line}")
def test_an_example_of_the_array_api_is_true_on_every_backend(example, backend):
    value, stated = run_array_example(example, backend.xp), printed(example.value)
    assert agrees(value, stated), f"spec/{example.page}.md:{example.line}: {example.call} is {value}, not {example.value}"


def test_every_name_of_the_array_api_has_its_meaning_and_an_example_in_the_specification():
    meanings = specification.entries("array_api")
    assert meanings == STANDARD | PRIMITIVES
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for example in pages()["array_api"].array_examples
        for node in ast.walk(ast.parse(example.call))
        if isinstance(node, ast.Name | ast.Attribute)
    }
    assert not (STANDARD | PRIMITIVES).keys() - used


def test_every_definition_page_has_examples():
    assert not [page.name for page in PAGES if page.definitions and not page.examples]


# Laws


# Vectors


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}:{c.name}")
def test_numpy_keeps_the_vectors_in_float64(case, numpy_kernels):
    shares = vectors.held(case, load("numpy"), "float64")
    assert all(share <= 1 for share in shares.values()), shares


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}:{c.name}")
def test_every_backend_keeps_the_vectors_in_float32(case, backend):
    shares = vectors.held(case, backend, "float32")
    assert all(share <= 1 for share in shares.values()), shares
