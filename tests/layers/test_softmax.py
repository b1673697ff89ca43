"""Softmax: gradients, probabilities, no overflow, no half-precision sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.softmax import softmax, softmax_backward


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    x = data.draw(normals((*data.draw(leading), data.draw(st.integers(1, 9))), scale=data.draw(st.sampled_from([1.0, 10.0]))))
    assert gradient_error(softmax, softmax_backward, (x,)) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    x = np.random.default_rng(0).standard_normal((2, 3, 8)) * 5
    assert_agrees_with_torch(softmax, softmax_backward, (x,), lambda x: x.softmax(-1))


@given(normals((3, 8), scale=20.0), st.floats(-1e3, 1e3))
def test_a_shift_of_all_scores_changes_nothing(x, shift):
    x = x.astype(np.float64)
    np.testing.assert_allclose(softmax(x + shift)[0], softmax(x)[0], rtol=1e-11)


def test_huge_scores_do_not_overflow_and_masked_ones_get_nothing(backend):
    x = np.float32([[1e30, 0, -1e30], [3e38, 3e38, -np.inf]])
    p, _ = softmax(backend.xp.from_numpy(x))
    np.testing.assert_array_equal(backend.xp.to_numpy(p), [[1, 0, 0], [0.5, 0.5, 0]])


def test_every_backend_keeps_the_bound_of_softmax(backend):
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32) * 10
    p, _ = softmax(backend.xp.from_numpy(x))
    exact, _ = softmax(x.astype(np.float64))
    scale = exact * (1 + np.max(np.abs(x - np.max(x, axis=-1, keepdims=True)), axis=-1, keepdims=True))  # exp amplifies
    assert np.all(np.abs(backend.xp.to_numpy(p) - exact) <= 2.0**-23 * (8 + 64) * scale)


def test_a_sum_of_half_precision_exponentials_does_not_stop_growing(backend):
    xp = backend.xp
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        p, _ = softmax(xp.zeros((1, 8192), dtype=getattr(xp, name)))
        np.testing.assert_array_equal(xp.to_numpy(p), np.full((1, 8192), 2.0**-13))
