"""Root-mean-square normalisation: gradients, invariance to scale, sums of halves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.rms_norm import rms_norm, rms_norm_backward


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    D, shape = data.draw(st.integers(1, 9)), data.draw(leading)
    x, gain = data.draw(normals((*shape, D))), data.draw(normals((D,)))
    assert gradient_error(rms_norm, rms_norm_backward, (x, gain, data.draw(st.sampled_from([1e-6, 1e-5, 0.1])))) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    arguments = (rng.standard_normal((2, 3, 8)), rng.standard_normal(8), 1e-5)
    assert_agrees_with_torch(rms_norm, rms_norm_backward, arguments, lambda x, g: torch.nn.functional.rms_norm(x, (8,), g, 1e-5))


def test_eps_stands_beside_the_mean_square():
    y, _ = rms_norm(np.array([3e-3, -3e-3]), np.array([1.0, 2.0]), 16e-6)  # 3² + 4² = 5²
    np.testing.assert_allclose(y, [0.6, -1.2], rtol=1e-15)


@given(normals((3, 8)), st.floats(0.1, 10))
def test_stretching_a_position_changes_nothing(x, stretch):
    x, gain = x.astype(np.float64), np.ones(8)
    np.testing.assert_allclose(rms_norm(stretch * x, gain, 0.0)[0], rms_norm(x, gain, 0.0)[0], rtol=0, atol=1e-14)


def test_every_backend_keeps_the_bound_of_the_norm(backend):
    rng = np.random.default_rng(0)
    x, gain = rng.standard_normal((5, 64)).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    y, _ = rms_norm(backend.xp.from_numpy(x), backend.xp.from_numpy(gain), 1e-5)
    exact, _ = rms_norm(x.astype(np.float64), gain.astype(np.float64), 1e-5)
    assert np.all(np.abs(backend.xp.to_numpy(y) - exact) <= 2.0**-23 * (4 + 64) * np.abs(exact))


def test_squares_and_sums_of_halves_do_not_overflow(backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        dtype = getattr(xp, name)
        y, saved = rms_norm(xp.full((n, 2), 512.0, dtype=dtype), xp.ones((2,), dtype=dtype), 1e-5)  # 512² is beyond float16
        np.testing.assert_array_equal(xp.to_numpy(y), np.ones((n, 2)))
        _, dgain = rms_norm_backward(xp.ones((n, 2), dtype=dtype), saved)
        np.testing.assert_array_equal(xp.to_numpy(dgain), [n, n])
