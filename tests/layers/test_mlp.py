"""The feed-forward layer of GPT-2: gradients, its activations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.mlp import ACTIVATIONS, mlp, mlp_backward

sizes = st.integers(1, 5)


@given(st.data(), st.sampled_from(sorted(ACTIVATIONS)))
def test_gradients_equal_the_complex_step(data, activation):
    D, F, shape = data.draw(sizes), data.draw(sizes), data.draw(leading)
    arguments = [data.draw(normals(s)) for s in ((*shape, D), (D, F), (F,), (F, D), (D,))]
    assert gradient_error(mlp, mlp_backward, (*arguments, activation)) <= 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize(("activation", "approximate"), [("gelu_erf", "none"), ("gelu_tanh", "tanh")])
def test_it_agrees_with_torch(activation, approximate, assert_agrees_with_torch):
    import torch

    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal(s) for s in ((2, 3, 5), (5, 7), (7,), (7, 5), (5,))]

    def theirs(x, up, up_bias, down, down_bias):
        return torch.nn.functional.gelu(x @ up + up_bias, approximate=approximate) @ down + down_bias

    assert_agrees_with_torch(mlp, mlp_backward, (*arguments, activation), theirs)


def test_without_an_input_only_the_biases_speak():
    rng = np.random.default_rng(0)
    up, up_bias, down, down_bias = rng.standard_normal((4, 6)), np.zeros(6), rng.standard_normal((6, 4)), rng.standard_normal(4)
    y, _ = mlp(np.zeros((2, 4)), up, up_bias, down, down_bias, "gelu_tanh")
    np.testing.assert_array_equal(y, np.broadcast_to(down_bias, (2, 4)))
