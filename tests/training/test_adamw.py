"""AdamW, the global norm and the clip, held to their formulas and to PyTorch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.training.adamw import adamw_update, clip, global_norm

pytestmark = pytest.mark.usefixtures("numpy")  # the plain bodies and the kernels

numbers = st.lists(st.floats(-10, 10), min_size=1, max_size=8)


def update_one(p, g, m, v, step, lr, beta1, beta2, eps, decay):
    """The formula for one number."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * (m_hat / (math.sqrt(v_hat) + eps) + decay * p), m, v


@given(
    rows=st.lists(st.tuples(*[st.floats(-10, 10)] * 3, st.floats(0, 10)), min_size=1, max_size=8),
    step=st.integers(1, 1000),
    lr=st.floats(0, 1),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    n_decayed=st.integers(0, 8),
)
def test_an_update_follows_the_formula(rows, step, lr, beta1, beta2, n_decayed):
    p, g, m, v = np.array(rows, dtype=np.float64).T.copy()
    n_decayed = min(n_decayed, len(p))
    given_arrays = [a.copy() for a in (p, g, m, v)]
    out = adamw_update(p.copy(), g.copy(), m.copy(), v.copy(), step, lr, beta1, beta2, 1e-8, 0.1, n_decayed)
    for i, (pi, gi, mi, vi) in enumerate(zip(*given_arrays, strict=True)):
        expected = update_one(pi, gi, mi, vi, step, lr, beta1, beta2, 1e-8, 0.1 if i < n_decayed else 0.0)
        assert [float(a[i]) for a in out] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_only_the_first_elements_decay():
    zero = np.zeros(4)
    out, _, _ = adamw_update(np.ones(4), zero, zero.copy(), zero.copy(), 1, 0.5, 0.9, 0.95, 1e-8, 0.1, 2)
    assert out.tolist() == [0.95, 0.95, 1.0, 1.0]


@pytest.mark.oracle
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_equal_those_of_torch(decay):
    import torch

    rng = np.random.default_rng(0)
    matrix, gain = rng.normal(size=(5, 7)), rng.normal(size=7)
    params = [torch.tensor(matrix, requires_grad=True), torch.tensor(gain, requires_grad=True)]
    groups = [{"params": params[:1], "weight_decay": decay}, {"params": params[1:], "weight_decay": 0.0}]
    peer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    vector = np.concatenate([matrix.reshape(-1), gain])
    mean, square = np.zeros_like(vector), np.zeros_like(vector)
    for step in range(1, 51):
        grads = rng.normal(size=vector.shape) * 10.0 ** rng.integers(-6, 2)
        params[0].grad = torch.tensor(grads[:35].reshape(5, 7))
        params[1].grad = torch.tensor(grads[35:])
        peer.step()
        vector, mean, square = adamw_update(vector, grads, mean, square, step, 1e-2, 0.9, 0.95, 1e-8, decay, 35)
        expected = np.concatenate([p.detach().numpy().reshape(-1) for p in params])
        np.testing.assert_allclose(vector, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_norm_and_clip_equal_those_of_torch(limit):
    import torch

    grads = np.random.default_rng(0).normal(size=50)
    parameter = torch.zeros(50, dtype=torch.float64)
    parameter.grad = torch.tensor(grads)
    norm = torch.nn.utils.clip_grad_norm_([parameter], limit)
    assert float(global_norm(grads)) == pytest.approx(float(norm), rel=1e-14)
    np.testing.assert_allclose(clip(grads, global_norm(grads), limit), parameter.grad.numpy(), rtol=1e-14)


@given(values=numbers, limit=st.floats(1e-3, 10))
def test_clipping_keeps_direction_and_never_lengthens(values, limit):
    grads = np.array(values)
    length = float(global_norm(grads))
    clipped = clip(grads, global_norm(grads), limit)
    factor = min(1.0, limit / (length + 1e-6))
    np.testing.assert_allclose(clipped, grads * factor, rtol=1e-12)
    assert float(global_norm(clipped)) <= min(limit, length) * (1 + 1e-12)


def test_a_short_gradient_is_not_clipped():
    grads = np.array([0.3, -0.4])
    assert clip(grads, global_norm(grads), 1.0).tolist() == grads.tolist()


def test_the_first_update_is_as_long_as_the_learning_rate():
    grads = np.array([1e-30, -3.0, 5e20, 0.25])
    zero = np.zeros(4)
    out, _, _ = adamw_update(np.ones(4), grads, zero.copy(), zero.copy(), 1, 0.125, 0.9, 0.99, 0.0, 0.0, 4)
    np.testing.assert_allclose(1 - out, 0.125 * np.sign(grads), rtol=1e-12)


@given(scale=st.floats(1e-6, 1e6))
def test_adamw_ignores_the_scale_of_the_gradients(scale):
    def trained(scale):
        rng = np.random.default_rng(0)
        state = rng.normal(size=9), np.zeros(9), np.zeros(9)
        for step in range(1, 6):
            state = adamw_update(state[0], scale * rng.normal(size=9), *state[1:], step, 1e-2, 0.9, 0.99, 0.0, 0.0, 9)
        return state[0]

    np.testing.assert_allclose(trained(scale), trained(1.0), rtol=1e-12)


def test_decay_without_gradients_is_geometric():
    state = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(1, 11):
        state = adamw_update(state[0], np.zeros(2), *state[1:], step, 0.5, 0.9, 0.95, 1e-8, 0.1, 1)
    np.testing.assert_allclose(state[0], [0.95**10, -2.0], rtol=1e-12)


def test_eps_stands_beside_the_unbiased_root():
    zero = np.zeros(1)
    out, _, _ = adamw_update(zero, np.array([1e-8]), zero.copy(), zero.copy(), 1, 0.5, 0.9, 0.99, 1e-8, 0.0, 0)
    assert float(out[0]) == pytest.approx(-0.25, rel=1e-12)  # 0.5 · 1e-8 / (1e-8 + 1e-8)
