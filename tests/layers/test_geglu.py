"""The gated feed-forward layer with GELU: gradients, torch, the gate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.geglu import geglu, geglu_backward

sizes = st.integers(1, 5)


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    D, F, shape = data.draw(sizes), data.draw(sizes), data.draw(leading)
    x, gate, up, down = (data.draw(normals(s)) for s in ((*shape, D), (D, F), (D, F), (F, D)))
    assert gradient_error(geglu, geglu_backward, (x, gate, up, down)) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    weights = (rng.standard_normal(s) for s in ((2, 3, 5), (5, 7), (5, 7), (7, 5)))

    def theirs(x, gate, up, down):
        return (torch.nn.functional.gelu(x @ gate, approximate="tanh") * (x @ up)) @ down

    assert_agrees_with_torch(geglu, geglu_backward, tuple(weights), theirs)


def test_a_gate_of_zero_lets_nothing_through():
    rng = np.random.default_rng(0)
    x, up, down = rng.standard_normal((3, 4)), rng.standard_normal((4, 6)), rng.standard_normal((6, 4))
    np.testing.assert_array_equal(geglu(x, np.zeros((4, 6)), up, down)[0], 0)
