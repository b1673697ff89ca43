"""Attention: gradients under every mask, and what each part of the mask means."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import normals, truths
from refllm.layers.attention import Mask, attention, attention_backward, visible
from refllm.layers.blockwise_attention import blockwise_attention, blockwise_attention_backward

XP = load("numpy").xp


def by_block(q, k, v, mask, scale, softcap=None):
    return blockwise_attention(q, k, v, mask, scale, 2, softcap)


BOTH = pytest.mark.parametrize(
    ("attend", "backward"),
    [(attention, attention_backward), (by_block, blockwise_attention_backward)],
    ids=["attention", "blockwise"],
)


@st.composite
def cases(draw):
    """q, k, v, a mask, a scale and a cap: grouped heads or one for all, windows, padding, queries that start late."""
    B, G, R, T, K = (draw(st.integers(1, n)) for n in (2, 2, 3, 4, 3))
    start = draw(st.integers(0, 3))
    S = start + T + draw(st.integers(0, 1))
    valid = draw(truths((B, S))) if draw(st.booleans()) else None
    mask = Mask(start, draw(st.booleans()), draw(st.sampled_from([None, 1, 2, 3])), valid)
    softcap = draw(st.sampled_from([None, 0.5, 3.0]))
    return draw(normals((B, G * R, T, K))), draw(normals((B, G, S, K))), draw(normals((B, G, S, K))), mask, K**-0.5, softcap


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def definition(q, k, v, mask, scale, softcap):
    """Attention query by query, key by key."""
    B, H, T, K = q.shape
    y = np.zeros(q.shape)
    for b, h, t in np.ndindex(B, H, T):
        g = h * k.shape[1] // H
        weights = {}
        for s in range(k.shape[2]):
            position = mask.start + t
            seen = not (mask.causal and s > position) and (mask.window is None or s > position - mask.window)
            if seen and (mask.valid is None or mask.valid[b, s]):
                score = scale * np.sum(q[b, h, t] * k[b, g, s])
                weights[s] = np.exp(score if softcap is None else softcap * np.tanh(score / softcap))
        for s, weight in weights.items():
            y[b, h, t] += weight / sum(weights.values()) * v[b, g, s]
    return y


@BOTH
@given(cases())
def test_gradients_equal_the_complex_step(attend, backward, case):
    assert gradient_error(attend, backward, case) <= 1e-12


@BOTH
@given(cases())
def test_it_is_the_weighted_mean_of_what_each_query_sees(attend, backward, case):
    case = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in case]
    np.testing.assert_allclose(attend(*case)[0], definition(*case), rtol=0, atol=1e-12)


@BOTH
@pytest.mark.oracle
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("G", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 3])
def test_it_agrees_with_torch(attend, backward, causal, G, window, assert_agrees_with_torch):
    import torch

    mask = Mask(2, causal, window, np.arange(7) >= np.array([[0], [1]]))
    seen = torch.tensor(visible(mask, 5, 7, XP))

    def theirs(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=0.3, enable_gqa=True)

    assert_agrees_with_torch(attend, backward, (normal(2, 4, 5, 8), normal(2, G, 7, 8), normal(2, G, 7, 8), mask, 0.3), theirs)


@BOTH
@pytest.mark.oracle
def test_with_a_cap_it_agrees_with_transformers_gemma(attend, backward, assert_agrees_with_torch):
    import torch
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    mask, shared = Mask(2, True, 3, np.arange(7) >= np.array([[0], [1]])), SimpleNamespace(num_key_value_groups=2, training=False)
    unseen = torch.where(torch.tensor(visible(mask, 5, 7, XP)), 0.0, -torch.inf)

    def theirs(q, k, v):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "float32", torch.float64)  # in which it takes the softmax
            return eager_attention_forward(shared, q, k, v, unseen, scaling=0.3, softcap=0.7)[0].transpose(1, 2)

    arguments = (normal(2, 4, 5, 8), normal(2, 2, 7, 8), normal(2, 2, 7, 8), mask, 0.3, 0.7)
    assert_agrees_with_torch(attend, backward, arguments, theirs)


@BOTH
@pytest.mark.parametrize("T", [1, 6])
def test_a_cap_far_beyond_all_scores_changes_nothing(attend, backward, T):
    q, k, v = normal(2, 4, T, 8), normal(2, 2, 6, 8), normal(2, 2, 6, 8)
    plain, saved = attend(q, k, v, Mask(6 - T), 0.3)
    capped, saved_capped = attend(q, k, v, Mask(6 - T), 0.3, 1e9)
    np.testing.assert_allclose(capped, plain, rtol=0, atol=1e-14)
    for ours, expected in zip(
        backward(v[:, [0, 0, 1, 1], :T], saved_capped), backward(v[:, [0, 0, 1, 1], :T], saved), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)


@BOTH
@pytest.mark.parametrize("T", [1, 6])
def test_a_tiny_cap_weighs_all_keys_seen_alike(attend, backward, T):
    q, k, v = normal(2, 4, T, 8), normal(2, 2, 6, 8), normal(2, 2, 6, 8)
    y, _ = attend(q, k, v, Mask(6 - T), 100.0, 1e-15)
    means = np.cumsum(v, axis=2) / np.arange(1, 7)[:, None]
    np.testing.assert_allclose(y, np.repeat(means, 2, axis=1)[:, :, 6 - T :], rtol=0, atol=1e-14)


@BOTH
@pytest.mark.parametrize("softcap", [None, 1.0])
def test_a_later_key_never_changes_an_earlier_result(attend, backward, softcap):
    q, k, v = normal(1, 4, 6, 8), normal(1, 2, 6, 8), normal(1, 2, 6, 8)
    y, _ = attend(q, k, v, Mask(), 0.3, softcap)
    for t in range(1, 6):
        other_k, other_v = k.copy(), v.copy()
        other_k[:, :, t:], other_v[:, :, t:] = normal(6 - t, 8), normal(6 - t, 8)
        np.testing.assert_array_equal(attend(q, other_k, other_v, Mask(), 0.3, softcap)[0][:, :, :t], y[:, :, :t])
        other_k[:, :, t:], other_v[:, :, t:] = 1e6, 1e6  # scores so large that any trace of them drowns the others
        found = attend(q, other_k, other_v, Mask(), 0.3, softcap)[0][:, :, :t]
        np.testing.assert_allclose(found, y[:, :, :t], rtol=0, atol=1e-14)


@BOTH
@pytest.mark.parametrize("split", [1, 3, 5])
def test_queries_asked_later_get_what_they_get_together(attend, backward, split, backend):
    xp = backend.xp
    q, k, v = (xp.from_numpy(normal(2, heads, 6, 8).astype(np.float32)) for heads in (4, 2, 2))
    together = xp.to_numpy(attend(q, k, v, Mask(), 0.3)[0])
    first, _ = attend(q[:, :, :split, :], k[:, :, :split, :], v[:, :, :split, :], Mask(), 0.3)
    later, _ = attend(q[:, :, split:, :], k, v, Mask(start=split), 0.3)
    bound = 2.0**-23 * (8 + 8 + 6) * 8 * np.max(np.abs(normal(2, 2, 6, 8)))  # scores stay below 8
    assert np.all(np.abs(xp.to_numpy(first) - together[:, :, :split]) <= bound)
    assert np.all(np.abs(xp.to_numpy(later) - together[:, :, split:]) <= bound)


@BOTH
def test_padding_keys_are_as_if_they_were_not_there(attend, backward):
    q, k, v = normal(2, 4, 1, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 8)
    valid = np.array([[True] * 5, [False, True, False, True, True]])
    y, _ = attend(q, k, v, Mask(start=4, valid=valid), 0.3)
    kept = valid[1]
    alone, _ = attend(q[1:], k[1:, :, kept], v[1:, :, kept], Mask(start=2), 0.3)
    np.testing.assert_allclose(y[1:], alone, rtol=0, atol=1e-14)


@BOTH
@pytest.mark.filterwarnings("error")
def test_a_query_that_sees_nothing_gives_zeros_and_takes_no_gradient(attend, backward, backend):
    xp = backend.xp
    q, k, v = (xp.from_numpy(normal(2, heads, 3, 8).astype(np.float32)) for heads in (4, 2, 2))
    valid = xp.from_numpy(np.array([[True] * 3, [False] * 3]))
    y, saved = attend(q, k, v, Mask(valid=valid), 0.3)
    gradients = backward(xp.ones_like(y), saved)
    for a in (y, *gradients):
        assert np.all(np.isfinite(xp.to_numpy(a)))
        np.testing.assert_array_equal(xp.to_numpy(a)[1], 0)
        assert np.any(xp.to_numpy(a)[0] != 0)


@BOTH
def test_a_window_counts_the_query_itself(attend, backward):
    q, k, v = normal(1, 4, 5, 8), normal(1, 2, 5, 8), normal(1, 2, 5, 8)
    y, _ = attend(q, k, v, Mask(window=1), 0.3)
    np.testing.assert_allclose(y, np.repeat(v, 2, axis=1), rtol=1e-15)


@BOTH
def test_query_heads_share_the_key_head_of_their_group(attend, backward):
    q, k, v = normal(2, 6, 3, 4), normal(2, 2, 3, 4), normal(2, 2, 3, 4)
    shared, _ = attend(q, k, v, Mask(), 0.3)
    copied, _ = attend(q, np.repeat(k, 3, axis=1), np.repeat(v, 3, axis=1), Mask(), 0.3)
    np.testing.assert_allclose(shared, copied, rtol=0, atol=1e-14)


@BOTH
def test_a_mean_of_many_half_precision_values_does_not_stop_growing(attend, backward, backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        if attend is by_block:
            continue  # its block of 2 would take 2048 rounds; test_blockwise_attention.py has this law
        one = xp.ones((1, 1, n, 1), dtype=getattr(xp, name))
        y, saved = attend(one[:, :, :1, :], one, one, Mask(causal=False), 1.0)
        assert xp.to_numpy(y) == 1
        _, _, dv = backward(xp.ones_like(y), saved)
        np.testing.assert_array_equal(xp.to_numpy(dv), np.full((1, 1, n, 1), 1 / n))


def test_visible_tells_who_sees_whom(backend):
    xp = backend.xp
    assert xp.to_numpy(visible(Mask(start=1), 2, 4, xp)).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert xp.to_numpy(visible(Mask(start=1, window=2), 2, 4, xp)).astype(int).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    assert xp.to_numpy(visible(Mask(causal=False), 1, 2, xp)).astype(int).tolist() == [[1, 1]]
    valid = xp.from_numpy(np.array([[True, False], [True, True]]))
    assert xp.to_numpy(visible(Mask(valid=valid), 2, 2, xp)).astype(int).tolist() == [[[[1, 0], [1, 0]]], [[[1, 0], [1, 1]]]]
