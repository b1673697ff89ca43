"""Blocks of a cache: in eight bits an element is off by half a step at most, and a span of blocks is one of the whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refllm.array_api import load
from refllm.layers.cache_blocks import bytes_of, dequantise, joined, piece, quantise, span

BLOCK = arrays.arrays(np.float32, (1, 2, 3, 4), elements=st.floats(-(2.0**20), 2.0**20, width=32))


@given(x=BLOCK)
def test_an_element_in_eight_bits_is_off_by_half_a_step_at_most(backend, x):
    xp = backend.xp
    for name in ("float16", "bfloat16", "float32", "float64"):
        if name in xp.dtypes():
            block = xp.from_numpy(np.clip(x, -60_000, 60_000), getattr(xp, name))
            exact = xp.to_numpy(block).astype(np.float64)
            found = xp.to_numpy(dequantise(quantise(block), block.dtype))
            assert found.shape == exact.shape
            eps = float(xp.finfo(block.dtype).eps)
            largest = np.max(np.abs(exact), axis=-1, keepdims=True)
            tiny = 255 * float(xp.finfo(block.dtype).smallest_normal)  # where products are no ordinary numbers
            assert np.all(np.abs(found - exact) <= largest * (1 / 254 + 4 * eps) + tiny)


@given(x=BLOCK)
def test_codes_are_symmetric_and_reach_127(backend, x):
    xp = backend.xp
    codes, scales = quantise(xp.from_numpy(x))
    negated, same = quantise(xp.from_numpy(-x))
    assert codes.dtype == xp.int8
    np.testing.assert_array_equal(xp.to_numpy(negated), -xp.to_numpy(codes))
    np.testing.assert_array_equal(xp.to_numpy(same), xp.to_numpy(scales))
    ordinary = np.max(np.abs(x), axis=-1) > 1e-30
    reached = np.max(np.abs(xp.to_numpy(codes).astype(np.int32)), axis=-1)
    assert np.all(reached[ordinary] == 127)


def test_zeros_stay_zeros_in_eight_bits(backend):
    xp = backend.xp
    zeros = xp.zeros((1, 1, 2, 3), dtype=xp.float32)
    assert not np.any(xp.to_numpy(dequantise(quantise(zeros), xp.float32)))


@given(st.integers(1, 4), st.data())
def test_a_span_of_blocks_is_that_of_the_whole(size, data):
    first, n = data.draw(st.integers(-5, 5)) * size, data.draw(st.integers(1, 4))
    whole = np.random.default_rng(0).standard_normal((2, 1, n * size, 3))
    blocks = tuple(whole[:, :, i * size : (i + 1) * size] for i in range(n))
    start = data.draw(st.integers(first, first + n * size))
    stop = data.draw(st.integers(start, first + n * size))
    found = span(blocks, first, start, stop, size)
    assert len(found) <= n
    expected = whole[:, :, start - first : stop - first]
    assert not found if start == stop else np.array_equal(joined(found, 2, None), expected)


def test_a_quantised_block_takes_a_byte_a_number_and_four_a_vector(backend):
    xp = backend.xp
    x = xp.ones((2, 3, 5, 8), dtype=xp.float32)
    assert bytes_of(x) == 4 * 2 * 3 * 5 * 8
    assert bytes_of(quantise(x)) == 2 * 3 * 5 * (8 + 4)
    assert bytes_of(piece(quantise(x), 1, 3)) == 2 * 3 * 2 * (8 + 4)


def test_positions_are_quantised_alone():
    """So a block does not depend on the chunks that it was written in, by a single bit."""
    x = load("numpy").xp.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 7, 4)).astype(np.float32))
    whole = quantise(x)
    for t in range(7):
        for one, all_of_them in zip(quantise(x[:, :, t : t + 1]), piece(whole, t, t + 1), strict=True):
            np.testing.assert_array_equal(one, all_of_them)
