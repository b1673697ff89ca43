"""The key-value cache: what attention reads of the past, kept so that each token is computed once (Shazeer 2019,
arXiv:1911.02150, section 2.4).

The buffers are allocated once, for the longest sequence. The caller owns the cache and rebinds it: `append` returns a
new one, which may reuse the buffers of the one it was given.
"""

from typing import Any, NamedTuple

from refllm.array_api import namespace


class KVCache(NamedTuple):
    """Keys and values of every layer, for the positions written so far."""

    keys: tuple  # one (B, G, S_max, K) per layer, turned by RoPE already
    values: tuple  # one (B, G, S_max, K) per layer
    length: int  # positions written so far
    valid: Any  # (B, S_max) bool or None: False marks padding


def append(cache: KVCache, layer: int, k, v):
    """Write the keys and values of T new positions of one layer behind those written so far.

    k: (B, G, T, K)    v: (B, G, T, K)
    Returns the cache, and the layer's keys: (B, G, S, K) and values: (B, G, S, K) up to the new ones, S = length + T.
    `length` stays: the model advances it once per forward, after its last layer.
    Raises ValueError if the buffers are too short.
    """
    xp = namespace(k)
    T, room = k.shape[2], cache.keys[layer].shape[2]
    S = cache.length + T
    if room < S:
        raise ValueError(f"{T} more positions do not fit into a cache of {room} that holds {cache.length}; make a longer cache.")
    key_buffer = xp.write(cache.keys[layer], cache.length, k, axis=2)
    value_buffer = xp.write(cache.values[layer], cache.length, v, axis=2)
    cache = cache._replace(
        keys=(*cache.keys[:layer], key_buffer, *cache.keys[layer + 1 :]),
        values=(*cache.values[:layer], value_buffer, *cache.values[layer + 1 :]),
    )
    return cache, key_buffer[:, :, :S, :], value_buffer[:, :, :S, :]
