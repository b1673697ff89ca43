"""GELU, exact and by tanh: gradients, the two kept apart, tails."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.gelu import gelu_erf, gelu_erf_backward, gelu_tanh, gelu_tanh_backward

BOTH = pytest.mark.parametrize(("gelu", "backward"), [(gelu_erf, gelu_erf_backward), (gelu_tanh, gelu_tanh_backward)])


@BOTH
@given(st.data())
def test_gradients_equal_the_complex_step(gelu, backward, data):
    x = data.draw(normals((*data.draw(leading), data.draw(st.integers(1, 9))), scale=3.0))
    assert gradient_error(gelu, backward, (x,)) <= 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("gelu", "backward", "approximate"), [(gelu_erf, gelu_erf_backward, "none"), (gelu_tanh, gelu_tanh_backward, "tanh")]
)
def test_both_agree_with_torch(gelu, backward, approximate, assert_agrees_with_torch):
    import torch

    x = np.random.default_rng(0).standard_normal((4, 25)) * 3
    assert_agrees_with_torch(gelu, backward, (x,), lambda x: torch.nn.functional.gelu(x, approximate=approximate))


@given(st.floats(-30, 30))
def test_the_exact_one_is_x_times_the_normal_distribution(x):
    y, _ = gelu_erf(np.array([x]))
    assert abs(y[0] - x * 0.5 * math.erfc(-x / math.sqrt(2))) <= 4e-16 * abs(x)


@given(st.floats(-30, 30))
def test_the_other_is_its_formula(x):
    y, _ = gelu_tanh(np.array([x]))
    assert abs(y[0] - 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))) <= 4e-15 * abs(x)


def test_the_two_differ_by_a_few_ten_thousandths_and_no_more():
    x = np.linspace(-8, 8, 4001)
    apart = np.max(np.abs(gelu_erf(x)[0] - gelu_tanh(x)[0]))
    assert 1e-4 < apart < 5e-4


@BOTH
def test_far_tails_are_zero_and_the_identity(gelu, backward, backend):
    x = np.float32([-1e4, -30, 0, 30, 1e4])
    y, saved = gelu(backend.xp.from_numpy(x))
    np.testing.assert_array_equal(backend.xp.to_numpy(y), np.maximum(x, 0))
    dx = backward(backend.xp.ones((5,), dtype=backend.xp.float32), saved)
    np.testing.assert_array_equal(backend.xp.to_numpy(dx), [0, 0, 0.5, 1, 1])
