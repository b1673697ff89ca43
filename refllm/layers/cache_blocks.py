"""Blocks of a key-value cache: keys or values of some consecutive positions, whole or in eight bits.

    code = round(x / scale)          scale = max_K |x| / 127, one for each position and head          x ≈ code · scale

So an element is off by at most half a step, max_K |x| / 254 (symmetric quantisation: Jacob 2017, arXiv:1712.05877; by token
and head for keys and values: Sheng 2023, arXiv:2303.06865).
A block is an array (B, G, s, K), or `Quantised`. With one row it is shared by all rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refllm.array_api import namespace
from refllm.layers.precision import widen

LARGEST = 127.0  # code; −128 is left out, so that −x has the codes of x, negated


class Quantised(NamedTuple):
    """A block in eight bits."""

    codes: Any  # (B, G, s, K) int8
    scales: Any  # (B, G, s, 1), float32 at least


def each(f: Callable, *blocks):
    """f of the blocks' arrays: of codes and scales in turn where they are quantised."""
    return Quantised(*map(f, *blocks)) if isinstance(blocks[0], Quantised) else f(*blocks)


def an_array(block):
    """The array (B, G, s, …) that tells a block's backend, rows and positions."""
    return block.codes if isinstance(block, Quantised) else block


def quantise(x) -> Quantised:
    """x: (B, G, s, K) in eight bits."""
    xp = namespace(x)
    wide = widen(x)
    scales = xp.max(xp.abs(wide), axis=-1, keepdims=True) / LARGEST  # (B, G, s, 1)
    codes = xp.round(wide / xp.where(scales > 0, scales, 1.0))
    return Quantised(xp.astype(codes, xp.int8), scales)


def dequantise(block, dtype):
    """A block as an array (B, G, s, K) of that dtype."""
    if not isinstance(block, Quantised):
        return block
    xp = namespace(block.codes)
    return xp.astype(xp.astype(block.codes, block.scales.dtype) * block.scales, dtype)


def piece(block, start: int, stop: int):
    """A view of positions start … stop−1 of a block."""
    if isinstance(block, Quantised):
        return Quantised(piece(block.codes, start, stop), piece(block.scales, start, stop))
    return block[:, :, start:stop, :]


def put(block, start: int, value, axis: int = 2):
    """A block with value written from `start` on along an axis; may reuse the block."""
    if isinstance(block, Quantised):
        return Quantised(put(block.codes, start, value.codes, axis), put(block.scales, start, value.scales, axis))
    return namespace(block).write(block, start, value, axis)


def empty_like(block, rows: int, size: int):
    """A block of zeros with a block's heads and width, and other rows and positions."""
    return each(lambda a: namespace(a).zeros((rows, a.shape[1], size, a.shape[3]), dtype=a.dtype), block)


def with_rows(block, rows: int):
    """A block as seen by so many rows: itself, or its one row for each of them."""
    return each(lambda a: a if a.shape[0] == rows else namespace(a).broadcast_to(a, (rows, *a.shape[1:])), block)


def span(blocks: tuple, first: int, start: int, stop: int, size: int) -> tuple:
    """The positions start … stop−1 of consecutive blocks of `size` positions, of which the first begins at position `first`."""
    if stop <= start:
        return ()
    i, j = (start - first) // size, (stop - 1 - first) // size
    if i == j:
        first += i * size
        return (piece(blocks[i], start - first, stop - first),)
    return (piece(blocks[i], start - first - i * size, size), *blocks[i + 1 : j], piece(blocks[j], 0, stop - first - j * size))


def joined_blocks(blocks: Sequence):
    """Consecutive blocks as one."""
    return blocks[0] if len(blocks) == 1 else each(lambda *arrays: namespace(arrays[0]).concat(list(arrays), axis=2), *blocks)


def joined(blocks: Sequence, rows: int, dtype):
    """Consecutive blocks as one array: (rows, G, S, K) of that dtype."""
    return dequantise(joined_blocks([with_rows(block, rows) for block in blocks]), dtype)


def bytes_of(block) -> int:
    """The bytes of a block's numbers."""
    if isinstance(block, Quantised):
        return bytes_of(block.codes) + bytes_of(block.scales)
    xp = namespace(block)
    limits = xp.finfo if xp.isdtype(block.dtype, "real floating") else xp.iinfo
    return math.prod(block.shape) * limits(block.dtype).bits // 8
