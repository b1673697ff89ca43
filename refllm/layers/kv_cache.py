"""The key-value cache: what attention reads of the past, kept so that each token is computed once (Shazeer 2019,
arXiv:1911.02150, section 2.4), in blocks that several caches may share (Kwon 2023, arXiv:2309.06180).

A layer's keys and values lie in blocks of `size` positions. Blocks behind the windows of all later queries are given up and
serve again, so a layer with a window keeps no more than that, a block and the slack.
The cache is a value that the caller rebinds: every function returns a new one, which may reuse the buffers of the one it was
given, and that one must not be used again. To keep one, `fork` it. Rows are taken, joined and left in cache_rows.py.
"""

from typing import Any, NamedTuple

from refllm.layers.attention import Mask
from refllm.layers.cache_blocks import an_array, bytes_of, empty_like, piece, put, quantise, span, with_rows


class Layer(NamedTuple):
    """What one layer keeps."""

    keys: tuple = ()  # blocks along the positions, each (B or 1, G, size, K), turned by RoPE already; or Quantised
    values: tuple = ()  # the same
    first: int = 0  # number of the first block kept: it holds the positions from first · size on
    spare: tuple = ()  # pairs of blocks, for keys and for values, that are allocated and not in use
    window: int | None = None  # how many positions back its queries see, their own included; None: all


class KVCache(NamedTuple):
    """Keys and values of every layer. Rows are aligned at their ends: what is at their left differs in length."""

    layers: tuple  # of Layer
    length: int  # positions written so far, counted in common for all rows
    size: int  # positions of a block
    room: int  # the most positions that any row may reach
    rows: int  # B
    starts: Any = None  # (B,) int32: the position at which each row begins; nobody sees what stands before. None: all at 0
    begin: int = 0  # a position before which no row begins: the least of the starts, as far as the host knows
    begins: tuple[int, ...] = ()  # the same for each row; empty: `begin` for all
    owned: int = 0  # blocks that begin before this position may be shared with another cache; they are copied before a write
    slack: int = 0  # positions kept behind a window, so that so many can be taken back
    quantised: bool = False  # whether keys and values are kept in eight bits


