"""The soft cap: gradients, its limits near and far from the cap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.softcap import softcap, softcap_backward


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    x = data.draw(normals((*data.draw(leading), data.draw(st.integers(1, 5)))))
    assert gradient_error(softcap, softcap_backward, (3 * x, data.draw(st.sampled_from([0.5, 2.0, 50.0])))) <= 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_it_agrees_with_torch(cap, assert_agrees_with_torch):
    import torch

    x = 20 * np.random.default_rng(0).standard_normal((2, 3, 5))
    assert_agrees_with_torch(softcap, softcap_backward, (x, cap), lambda x: torch.tanh(x / cap) * cap)


@pytest.mark.filterwarnings("error")
def test_no_number_passes_the_cap(backend):
    xp = backend.xp
    x = np.float32([-1e30, -100, -3, 0, 3, 100, 1e30])
    y, saved = softcap(xp.from_numpy(x), 3.0)
    found = xp.to_numpy(y)
    assert np.all(np.abs(found) <= 3)
    assert found[[0, 1, 3, 5, 6]].tolist() == [-3, -3, 0, 3, 3]
    dx = xp.to_numpy(softcap_backward(xp.ones((7,), dtype=xp.float32), saved))
    assert dx[[0, 1, 3, 5, 6]].tolist() == [0, 0, 1, 0, 0]


def test_what_is_far_below_the_cap_passes_unchanged():
    x = np.linspace(-3, 3, 25)
    np.testing.assert_allclose(softcap(x, 1e9)[0], x, rtol=1e-15, atol=0)


def test_the_cap_of_a_mirror_image_is_the_mirror_image():
    x = np.linspace(-9, 9, 37)
    np.testing.assert_array_equal(softcap(-x, 2.0)[0], -softcap(x, 2.0)[0])
