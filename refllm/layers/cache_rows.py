"""Rows of a key-value cache: taken in another order, made of one, put in another's place, left empty.

Rows are aligned at the common length. A row put in place of another begins at length minus its own; its keys and values keep
the positions that they were computed for, since RoPE knows only where a token stands in its own row.
"""

from refllm.array_api import namespace
from refllm.layers.cache_blocks import an_array, each, empty_like, joined_blocks, put, span, with_rows
from refllm.layers.kv_cache import KVCache, Layer


def take_rows(cache: KVCache, rows) -> KVCache:
    """A cache of these rows, in this order, each as often as it is named; what all rows share they go on sharing.

    rows: (B',) int32 array, or a list
    """
    xp = namespace(_an_array_of(cache))
    begins = tuple(cache.begins[row] for row in rows) if cache.begins and isinstance(rows, list) else ()
    rows = xp.asarray(rows, dtype=xp.int32) if isinstance(rows, list) else rows
    n = rows.shape[0]

    def taken(block):
        return block if an_array(block).shape[0] == 1 else each(lambda a: xp.take(a, rows, axis=0), block)

    layers = tuple(
        held._replace(
            keys=tuple(map(taken, held.keys)),
            values=tuple(map(taken, held.values)),
            spare=held.spare if n == cache.rows else (),
        )
        for held in cache.layers
    )
    starts = None if cache.starts is None else xp.take(cache.starts, rows, axis=0)
    return cache._replace(layers=layers, rows=n, starts=starts, begin=min(begins, default=cache.begin), begins=begins)


def expand(cache: KVCache, B: int) -> KVCache:
    """B rows of a cache's one. They share its blocks, and copy the one they write to first.

    Raises ValueError where the cache has more rows than one.
    """
    if cache.rows != 1:
        raise ValueError(f"the cache has {cache.rows} rows; one row is expanded, and several are taken with take_rows.")
    return take_rows(cache, [0] * B)


def join(cache: KVCache, b: int, single: KVCache) -> KVCache:
    """The cache with `single`, a cache of one row, in place of row b; it is aligned at the common length.

    `single` stays as it was. Raises ValueError where it has more rows than one, other blocks, or is longer than the cache's room.
    """
    n = single.length - single.begin
    if single.rows != 1 or not 0 <= b < cache.rows:
        raise ValueError(f"a cache of {single.rows} rows cannot be row {b} of {cache.rows}; one row takes the place of one.")
    if single.quantised != cache.quantised or [held.window for held in single.layers] != [held.window for held in cache.layers]:
        raise ValueError("the two caches keep other layers, or only one of them in eight bits; make both for the same model.")
    if n > cache.room:
        raise ValueError(f"a row of {n} positions does not fit into a cache of {cache.room}; make a longer cache.")
    shift = cache.length - single.length
    layers = tuple(
        _with_row(cache, held, b, single, theirs, shift) for held, theirs in zip(cache.layers, single.layers, strict=True)
    )
    start = single.begin + shift if single.starts is None else single.starts + shift
    cache = cache._replace(layers=layers, owned=min(cache.owned, *(held.first * cache.size for held in layers)))
    return _beginning(cache, b, start, single.begin + shift, _an_array_of(single))


def vacate(cache: KVCache, b: int) -> KVCache:
    """The cache with nothing in row b, which so begins at the common length."""
    return _beginning(cache, b, cache.length, cache.length, _an_array_of(cache))


def _beginning(cache: KVCache, b: int, start, known: int, like) -> KVCache:
    """The cache whose row b begins at `start`, which is not before `known`."""
    xp = namespace(like)
    starts = xp.zeros((cache.rows,), dtype=xp.int32) if cache.starts is None else cache.starts
    starts = xp.where(xp.arange(cache.rows, dtype=xp.int32) == b, start, starts)
    begins = cache.begins or (cache.begin,) * cache.rows
    begins = (*begins[:b], known, *begins[b + 1 :])
    return cache._replace(starts=starts, begins=begins, begin=min(begins))


def _an_array_of(cache: KVCache):
    """Any array of a cache, which tells its backend."""
    held = cache.layers[0]
    return an_array((*held.keys, *(pair[0] for pair in held.spare))[0])


def _with_row(cache: KVCache, held: Layer, b: int, single: KVCache, theirs: Layer, shift: int) -> Layer:
    """A layer with `theirs`, of one row, in row b, whose positions are moved by `shift`. All its blocks are then its own."""
    size, here = cache.size, theirs.first * single.size
    start = max(single.begin, here)
    if held.window is not None:
        start = max(start, single.length - held.window - cache.slack)
    if not held.keys:
        held = held._replace(first=-(-cache.length // size))
    while held.first * size > start + shift:
        keys, values = (empty_like(blocks[0], cache.rows, size) for blocks in (theirs.keys, theirs.values))
        held = held._replace(keys=(keys, *held.keys), values=(values, *held.values), first=held.first - 1)
    blocks = [list(held.keys), list(held.values)]
    for mine, their_blocks in zip(blocks, (theirs.keys, theirs.values), strict=True):
        for slot, block in enumerate(mine):
            begin = (held.first + slot) * size
            row = empty_like(block, 1, size)  # what the row held before must not stay: 0 · NaN would be NaN
            if found := span(
                their_blocks, here, max(start, begin - shift), min(single.length, begin + size - shift), single.size
            ):
                row = put(row, max(start + shift, begin) - begin, joined_blocks(found))
            if begin < cache.owned or an_array(block).shape[0] != cache.rows:
                block = put(empty_like(block, cache.rows, size), 0, with_rows(block, cache.rows))
            mine[slot] = put(block, b, row, axis=0)
    return held._replace(keys=tuple(blocks[0]), values=tuple(blocks[1]))
