"""Where the tokens of a call stand: their positions, the keys that they may see, and the cache that they extend."""

from typing import Any, NamedTuple

from refllm.array_api import namespace
from refllm.layers import kv_cache
from refllm.layers.attention import Mask, attention
from refllm.layers.cached_attention import cached_attention
from refllm.layers.kv_cache import KVCache, extend


class Output(NamedTuple):
    """What a model's forward returns."""

    logits: Any  # (B, T, V), or (B, last, V)
    cache: KVCache | None  # the cache with these tokens' keys and values in it; the one given must not be used again
    saved: Any  # what backward reads; None when a cache was given, since decoding never goes back
    auxiliary: Any = None  # a loss (), weighted, that training adds to the cross-entropy; None: nothing to add
    features: Any = None  # (B, T, D) or (B, last, D), what the head turns into logits


class Place(NamedTuple):
    """The tokens of one call among all positions."""

    positions: Any  # (T,), or (B, T) where rows are padded: how many valid tokens stand before each
    mask: Mask
    cache: KVCache | None  # the one given, its rows' beginnings moved behind the padding among these tokens


def place(tokens, cache: KVCache | None, valid, window: int | None, max_positions: int) -> Place:
    """Find the positions and the mask of tokens (B, T), which continue the cache if there is one.

    valid: (B, T) bool or None, False for padding, which nobody sees and which takes no position
    Raises ValueError where the tokens are not (B, T), or reach beyond max_positions or the cache's end.
    """
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; forward needs (B, T). For one sequence use tokens[None, :].")
    xp = namespace(tokens)
    B, T = tokens.shape
    begin, start = (0, 0) if cache is None else (cache.begin, cache.length)
    end = start + T
    if end - begin > max_positions:
        raise ValueError(
            f"the sequence is {end - begin} tokens long, but the model has max_positions={max_positions}; "
            f"shorten it by {end - begin - max_positions}."
        )
    if valid is not None and tuple(valid.shape) != (B, T):
        raise ValueError(f"valid has shape {tuple(valid.shape)}; it needs that of tokens, {(B, T)}.")
    if cache is not None:
        return _behind(_with_padding(cache, valid, xp, B, T), window, xp, T)
    if valid is None:
        positions = xp.arange(T, dtype=xp.int32)
    else:
        before = xp.astype(xp.cumulative_sum(xp.astype(valid, xp.int32), axis=1), xp.int32) - 1
        positions = xp.maximum(before, xp.zeros_like(before))  # padding at the left would stand at −1
    return Place(positions, Mask(start=0, causal=True, window=window, valid=valid), None)


def _with_padding(cache: KVCache, valid, xp, B: int, T: int) -> KVCache:
    """The cache, whose rows begin later by the padding among T new tokens. Raises ValueError where these do not fit it."""
    taken = cache.length - cache.begin
    if cache.rows != B or taken + T > cache.room:
        raise ValueError(
            f"tokens {(B, T)} do not fit the cache of {cache.rows} rows and {cache.room} positions, {taken} of them taken; "
            f"make one of at least {(B, taken + T)}."
        )
    if valid is None:
        return cache
    padding = xp.astype(xp.sum(xp.astype(~valid, xp.int32), axis=1), xp.int32)
    return cache._replace(starts=padding if cache.starts is None else cache.starts + padding)


def _behind(cache: KVCache, window: int | None, xp, T: int) -> Place:
    """The place of T tokens behind those of a cache. The mask counts keys from the first position that any layer keeps."""
    start, end = cache.length, cache.length + T
    if cache.starts is None:
        return Place(xp.arange(start, end, dtype=xp.int32), Mask(start, True, window), cache)
    kept = max(cache.begin, min(held.first for held in cache.layers) * cache.size)
    starts = cache.starts[:, None]
    positions = xp.arange(start, end, dtype=xp.int32)[None, :] - starts  # (B, T)
    valid = xp.arange(kept, end, dtype=xp.int32)[None, :] >= starts  # (B, end − kept)
    return Place(xp.maximum(positions, xp.zeros_like(positions)), Mask(start - kept, True, window, valid), cache)


def attend(q, k, v, mask: Mask, scale: float, cache: KVCache | None, layer: int, softcap: float | None = None):
    """Attention among the tokens of a call, and with those before them in the cache if there is one.

    q: (B, H, T, K)    k: (B, G, T, K)    v: (B, G, T, K)
    Returns y: (B, H, T, K), the cache with k and v in it, and what the backward pass needs, which a cache leaves out.
    """
    if cache is None:
        y, saved = attention(q, k, v, mask, scale, softcap)
        return y, None, saved
    cache, keys, values, mask = extend(cache, layer, k, v, mask)
    return cached_attention(q, keys, values, mask, scale, softcap), cache, None


def advance(cache: KVCache | None, T: int) -> KVCache | None:
    """The cache once every layer has written the keys and values of T more tokens."""
    return None if cache is None else kv_cache.advance(cache, T)


def last_positions(x, last: int | None):
    """x: (B, T, D) -> (B, last, D), all of them where last is None, and what the backward pass needs."""
    T = x.shape[1]
    if last is not None and not 1 <= last <= T:
        raise ValueError(f"last={last} asks for the logits of {last} positions; the tokens have {T}, so 1 … {T} can be had.")
    return x if last is None else x[:, T - last :, :], T


def last_positions_backward(dy, T: int):
    """dy: (B, last, D) -> dx: (B, T, D), zero where no logits were asked for."""
    B, last, D = dy.shape
    if last == T:
        return dy
    xp = namespace(dy)
    return xp.concat([xp.zeros((B, T - last, D), dtype=dy.dtype), dy], axis=1)
