"""Attention a block at a time: the same for any block, in memory that does not grow with T². Gradients: test_attention.py."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.strategies import normals, truths
from refllm.layers.attention import Mask, attention, attention_backward
from refllm.layers.blockwise_attention import blockwise_attention, blockwise_attention_backward, part, visible_blocks


@given(st.data())
def test_any_block_gives_what_plain_attention_gives(data):
    T, start, extra, block = (data.draw(st.integers(low, high)) for low, high in ((1, 7), (0, 4), (0, 2), (1, 12)))
    q, k, v = (
        data.draw(normals((2, heads, n, 3))).astype(np.float64)
        for heads, n in ((4, T), (2, start + T + extra), (2, start + T + extra))
    )
    valid = data.draw(truths((2, start + T + extra))) if data.draw(st.booleans()) else None
    mask = Mask(start, data.draw(st.booleans()), data.draw(st.sampled_from([None, 1, 3])), valid)
    softcap = data.draw(st.sampled_from([None, 0.5, 2.0]))
    y, saved = attention(q, k, v, mask, 0.5, softcap)
    z, saved_by_block = blockwise_attention(q, k, v, mask, 0.5, block, softcap)
    np.testing.assert_allclose(z, y, rtol=0, atol=1e-13)
    for ours, plain in zip(blockwise_attention_backward(y, saved_by_block), attention_backward(y, saved), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-12)


def peak(T, attend, backward, *block):
    """The most bytes allocated at a time by a forward and backward over T positions, beyond its inputs."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, heads, T, 4)).astype(np.float32) for heads in (2, 1, 1))
    tracemalloc.start()
    try:
        y, saved = attend(q, k, v, Mask(), 0.5, *block)
        backward(y, saved)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_length_not_with_its_square():
    short, long = (peak(T, blockwise_attention, blockwise_attention_backward, 32) for T in (256, 512))
    assert long < 2.5 * short
    assert long < 0.25 * peak(512, attention.reference, attention_backward.reference)


def test_pairs_of_blocks_in_which_nobody_sees_anybody_are_passed_over():
    def indices(mask, query):
        return [index for index, *_ in visible_blocks(mask, query, query + 4, 16, 4)]

    assert [indices(Mask(), query) for query in (0, 4, 12)] == [[0], [0, 1], [0, 1, 2, 3]]
    assert [indices(Mask(window=4), query) for query in (0, 8, 12)] == [[0], [1, 2], [2, 3]]
    assert [indices(Mask(window=1), query) for query in (0, 8, 12)] == [[0], [2], [3]]
    assert indices(Mask(causal=False), 0) == [0, 1, 2, 3]


def test_a_part_of_a_mask_is_the_mask_of_a_part():
    valid = np.array([[True, False, True, True]])
    mask = part(Mask(start=2, window=3, valid=valid), query=1, key=2, key_stop=4)
    assert mask[:3] == (1, True, 3)
    np.testing.assert_array_equal(mask.valid, [[True, True]])


def test_a_mean_of_many_half_precision_values_does_not_stop_growing(backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        one = xp.ones((1, 1, n, 1), dtype=getattr(xp, name))
        y, saved = blockwise_attention(one[:, :, :1, :], one, one, Mask(causal=False), 1.0, 256)
        assert xp.to_numpy(y) == 1
        _, _, dv = blockwise_attention_backward(xp.ones_like(y), saved)
        np.testing.assert_array_equal(xp.to_numpy(dv), np.full((1, 1, n, 1), 1 / n))


def test_a_block_of_nothing_is_refused():
    x = np.zeros((1, 1, 2, 2))
    with pytest.raises(ValueError, match="block is 0"):
        blockwise_attention(x, x, x, Mask(), 1.0, 0)
