"""SentencePiece's BPE of a whole text at once, over any backend's arrays: the same ids as `sentence_piece` gives.

Each character becomes its symbol by a table. Between two characters that stand side by side in no piece nothing is ever joined,
so there the text is cut into segments; `merge_words` joins within all of them, and what is left over becomes its bytes.

Whether two characters stand side by side in a piece is asked of a table of SLOTS truth values. Several pairs may share a slot:
then the text is cut in fewer places, which changes no id, for a segment may hold parts that nothing joins.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import namespace
from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.merge_words import MergeArrays, MergeTable, merge_table, merge_words

CHARACTERS = 1 << 24  # a character that is no piece has the symbol CHARACTERS + its code point; ids are below
UNICODE = 0x110000  # code points; the symbol of the nth user-defined piece stands at UNICODE + n
SLOTS = 1 << 20
STRIDE = 1031  # a prime, which spreads pairs over the slots; times the largest code point it is below 2³¹


class PieceTables(NamedTuple):
    """What the array path knows of a model, as arrays of one backend."""

    symbols: Any  # (UNICODE + user-defined pieces,) int32: the symbol of each code point, then the user-defined pieces' ids
    may_join: Any  # (SLOTS,) bool: whether a piece may hold two characters of this slot side by side
    merges: MergeTable
    byte_ids: Any  # (256,) int32, or (0,) where there is no fallback to bytes
    unknown: int  # the id of what has no other; it counts only where there is no fallback to bytes


def piece_tables(
    pieces: Mapping[int, str],
    merges: Mapping[tuple[int, int], Merge],
    byte_ids: Sequence[int],
    user_defined: Sequence[int],
    unknown: int | None,
    xp: Any,
) -> PieceTables:
    """The tables of a SentencePieceBPE on the backend of xp."""
    symbols = np.arange(CHARACTERS, CHARACTERS + UNICODE, dtype=np.int32)
    characters = {piece: id for id, piece in pieces.items() if len(piece) == 1}
    symbols[code_points("".join(characters))] = list(characters.values())
    pairs = np.fromiter(chain.from_iterable(merges), np.int64, 2 * len(merges)).reshape(-1, 2)
    made = np.fromiter(chain.from_iterable(merges.values()), np.int64, 2 * len(merges)).reshape(-1, 2)  # ranks and ids
    return PieceTables(
        xp.from_numpy(np.concatenate([symbols, np.array(user_defined, np.int32)])),
        xp.from_numpy(side_by_side([pieces[id] for id in set(made[:, 1].tolist())])),
        merge_table(MergeArrays(*pairs.T, *made.T), xp, parallel=False),
        xp.from_numpy(np.array(byte_ids, np.int32)),
        -1 if unknown is None else unknown,
    )


def side_by_side(pieces: Sequence[str]) -> np.ndarray:
    """Whether any two characters of a slot stand side by side in one of the pieces: (SLOTS,) bool."""
    points = code_points("".join(pieces))
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    table = np.zeros(SLOTS, bool)
    table[np.delete(slots(points[:-1], points[1:]), ends[:-1] - 1)] = True  # without the pairs of two pieces' characters
    return table


def code_points(text: str) -> np.ndarray:
    """The code points of a text's characters: (characters,) int32."""
    return np.frombuffer(text.encode("utf-32-le"), np.int32)


def slots(left, right):
    """Where the table of pairs answers for characters side by side: (N,) int32, given both code points, (N,) int32."""
    return (left * STRIDE + right) & (SLOTS - 1)


def encode_points(points, tables):
    """The ids of a text: (tokens,) int32.

    points: (N,) int32, N > 0, its code points, the prefix before them and U+0020 for each space; UNICODE + n stands for the nth
    user-defined piece
    """
    xp = namespace(points)
    parts = ~xp.take(tables.may_join, slots(points[:-1], points[1:]), axis=0)  # (N − 1,)
    first = xp.concat([xp.ones(1, dtype=xp.bool), parts], axis=0)
    starts = xp.compress(xp.arange(points.shape[0], dtype=xp.int32), first)
    ids, _ = encode_segments(points, starts, tables)
    if tables.byte_ids.shape[0]:
        return ids
    unknown = ids == tables.unknown
    again = xp.concat([xp.zeros(1, dtype=xp.bool), unknown[1:] & unknown[:-1]], axis=0)
    return xp.compress(ids, ~again)  # one for a run of the unknown


def encode_segments(points, starts, tables):
    """The ids of all segments, one after another: (M,) int32, and where each segment's begin: (S,) int32.

    points: (N,) int32, as for encode_points    starts: (S,) int32 increasing from 0, where each segment begins
    """
    xp = namespace(points)
    symbols, starts = merge_words(xp.take(tables.symbols, points, axis=0), starts, tables.merges)
    left_over = symbols >= CHARACTERS
    if not tables.byte_ids.shape[0]:
        return xp.where(left_over, xp.full_like(symbols, tables.unknown), symbols), starts
    data, lengths = utf8(xp.where(left_over, symbols - CHARACTERS, xp.zeros_like(symbols)))  # (M, 4), (M,)
    ids = xp.reshape(xp.take(tables.byte_ids, xp.reshape(data, (-1,)), axis=0), data.shape)
    ids = xp.where(left_over[:, None], ids, symbols[:, None])
    keep = xp.arange(4, dtype=xp.int32)[None, :] < lengths[:, None]
    before = xp.cumulative_sum(lengths, axis=0) - lengths  # how many ids stand before each symbol's
    return xp.compress(xp.reshape(ids, (-1,)), xp.reshape(keep, (-1,))), xp.take(before, starts, axis=0)


def utf8(points):
    """The bytes of each code point, zero behind the last: (N, 4) int32, and their number: (N,) int32. points: (N,) int32."""
    xp = namespace(points)
    lengths = 1 + sum(xp.astype(points >= limit, xp.int32) for limit in (0x80, 0x800, 0x10000))
    place = xp.arange(4, dtype=xp.int32)[None, :]
    behind = lengths[:, None] - 1 - place  # (N, 4): how many bytes follow
    bits = points[:, None] >> (6 * xp.clip(behind, 0, 3))
    lead = xp.take(xp.asarray([0, 0xC0, 0xE0, 0xF0], dtype=xp.int32), lengths - 1, axis=0)
    data = xp.where(place == 0, lead[:, None] | bits, (bits & 0x3F) | 0x80)
    return xp.where(behind >= 0, data, xp.zeros_like(data)), lengths
