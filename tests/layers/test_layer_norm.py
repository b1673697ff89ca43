"""Layer normalisation: gradients, invariance to shift and scale, sums of halves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.layer_norm import layer_norm, layer_norm_backward


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    D, shape = data.draw(st.integers(3, 9)), data.draw(leading)  # two numbers always become −1 and 1
    arguments = (data.draw(normals((*shape, D))), data.draw(normals((D,))), data.draw(normals((D,))))
    assert gradient_error(layer_norm, layer_norm_backward, (*arguments, data.draw(st.sampled_from([1e-5, 0.1])))) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    arguments = (rng.standard_normal((2, 3, 8)), rng.standard_normal(8), rng.standard_normal(8), 1e-5)
    theirs = lambda x, g, b: torch.nn.functional.layer_norm(x, (8,), g, b, 1e-5)  # noqa: E731  # reads better in one line
    assert_agrees_with_torch(layer_norm, layer_norm_backward, arguments, theirs)


def test_eps_stands_beside_the_variance():
    y, _ = layer_norm(np.array([3e-3, -3e-3]), np.array([1.0, 2.0]), np.array([0.0, 5.0]), 16e-6)  # 3² + 4² = 5²
    np.testing.assert_allclose(y, [0.6, 3.8], rtol=1e-15)


@given(normals((3, 8)), st.floats(0.1, 10), st.floats(-10, 10))
def test_shifting_and_stretching_a_position_changes_nothing(x, stretch, shift):
    x, gain, bias = x.astype(np.float64), np.ones(8), np.zeros(8)
    moved, _ = layer_norm(stretch * x + shift, gain, bias, 0.0)
    np.testing.assert_allclose(moved, layer_norm(x, gain, bias, 0.0)[0], rtol=0, atol=1e-11)


def test_sums_of_halves_do_not_stop_growing(backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        dtype = getattr(xp, name)
        x = xp.from_numpy(np.tile(np.float32([-512, 512]), (n, 1)), dtype)  # 512² is beyond float16
        y, saved = layer_norm(x, xp.ones((2,), dtype=dtype), xp.zeros((2,), dtype=dtype), 1e-5)
        np.testing.assert_array_equal(xp.to_numpy(y), np.tile([-1.0, 1.0], (n, 1)))
        _, dgain, dbias = layer_norm_backward(xp.ones((n, 2), dtype=dtype), saved)
        np.testing.assert_array_equal(xp.to_numpy(dgain), [-n, n])
        np.testing.assert_array_equal(xp.to_numpy(dbias), [n, n])
