"""Rows of a cache: they come, go and change places, and see what they saw before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.layers.attention import Mask
from refllm.layers.cache_blocks import joined
from refllm.layers.cache_rows import expand, join, take_rows, vacate
from refllm.layers.kv_cache import KVCache, Layer, advance, extend, fork, n_bytes

SIZES = st.integers(1, 5)


def read(cache, xp, values, window=None):
    """Write values: (B, T) as keys and values; return the cache and what its queries see, (B, S)."""
    k = xp.from_numpy(np.asarray(values, dtype=np.float32)[:, None, :, None])
    cache, keys, _, _ = extend(cache, 0, k, k, Mask(cache.length, True, window))
    return advance(cache, k.shape[2]), xp.to_numpy(joined(keys, cache.rows, xp.float32))[:, 0, :, 0]


def cache_of(xp, values, size, window=None, room=40):
    values = np.asarray(values)
    cache = KVCache((Layer(window=window),), 0, size, room, rows=len(values))
    return read(cache, xp, values, window)[0] if values.size else cache


@given(SIZES, st.integers(1, 7), st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_rows_taken_are_those_rows(backend, size, T, rows):
    xp, values = backend.xp, np.arange(3 * T).reshape(3, T)
    for asked in (rows, xp.asarray(rows, dtype=xp.int32)):
        cache = take_rows(cache_of(xp, values, size), asked)
        assert cache.rows == len(rows)
        new = np.full((len(rows), 1), 99)
        np.testing.assert_array_equal(read(cache, xp, new)[1], np.concatenate([values[rows], new], axis=1))


@given(SIZES, st.integers(1, 7), st.integers(1, 4))
def test_an_expanded_row_is_every_row_and_its_whole_blocks_are_kept_once(backend, size, T, B):
    xp, values = backend.xp, np.arange(T)[None, :]
    cache = expand(cache_of(xp, values, size), B)
    assert n_bytes(cache) == 2 * 4 * size * -(-T // size)  # keys and values of one row, in float32
    new = np.arange(B)[:, None]
    cache, seen = read(cache, xp, new)
    np.testing.assert_array_equal(seen, np.concatenate([np.broadcast_to(values, (B, T)), new], axis=1))
    assert n_bytes(cache) == 2 * 4 * size * (T // size + B)


@given(SIZES, SIZES, st.integers(0, 7), st.integers(1, 9), st.sampled_from([None, 1, 3]))
def test_a_row_that_joins_sees_its_own_past_and_the_others_see_theirs(size, size_alone, T, n, window):
    for name in ("numpy", "strict"):
        xp, values, alone = load(name).xp, np.arange(2 * T).reshape(2, T), 100 + np.arange(n)[None, :]
        single = cache_of(xp, alone, size_alone, window)
        cache = join(cache_of(xp, values, size, window), 1, single)
        assert xp.to_numpy(cache.starts).tolist() == [0, T - n]
        assert cache.begin == min(0, T - n)
        _, seen = read(cache, xp, [[8], [9]], window)
        before = 0 if window is None else window - 1
        own, theirs = ([*alone[0], 9], [*values[0], 8])
        own, theirs = (row if window is None else row[-before - 1 :] for row in (own, theirs))
        assert seen[1].tolist()[-len(own) :] == own
        assert seen[0].tolist()[-len(theirs) :] == theirs
        np.testing.assert_array_equal(read(single, xp, [[7]], window)[1][0][-1:], [7])  # which is as it was


def test_what_a_row_held_before_another_joins_is_gone():
    """Not a number times a weight of zero would not be a number."""
    xp = load("numpy").xp
    cache = cache_of(xp, np.full((2, 3), np.nan), 4)
    _, seen = read(join(cache, 0, cache_of(xp, [[5]], 4)), xp, [[1], [2]])
    assert seen[0].tolist() == [0, 0, 5, 1]


def test_the_beginning_follows_the_rows_that_are_left():
    xp = load("numpy").xp
    cache = cache_of(xp, np.arange(16).reshape(2, 8), 2)
    cache = vacate(cache, 0)
    assert cache.begin == 0
    cache = join(cache, 1, cache_of(xp, [[1, 2, 3]], 2))
    assert (cache.begin, cache.begins) == (5, (8, 5))
    cache, _ = read(cache, xp, [[1], [2]])
    (held,) = cache.layers
    assert held.first == 2  # positions from 4 on are kept
    assert len(held.keys) + len(held.spare) == 4, "one of the blocks before serves again: none is new"


def test_a_fork_is_untouched_by_what_joins_the_other():
    xp = load("numpy").xp
    cache, kept = fork(cache_of(xp, np.arange(6).reshape(2, 3), 2))
    join(cache, 0, cache_of(xp, [[7, 8, 9]], 2))
    np.testing.assert_array_equal(read(kept, xp, [[5], [5]])[1], [[0, 1, 2, 5], [3, 4, 5, 5]])


def test_rows_that_cannot_join_are_refused():
    xp = load("numpy").xp
    cache, two = cache_of(xp, [[1], [2]], 2, room=3), cache_of(xp, [[1], [2]], 2)
    with pytest.raises(ValueError, match="a cache of 2 rows cannot be row 0 of 2; one row takes the place of one"):
        join(cache, 0, two)
    with pytest.raises(ValueError, match="a cache of 1 rows cannot be row 2 of 2"):
        join(cache, 2, cache_of(xp, [[1]], 2))
    with pytest.raises(ValueError, match="a row of 4 positions does not fit into a cache of 3; make a longer cache"):
        join(cache, 0, cache_of(xp, [[1, 2, 3, 4]], 2))
    with pytest.raises(ValueError, match="the two caches keep other layers, or only one of them in eight bits"):
        join(cache, 0, cache_of(xp, [[1]], 2, window=1))
    with pytest.raises(ValueError, match="the cache has 2 rows; one row is expanded, and several are taken with take_rows"):
        expand(cache, 3)


def test_two_forks_that_go_on_in_turn_share_no_spare_block():
    xp = load("numpy").xp
    spare = tuple((xp.zeros((1, 1, 2, 1), dtype=xp.float32), xp.zeros((1, 1, 2, 1), dtype=xp.float32)) for _ in range(4))
    cache, _ = read(KVCache((Layer(spare=spare),), 0, 2, room=8, rows=1), xp, [[0, 1]])
    one, other = fork(cache)
    for t in range(2, 6):
        one, seen = read(one, xp, [[t]])
        other, seen_by_other = read(other, xp, [[10 * t]])
        assert seen[0].tolist() == list(range(t + 1))
        assert seen_by_other[0].tolist() == [0, 1, *range(20, 10 * t + 1, 10)]


def test_a_fork_copies_the_block_that_it_writes_to_once():
    xp = load("numpy").xp
    cache, _ = fork(cache_of(xp, [[0, 1, 2]], 8))
    shared = cache.layers[0].keys[0].ctypes.data
    cache, _ = read(cache, xp, [[3]])
    own = cache.layers[0].keys[0].ctypes.data
    cache, _ = read(cache, xp, [[4]])
    assert shared != own == cache.layers[0].keys[0].ctypes.data


@given(SIZES, st.integers(1, 9), st.sampled_from([1, 2, 5]))
def test_expanded_rows_outlive_the_blocks_that_they_shared(size, T, window):
    xp, past = load("numpy").xp, [list(range(T))] * 3
    cache = expand(cache_of(xp, past[:1], size, window), 3)
    for t in range(12):
        new = [[100 * b + t] for b in range(3)]
        cache, seen = read(cache, xp, new, window)
        past = [[*row, *x] for row, x in zip(past, new, strict=True)]
        assert seen.tolist() == [row[-window:] for row in past]


def test_rows_taken_begin_where_they_began():
    xp = load("numpy").xp
    cache = join(cache_of(xp, [[1], [2]], 2), 0, cache_of(xp, [[5, 6, 7, 8]], 2))
    assert cache.begin == -3
    for rows, begin in (([0, 1], -3), ([1, 1], 0), (xp.asarray([0, 1], dtype=xp.int32), -3)):
        assert take_rows(cache, rows).begin == begin
