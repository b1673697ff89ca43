"""Attention over blocks: the answer is that of the blocks joined."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import OPS, kernels, load
from refllm.conformance import vectors
from refllm.layers.attention import Mask, attention
from refllm.layers.cache_blocks import dequantise, quantise
from refllm.layers.cached_attention import cached_attention


@st.composite
def steps(draw):
    """New queries, and the keys and values of all positions as they are cut into blocks, some with one row for all."""
    B, G, R, K = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    sizes, rng = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    S = sum(sizes)
    T = min(draw(st.sampled_from([1, 1, 2])), S)
    shared = [draw(st.booleans()) for _ in sizes]
    keys, values = (
        tuple(rng.standard_normal((1 if one else B, G, s, K)) for s, one in zip(sizes, shared, strict=True)) for _ in range(2)
    )
    valid = rng.random((B, S)) < 0.7 if draw(st.booleans()) else None
    mask = Mask(S - T, draw(st.booleans()), draw(st.sampled_from([None, 1, 3])), valid)
    return rng.standard_normal((B, G * R, T, K)), keys, values, mask, 0.7, draw(st.sampled_from([None, 1.5]))


def joined(blocks, B):
    return np.concatenate([np.broadcast_to(b, (B, *b.shape[1:])) for b in blocks], axis=2)


@pytest.mark.parametrize("table", ["kernels", "plain"])
@given(step=steps())
def test_blocks_change_no_answer(table, step):
    q, keys, values, *how = step
    expected, _ = OPS["attention"].reference(q, joined(keys, len(q)), joined(values, len(q)), *how)
    numpy = load("numpy")
    with kernels(numpy, numpy.kernels if table == "kernels" else {}):
        found = cached_attention(q, keys, values, *how)
    assert found.shape == q.shape
    assert np.all(np.abs(found - expected) <= vectors.EXACT)


@given(step=steps())
def test_blocks_change_no_answer_on_any_backend(backend, step):
    xp = backend.xp
    q, keys, values, mask, *how = step
    mask = mask if mask.valid is None else mask._replace(valid=xp.from_numpy(mask.valid))
    q, *blocks = (xp.from_numpy(a, xp.float32) for a in (q, *keys, *values))
    n = len(keys)
    found = cached_attention(q, tuple(blocks[:n]), tuple(blocks[n:]), mask, *how)
    whole = (xp.from_numpy(joined(step[i], step[0].shape[0]), xp.float32) for i in (1, 2))
    expected, _ = attention(q, *whole, mask, *how)
    error = np.abs(xp.to_numpy(found) - xp.to_numpy(expected))
    assert np.all(error <= 2.0**-23 * 64 * (1 + np.abs(xp.to_numpy(expected))))


@given(step=steps())
def test_eight_bits_are_attended_as_the_numbers_that_they_stand_for(backend, step):
    xp = backend.xp
    q, keys, values, mask, *how = step
    mask = mask if mask.valid is None else mask._replace(valid=xp.from_numpy(mask.valid))
    q = xp.from_numpy(q, xp.float32)
    keys, values = (tuple(quantise(xp.from_numpy(b, xp.float32)) for b in blocks) for blocks in (keys, values))
    plain = (tuple(dequantise(b, xp.float32) for b in blocks) for blocks in (keys, values))
    found, expected = cached_attention(q, keys, values, mask, *how), cached_attention(q, *plain, mask, *how)
    error = np.abs(xp.to_numpy(found) - xp.to_numpy(expected))
    assert np.all(error <= 2.0**-23 * 64 * (1 + np.abs(xp.to_numpy(expected))))


def test_one_query_joins_no_blocks():
    rng = np.random.default_rng(0)
    keys, values = (tuple(rng.standard_normal((1, 2, 64, 64)).astype(np.float32) for _ in range(16)) for _ in range(2))
    q = rng.standard_normal((1, 2, 1, 64)).astype(np.float32)
    numpy = load("numpy")
    with kernels(numpy, numpy.kernels):
        cached_attention(q, keys, values, Mask(1023), 0.125)
        tracemalloc.start()
        cached_attention(q, keys, values, Mask(1023), 0.125)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < sum(k.nbytes for k in keys) / 8
