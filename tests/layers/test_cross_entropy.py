"""The loss: gradients, what is ignored, huge logits, and the head and loss together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import integers, normals, truths
from refllm.layers.cross_entropy import (
    cross_entropy,
    cross_entropy_backward,
    linear_cross_entropy,
    linear_cross_entropy_backward,
)
from refllm.layers.linear import linear, linear_backward


@st.composite
def some_targets(draw, shape, V, ignore_index=-100):
    targets = draw(integers(shape, 0, V))
    return np.where(draw(truths(shape)), targets, np.int32(ignore_index)) if draw(st.booleans()) else targets


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    shape, V = data.draw(st.sampled_from([(1,), (4,), (2, 3)])), data.draw(st.integers(1, 8))
    logits, targets = data.draw(normals((*shape, V), scale=3.0)), data.draw(some_targets(shape, V))
    assert gradient_error(cross_entropy, cross_entropy_backward, (logits, targets)) <= 1e-12


@given(st.data())
def test_gradients_of_head_and_loss_together_equal_the_complex_step(data):
    shape, D, V = data.draw(st.sampled_from([(1,), (4,), (2, 3)])), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    ignore_index = data.draw(st.sampled_from([-100, 0]))
    arguments = (data.draw(normals((*shape, D))), data.draw(normals((D, V))), data.draw(some_targets(shape, V, ignore_index)))
    block = data.draw(st.integers(1, 9))
    assert gradient_error(linear_cross_entropy, linear_cross_entropy_backward, (*arguments, ignore_index, block)) <= 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize("ignore_index", [-100, 2])
def test_both_agree_with_torch(ignore_index, assert_agrees_with_torch):
    import torch.nn.functional as F

    rng = np.random.default_rng(0)
    x, weight, targets = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 7)), np.array([[1, 2, 2], [0, 6, ignore_index]])

    def theirs(logits, targets):
        return F.cross_entropy(logits.reshape(-1, 7), targets.reshape(-1), ignore_index=ignore_index)

    assert_agrees_with_torch(cross_entropy, cross_entropy_backward, (x @ weight, targets, ignore_index), theirs)
    together = lambda x, w, targets: theirs(x @ w, targets)  # noqa: E731  # reads better in one line
    arguments = (x, weight, targets, ignore_index, 3)
    assert_agrees_with_torch(linear_cross_entropy, linear_cross_entropy_backward, arguments, together)


@given(st.data())
def test_any_block_of_the_vocabulary_gives_the_loss_of_all_logits(data):
    shape, V, block = data.draw(st.sampled_from([(1,), (4,), (2, 3)])), data.draw(st.integers(1, 8)), data.draw(st.integers(1, 9))
    x, weight = (data.draw(normals(s)).astype(np.float64) for s in ((*shape, 3), (3, V)))
    targets = data.draw(some_targets(shape, V))
    logits, linear_saved = linear(x, weight)
    loss, saved = cross_entropy(logits, targets)
    loss_by_block, saved_by_block = linear_cross_entropy(x, weight, targets, -100, block)
    np.testing.assert_allclose(loss_by_block, loss, rtol=0, atol=1e-13)
    one = np.ones(())
    expected = linear_backward(cross_entropy_backward(one, saved), linear_saved)
    for ours, plain in zip(linear_cross_entropy_backward(one, saved_by_block), expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-13)


def test_knowing_nothing_costs_the_logarithm_of_the_vocabulary(backend):
    xp = backend.xp
    loss, _ = cross_entropy(xp.zeros((2, 3, 50), dtype=xp.float32), xp.zeros((2, 3), dtype=xp.int32))
    assert abs(float(xp.to_numpy(loss)) - math.log(50)) <= 2.0**-23 * (8 + 50) * math.log(50)


def test_ignored_targets_leave_no_trace(backend):
    xp, rng = backend.xp, np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 9)).astype(np.float32), np.array([3, -100, 8, -100], dtype=np.int32)
    loss, saved = cross_entropy(xp.from_numpy(logits), xp.from_numpy(targets))
    alone, _ = cross_entropy(xp.from_numpy(logits[[0, 2]]), xp.from_numpy(targets[[0, 2]]))
    assert abs(float(xp.to_numpy(loss)) - float(xp.to_numpy(alone))) <= 2.0**-23 * (8 + 9) * float(xp.to_numpy(alone))
    dlogits = xp.to_numpy(cross_entropy_backward(xp.ones((), dtype=xp.float32), saved))
    np.testing.assert_array_equal(dlogits[[1, 3]], 0)
    assert np.all(np.any(dlogits[[0, 2]] != 0, axis=-1))


@pytest.mark.filterwarnings("error")
def test_with_every_target_ignored_loss_and_gradient_are_zero(backend):
    xp = backend.xp
    targets = xp.full((3,), -100, dtype=xp.int32)
    x, weight, one = xp.ones((3, 2), dtype=xp.float32), xp.ones((2, 5), dtype=xp.float32), xp.ones((), dtype=xp.float32)
    loss, saved = cross_entropy(xp.ones((3, 5), dtype=xp.float32), targets)
    loss_by_block, saved_by_block = linear_cross_entropy(x, weight, targets, -100, 2)
    gradients = (cross_entropy_backward(one, saved), *linear_cross_entropy_backward(one, saved_by_block))
    for a in (loss, loss_by_block, *gradients):
        np.testing.assert_array_equal(xp.to_numpy(a), 0)


@pytest.mark.filterwarnings("error")
def test_huge_logits_do_not_overflow(backend):
    xp = backend.xp
    logits, targets = xp.from_numpy(np.float32([[1e4, -1e4, 0], [1e4, -1e4, 0]])), xp.from_numpy(np.array([0, 1], dtype=np.int32))
    loss, saved = cross_entropy(logits, targets)
    assert float(xp.to_numpy(loss)) == 1e4
    dlogits = cross_entropy_backward(xp.ones((), dtype=xp.float32), saved)
    np.testing.assert_array_equal(xp.to_numpy(dlogits), [[0, 0, 0], [0.5, -0.5, 0]])
    by_block, _ = linear_cross_entropy(xp.from_numpy(np.eye(2, dtype=np.float32)), logits, targets, -100, 2)
    assert float(xp.to_numpy(by_block)) == 1e4


@given(normals((5, 6), scale=3.0))
def test_each_position_s_gradient_sums_to_zero(logits):
    _, saved = cross_entropy(logits.astype(np.float64), np.arange(5))
    np.testing.assert_allclose(np.sum(cross_entropy_backward(np.ones(()), saved), axis=-1), 0, atol=1e-15)


def test_means_over_many_half_precision_tokens_do_not_overflow(backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        dtype = getattr(xp, name)
        logits = xp.from_numpy(np.tile(np.float32([0, 32]), (n, 1)), dtype)  # 4096 · 32 is beyond float16
        loss, _ = cross_entropy(logits, xp.zeros((n,), dtype=xp.int32))
        assert xp.to_numpy(loss) == 32
        x, weight = xp.ones((n, 1), dtype=dtype), logits[:1, :]
        loss, saved = linear_cross_entropy(x, weight, xp.zeros((n,), dtype=xp.int32), -100, 1)
        assert xp.to_numpy(loss) == 32
        _, dweight = linear_cross_entropy_backward(xp.ones((), dtype=dtype), saved)
        np.testing.assert_array_equal(xp.to_numpy(dweight), [[-1, 1]])