def extend(cache: KVCache, layer: int, k, v, mask: Mask):
    """Write the keys and values of T new positions of one layer behind those written so far.

    k: (B, G, T, K)    v: (B, G, T, K)    mask: of the new queries; the keys of its `valid` begin at position length − start
    Returns the cache, blocks of the keys and of the values that the first query or a later one sees, in the order of positions
    and up to the last new one, and the mask relative to these.
    `length` stays: the model advances it once per forward, after its last layer.
    Raises ValueError where a row would outgrow the cache, and for another window than the layer's.
    """
    held, start, size, T = cache.layers[layer], cache.length, cache.size, k.shape[2]
    window, end, base = held.window, start + T, start - mask.start
    if end - cache.begin > cache.room:
        held_now = start - cache.begin
        raise ValueError(
            f"{T} more positions do not fit into a cache of {cache.room} that holds {held_now}; make a longer cache."
        )
    if mask.window != window:
        raise ValueError(
            f"layer {layer} of the cache has window={window}, and its queries window={mask.window}; make them equal."
        )
    if cache.quantised:
        k, v = quantise(k), quantise(v)
    seen = cache.begin if window is None else max(cache.begin, start - window + 1)  # the first position that any query sees
    wanted = cache.begin if window is None else max(cache.begin, end - window - cache.slack)  # … that any later query may want
    held, unseen = behind(cache, held, wanted)
    if T == 1:
        held = written(cache, spared(cache, held, unseen), k, v, start)
        keys, values = (span(blocks, held.first * size, seen, end, size) for blocks in (held.keys, held.values))
    else:  # blocks that nobody wants any more are spare only afterwards, for this call's queries may still see them
        before, skipped = cache.layers[layer], max(0, wanted // size * size - start)
        keys = (*span(before.keys, before.first * size, seen, start, size), k)
        values = (*span(before.values, before.first * size, seen, start, size), v)
        k, v = piece(k, skipped, T), piece(v, skipped, T)
        held = spared(cache, written(cache, held, k, v, start + skipped), unseen)
    if held is not cache.layers[layer]:
        cache = cache._replace(layers=(*cache.layers[:layer], held, *cache.layers[layer + 1 :]))
    valid = None if mask.valid is None else mask.valid[:, seen - base :]
    return cache, keys, values, Mask(start - seen, mask.causal, window, valid)


def behind(cache: KVCache, held: Layer, wanted: int) -> tuple[Layer, tuple]:
    """A layer without the blocks that end before a position, and those of them that no other cache shares."""
    n = wanted // cache.size - held.first
    if n <= 0:
        return held, ()
    shared = max(0, -(-cache.owned // cache.size) - held.first)  # so many blocks begin before `owned`
    gone = tuple(zip(held.keys[shared:n], held.values[shared:n], strict=True))
    return held._replace(keys=held.keys[n:], values=held.values[n:], first=held.first + n), gone


def spared(cache: KVCache, held: Layer, blocks: tuple) -> Layer:
    """A layer with more spare blocks, but no more in all than it can need; those that its rows share are no use."""
    if not blocks:
        return held
    reach = cache.room if held.window is None else min(cache.room, held.window + cache.slack)
    most = most_blocks(reach, cache.size) - len(held.keys)
    usable = tuple(pair for pair in blocks if an_array(pair[0]).shape[0] == cache.rows)
    return held._replace(spare=(*held.spare, *usable)[: max(0, most)])


def most_blocks(positions: int, size: int) -> int:
    """In how many blocks of a size so many consecutive positions may lie."""
    return (positions + size - 2) // size + 1


def written(cache: KVCache, held: Layer, k, v, start: int) -> Layer:
    """A layer with k and v: (B, G, T, K), or Quantised, written from position `start` on, which is its end."""
    slot, at, T = start // cache.size - held.first, start % cache.size, an_array(k).shape[2]
    while at + T > cache.size:
        n = cache.size - at
        held = filled(cache, held, slot, at, piece(k, 0, n), piece(v, 0, n))
        k, v, slot, at, T = piece(k, n, T), piece(v, n, T), slot + 1, 0, T - n
    return filled(cache, held, slot, at, k, v)


def filled(cache: KVCache, held: Layer, slot: int, at: int, k, v) -> Layer:
    """A layer with k and v written into one pair of its blocks, or into the one that follows these."""
    if slot == len(held.keys):
        held = lengthened(cache, held, k, v)
    elif (held.first + slot) * cache.size < cache.owned or an_array(held.keys[slot]).shape[0] != cache.rows:
        held = copied(cache, held, slot)
    old_keys, old_values = held.keys[slot], held.values[slot]
    keys, values = put(old_keys, at, k), put(old_values, at, v)
    return held if keys is old_keys and values is old_values else replaced(held, slot, keys, values)


def replaced(held: Layer, slot: int, keys, values) -> Layer:
    """A layer with other blocks in a place."""
    return held._replace(
        keys=(*held.keys[:slot], keys, *held.keys[slot + 1 :]), values=(*held.values[:slot], values, *held.values[slot + 1 :])
    )


def unused(cache: KVCache, held: Layer, k, v) -> tuple[Layer, Any, Any]:
    """A layer without a spare pair of blocks, and the pair; a new one for keys like k and values like v where none is spare."""
    if not held.spare:
        return held, empty_like(k, cache.rows, cache.size), empty_like(v, cache.rows, cache.size)
    return held._replace(spare=held.spare[1:]), *held.spare[0]


def lengthened(cache: KVCache, held: Layer, k, v) -> Layer:
    """A layer with one more pair of blocks."""
    held, keys, values = unused(cache, held, k, v)
    return held._replace(keys=(*held.keys, keys), values=(*held.values, values))


def copied(cache: KVCache, held: Layer, slot: int) -> Layer:
    """A layer in which a pair of blocks that other caches or all rows share is the rows' own."""
    old = held.keys[slot], held.values[slot]
    held, *new = unused(cache, held, *old)
    keys, values = (put(fresh, 0, with_rows(shared, cache.rows)) for fresh, shared in zip(new, old, strict=True))
    return replaced(held, slot, keys, values)


def advance(cache: KVCache, T: int) -> KVCache:
    """The cache once every layer has written T new positions. The blocks that hold them are its own."""
    return cache._replace(length=cache.length + T, owned=min(cache.owned, cache.length // cache.size * cache.size))


def fork(cache: KVCache) -> tuple[KVCache, KVCache]:
    """Two caches in place of one; each may go on by itself. They share their blocks, and copy the one they write to first."""
    cache = cache._replace(owned=cache.length)
    return cache, cache._replace(layers=tuple(held._replace(spare=()) for held in cache.layers))


def rewind(cache: KVCache, length: int) -> KVCache:
    """Forget the positions from `length` on.

    Raises ValueError for a length that is not among those of the cache, or whose next query would see what a window has dropped.
    """
    if not cache.begin <= length <= cache.length:
        raise ValueError(f"the cache holds positions {cache.begin} … {cache.length}; it cannot go back to {length}.")
    layers = []
    for i, held in enumerate(cache.layers):
        here = held.first * cache.size
        seen = cache.begin if held.window is None else max(cache.begin, length - held.window + 1)
        if seen < min(here, length):
            raise ValueError(
                f"layer {i} sees {held.window} positions and keeps those from {here} on, so it cannot go back from "
                f"{cache.length} to {length}; make the cache with slack={cache.length - length} at least."
            )
        n = max(0, -(-length // cache.size) - held.first)
        shared = max(n, -(-cache.owned // cache.size) - held.first)
        gone = tuple(zip(held.keys[shared:], held.values[shared:], strict=True))
        first = min(held.first, length // cache.size)
        layers.append(spared(cache, held._replace(keys=held.keys[:n], values=held.values[:n], first=first), gone))
    return cache._replace(layers=tuple(layers), length=length, owned=min(cache.owned, length))


def n_bytes(cache: KVCache) -> int:
    """Bytes of all blocks, in use and spare. Those shared with another cache count in each."""
    blocks = [b for held in cache.layers for b in (*held.keys, *held.values, *(b for pair in held.spare for b in pair))]
    return sum(bytes_of(block) for block in blocks)
