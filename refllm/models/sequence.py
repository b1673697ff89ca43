"""Where the tokens of a call stand: their positions, the keys that they may see, and the cache that they extend."""

from typing import Any, NamedTuple

from refllm.array_api import namespace
from refllm.layers.attention import Mask
from refllm.layers.kv_cache import KVCache


class Output(NamedTuple):
    """What a model's forward returns."""

    logits: Any  # (B, T, V), or (B, last, V)
    cache: KVCache | None  # the cache with these tokens' keys and values in it; the one given must not be used again
    saved: Any  # what backward reads; None when a cache was given, since decoding never goes back
    auxiliary: Any = None  # a loss (), weighted, that training adds to the cross-entropy; None: nothing to add


class Place(NamedTuple):
    """The tokens of one call among all positions."""

    positions: Any  # (T,), or (B, T) where rows are padded: how many valid tokens stand before each
    mask: Mask
    cache: KVCache | None  # the one given, and which of these tokens are valid


def place(tokens, cache: KVCache | None, valid, window: int | None, max_positions: int) -> Place:
    """Find the positions and the mask of tokens (B, T), which continue the cache if there is one.

    valid: (B, T) bool or None, False for padding, which nobody sees and which takes no position
    Raises ValueError where the tokens are not (B, T), or reach beyond max_positions or the cache's end.
    """
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; forward needs (B, T). For one sequence use tokens[None, :].")
    xp = namespace(tokens)
    B, T = tokens.shape
    start = 0 if cache is None else cache.length
    end = start + T
    if end > max_positions:
        raise ValueError(
            f"the sequence is {end} tokens long, but the model has max_positions={max_positions}; "
            f"shorten it by {end - max_positions}."
        )
    if valid is not None and tuple(valid.shape) != (B, T):
        raise ValueError(f"valid has shape {tuple(valid.shape)}; it needs that of tokens, {(B, T)}.")
    if cache is not None:
        cache, valid = _mark_valid(cache, valid, xp, B, T)
    if valid is None:
        positions = xp.arange(start, end, dtype=xp.int32)
    else:
        before = xp.astype(xp.cumulative_sum(xp.astype(valid, xp.int32), axis=1), xp.int32)[:, start:] - 1
        positions = xp.maximum(before, xp.zeros_like(before))  # padding at the left would stand at −1
    return Place(positions, Mask(start=start, causal=True, window=window, valid=valid), cache)


def _mark_valid(cache: KVCache, valid, xp, B: int, T: int):
    """Write into the cache which of the T tokens after it are valid; return it and that of all positions, (B, S) or None."""
    rows, _, room, _ = cache.keys[0].shape
    end = cache.length + T
    if rows != B or end > room:
        raise ValueError(
            f"tokens {(B, T)} do not fit the cache of {rows} rows and {room} positions, {cache.length} of them taken; "
            f"make one of at least {(B, end)}."
        )
    if cache.valid is None and valid is None:
        return cache, None
    known = xp.ones((B, room), dtype=xp.bool) if cache.valid is None else cache.valid
    valid = xp.ones((B, T), dtype=xp.bool) if valid is None else valid
    known = xp.write(known, cache.length, valid, axis=1)
    return cache._replace(valid=known), known[:, :end]


def advance(cache: KVCache | None, T: int) -> KVCache | None:
    """The cache once every layer has written the keys and values of T more tokens."""
    return None if cache is None else cache._replace(length=cache.length + T)


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
