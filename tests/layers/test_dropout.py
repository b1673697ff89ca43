"""Dropout: gradients, the expectation, and random numbers that have an address."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import normals
from refllm.layers.dropout import Dropout, dropout, dropout_backward, uniforms


@given(normals((3, 4)), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_gradients_equal_the_complex_step(x, seed, rate):
    u = np.random.default_rng(seed).random((3, 4))
    assert gradient_error(lambda x: dropout(x, u, rate), dropout_backward, (x,)) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((5, 8)), rng.random((5, 8))
    kept = torch.tensor(u >= 0.25)
    assert_agrees_with_torch(lambda x: dropout(x, u, 0.25), dropout_backward, (x,), lambda x: x * kept / 0.75)


def test_a_number_is_kept_where_its_uniform_is_not_below_the_rate(backend):
    xp = backend.xp
    x, u = xp.from_numpy(np.float32([1, 2, 3, 4])), xp.from_numpy(np.float32([0, 0.25, 0.5, 0.75]))
    np.testing.assert_array_equal(xp.to_numpy(dropout(x, u, 0.5)[0]), [0, 0, 6, 8])
    np.testing.assert_array_equal(xp.to_numpy(dropout(x, u, 0.0)[0]), [1, 2, 3, 4])


def test_the_expectation_is_kept():
    x, n = np.ones(100_000), 100_000
    y, _ = dropout(x, uniforms(Dropout(0.3, 1, 2), "here", (n,), x), 0.3)
    deviation = np.sqrt(0.3 / 0.7 / n)  # of the mean of n such numbers
    assert abs(np.mean(y) - 1) < 4 * deviation


def test_the_same_address_gives_the_same_uniforms_on_every_backend(backend):
    here = np.zeros(1)
    u = uniforms(Dropout(0.3, 1, 2), "layers.0.attention", (3, 4), here)
    elsewhere = uniforms(Dropout(0.3, 1, 2), "layers.0.attention", (3, 4), backend.xp.zeros((1,), dtype=backend.xp.float32))
    np.testing.assert_array_equal(backend.xp.to_numpy(elsewhere), u)
    assert u.dtype == np.float32
    for other, name in (
        (Dropout(0.3, 1, 3), "layers.0.attention"),
        (Dropout(0.3, 2, 2), "layers.0.attention"),
        (Dropout(0.3, 1, 2), "layers.1.attention"),
    ):
        assert np.all(uniforms(other, name, (3, 4), here) != u)


def test_a_part_of_a_batch_gets_its_rows_of_the_whole_batchs_uniforms():
    here = np.zeros(1)
    whole = uniforms(Dropout(0.3, 1, 2), "here", (5, 2, 3), here)
    np.testing.assert_array_equal(uniforms(Dropout(0.3, 1, 2, rows=(1, 4, 5)), "here", (3, 2, 3), here), whole[1:4])
