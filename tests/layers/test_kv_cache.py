"""The key-value cache: what is written in pieces is what was there together, whatever the blocks and the windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.layers.attention import Mask
from refllm.layers.cache_blocks import joined
from refllm.layers.kv_cache import KVCache, Layer, advance, extend, fork, rewind

WINDOWS = (None, 3)


def empty_cache(room, size=3, slack=0, rows=2):
    return KVCache(tuple(Layer(window=w) for w in WINDOWS), 0, size, room, rows, slack=slack)


def read(cache, xp, k, v, start, end):
    """Write positions start … end−1 of k and v: (layer, B, G, T, K), and check what the queries see."""
    for layer, window in enumerate(WINDOWS):
        new = (xp.from_numpy(a[layer, :, :, start:end]) for a in (k, v))
        cache, keys, values, mask = extend(cache, layer, *new, Mask(start, True, window))
        first = 0 if window is None else max(0, start - window + 1)
        for found, whole in ((keys, k), (values, v)):
            array = xp.to_numpy(joined(found, k.shape[1], xp.float32))
            np.testing.assert_array_equal(array, whole[layer, :, :, first:end])
        assert mask == Mask(start - first, True, window)
        assert cache.length == start  # advanced by the model, once a forward
    return advance(cache, end - start)


def drawn(total):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((2, 2, 3, total, 4)).astype(np.float32) for _ in range(2))  # layer first


@given(pieces=st.lists(st.integers(1, 7), min_size=1, max_size=6), size=st.integers(1, 5), slack=st.integers(0, 2))
def test_pieces_written_are_the_whole(pieces, size, slack):
    for name in ("numpy", "strict"):
        check_pieces(load(name).xp, pieces, size, slack)


def test_pieces_written_are_the_whole_on_every_backend(backend):
    check_pieces(backend.xp, [3, 1, 1, 4], 3, 1)


def check_pieces(xp, pieces, size, slack):
    total, written = sum(pieces), 0
    k, v = drawn(total)
    cache = empty_cache(total, size, slack)
    for T in pieces:
        cache = read(cache, xp, k, v, written, written + T)
        written += T
    assert cache.length == total


def test_a_full_cache_refuses_more_and_says_how_much_it_holds(backend):
    xp = backend.xp
    cache = empty_cache(4)._replace(length=3)
    new = xp.zeros((2, 3, 2, 4), dtype=xp.float32)
    with pytest.raises(ValueError, match="2 more positions do not fit into a cache of 4 that holds 3; make a longer cache"):
        extend(cache, 0, new, new, Mask(3))


@given(st.integers(1, 4), st.integers(1, 9), st.data())
def test_what_is_taken_back_and_what_a_fork_writes_changes_nothing_of_another(size, length, data):
    xp = load("numpy").xp
    k, v = drawn(16)
    cache = read(empty_cache(16, size, slack=9), xp, k, v, 0, length)
    kept, cache = fork(cache)
    back = data.draw(st.integers(0, length), label="back to")
    other_k, other_v = k.copy(), v.copy()
    other_k[:, :, :, back:] = other_v[:, :, :, back:] = 7
    cache = rewind(cache, back)
    for t in range(back, 16):
        cache = read(cache, xp, other_k, other_v, t, t + 1)
    for t in range(length, 16):
        kept = read(kept, xp, k, v, t, t + 1)


def test_a_window_refuses_to_go_back_farther_than_its_slack():
    xp = load("numpy").xp
    k, v = drawn(16)
    cache = read(empty_cache(16, size=1, slack=2), xp, k, v, 0, 10)
    rewind(cache, 8)
    with pytest.raises(
        ValueError, match=r"layer 1 sees 3 positions and keeps those from 5 on, so it cannot go back from 10 to 6"
    ):
        rewind(cache, 6)
    with pytest.raises(ValueError, match=r"the cache holds positions 0 … 10; it cannot go back to 11"):
        rewind(cache, 11)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 4))
def test_eight_bits_do_not_depend_on_the_chunks(pieces, size):
    xp = load("numpy").xp
    k, v = drawn(sum(pieces))

    def stored(cuts):
        cache = empty_cache(16, size)._replace(quantised=True)
        for T in cuts:
            where = slice(cache.length, cache.length + T)
            cache, *_ = extend(cache, 0, k[0, :, :, where], v[0, :, :, where], Mask(cache.length))
            cache = advance(cache, T)
        return [array for block in (*cache.layers[0].keys, *cache.layers[0].values) for array in block]

    for found, expected in zip(stored(pieces), stored([sum(pieces)]), strict=True):
        assert found.dtype in (xp.int8, xp.float32)
        np.testing.assert_array_equal(found, expected)


def test_a_window_of_one_position_goes_back_anywhere():
    """Its next query sees nothing of what was."""
    xp = load("numpy").xp
    cache = KVCache((Layer(window=1),), 0, 2, room=16, rows=1)
    for T, back in ((9, 3), (2, 5)):
        k = xp.zeros((1, 1, T, 1), dtype=xp.float32)
        cache = advance(extend(cache, 0, k, k, Mask(cache.length, True, 1))[0], T)
        cache = rewind(cache, back)
    k = xp.ones((1, 1, 1, 1), dtype=xp.float32)
    _, keys, _, _ = extend(cache, 0, k, k, Mask(5, True, 1))
    assert joined(keys, 1, xp.float32).tolist() == [[[[1.0]]]]
