"""SiLU and the gated feed-forward layer: gradients, tails, the gate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.swiglu import silu, silu_backward, swiglu, swiglu_backward

sizes = st.integers(1, 5)


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    D, F, shape = data.draw(sizes), data.draw(sizes), data.draw(leading)
    x, gate, up, down = (data.draw(normals(s)) for s in ((*shape, D), (D, F), (D, F), (F, D)))
    assert gradient_error(silu, silu_backward, (3 * x,)) <= 1e-12
    assert gradient_error(swiglu, swiglu_backward, (x, gate, up, down)) <= 1e-12


@pytest.mark.oracle
def test_silu_and_swiglu_agree_with_torch(assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    x, gate, up, down = (rng.standard_normal(s) for s in ((2, 3, 5), (5, 7), (5, 7), (7, 5)))
    F = torch.nn.functional
    assert_agrees_with_torch(silu, silu_backward, (5 * x,), F.silu)
    assert_agrees_with_torch(swiglu, swiglu_backward, (x, gate, up, down), lambda x, g, u, d: (F.silu(x @ g) * (x @ u)) @ d)


@pytest.mark.filterwarnings("error")
def test_far_tails_of_silu_are_zero_and_the_identity_without_overflow(backend):
    x = np.float32([-1e4, -200, 0, 200, 1e4])
    y, saved = silu(backend.xp.from_numpy(x))
    np.testing.assert_array_equal(backend.xp.to_numpy(y), np.maximum(x, 0))
    dx = silu_backward(backend.xp.ones((5,), dtype=backend.xp.float32), saved)
    np.testing.assert_array_equal(backend.xp.to_numpy(dx), [0, 0, 0.5, 1, 1])


def test_a_closed_gate_lets_nothing_through():
    rng = np.random.default_rng(0)
    x, up, down = rng.standard_normal((3, 4)), rng.standard_normal((4, 6)), rng.standard_normal((6, 4))
    np.testing.assert_array_equal(swiglu(x, np.zeros((4, 6)), up, down)[0], 0)
