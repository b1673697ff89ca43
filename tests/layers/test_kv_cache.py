"""The key-value cache: what is appended in pieces is what was there together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.layers.kv_cache import KVCache, append


def empty_cache(xp, length):
    def buffers():
        return tuple(xp.zeros((2, 3, length, 4), dtype=xp.float32) for _ in range(2))

    return KVCache(buffers(), buffers(), 0, None)


@given(pieces=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_pieces_appended_are_the_whole(pieces):
    for name in ("numpy", "strict"):
        check_pieces(load(name).xp, pieces)


def test_pieces_appended_are_the_whole_on_every_backend(backend):
    check_pieces(backend.xp, [3, 1, 1, 4])


def check_pieces(xp, pieces):
    rng, total = np.random.default_rng(0), sum(pieces)
    k, v = (rng.standard_normal((2, 2, 3, total, 4)).astype(np.float32) for _ in range(2))  # layer first
    cache, written = empty_cache(xp, total + 1), 0
    for T in pieces:
        for layer in range(2):
            new = (xp.from_numpy(a[layer, :, :, written : written + T]) for a in (k, v))
            cache, keys, values = append(cache, layer, *new)
            np.testing.assert_array_equal(xp.to_numpy(keys), k[layer, :, :, : written + T])
            np.testing.assert_array_equal(xp.to_numpy(values), v[layer, :, :, : written + T])
        assert cache.length == written  # advanced by the model, once a forward
        written += T
        cache = cache._replace(length=written)


def test_a_full_cache_refuses_more_and_says_how_much_it_holds(backend):
    xp = backend.xp
    cache = empty_cache(xp, 4)._replace(length=3)
    new = xp.zeros((2, 3, 2, 4), dtype=xp.float32)
    with pytest.raises(ValueError, match="2 more positions do not fit into a cache of 4 that holds 3; make a longer cache"):
        append(cache, 0, new, new)
