"""Byte-pair merging of many words at once, over any backend's arrays.

The words stand one after another, `symbols` (N,), and `starts` (W,) says where each begins: words are barriers.
Merging one word by itself, pair by pair, is `byte_pair.merge_word`; this gives the same ids in far fewer steps.

A round may merge more than the lowest pair of each word where the table of merges is *canonical*: no two merges have the same
rank or make the same id, and each ranks above the merges that make its two parts. Ranks then only rise while a word is merged,
because a new pair ranks above the token in it that was just made. A pair (x, y) of rank r between w and z is *safe* if

    r < rank(w, x)     r < rank(t, x) for every t that ends in w, part of part      (the least of them: left_bounds)
    r ≤ rank(y, z)     r ≤ rank(y, t) for every t that begins with z, part of part  (the least of them: right_bounds)

Until x or y is merged, w can only grow into such a t, and z too; and as long as (x, y) stands, nothing above r is merged.
So (x, y) is merged, with nothing before it at x or y. Merging it now changes no other choice: the pairs that vanish are never
merged, and those that appear rank above r. So all safe pairs, no two of which overlap, may be merged in one round; and so may
every occurrence of a word's lowest pair, the first, third, … of a run such as *aaaa*, whose pairs overlap.
A run that starts safely may be taken whole as well: each pair's left neighbour is merged just before it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import namespace, op
from refllm.tokenizer.byte_pair import Merge

NEVER = 2**31 - 1  # above every rank


class Bounds(NamedTuple):
    """The least rank at which one of two neighbours can be merged once the other has grown."""

    keys: Any  # (Q,) int64 increasing: left << 32 | right
    ranks: Any  # (Q,) int32


class MergeTable(NamedTuple):
    """Merges as arrays of one backend."""

    keys: Any  # (P,) int64 increasing: left << 32 | right
    ranks: Any  # (P,) int32
    ids: Any  # (P,) int32
    left_bounds: Bounds | None  # None, as right_bounds, where a round may merge one pair of a word only
    right_bounds: Bounds | None


class MergeArrays(NamedTuple):
    """Merges in NumPy's arrays, (P,) each, no pair twice: left and right become id, lower ranks first."""

    left: np.ndarray
    right: np.ndarray
    rank: np.ndarray
    id: np.ndarray


def merge_table(merges: Mapping[tuple[int, int], Merge] | MergeArrays, xp, parallel: bool = True) -> MergeTable:
    """The table of these merges on the backend of xp; ids, ranks and symbols are below 2³¹ − 1.

    parallel: a round may merge many pairs of a word, if the merges are canonical; else it merges one.
    """
    left, right, rank, id = arrays_of(merges)
    keys = left << 32 | right
    order = np.argsort(keys)
    bounds = bounds_of(MergeArrays(left, right, rank, id)) if parallel and is_canonical(left, right, rank, id) else (None, None)
    return MergeTable(
        xp.from_numpy(keys[order]),
        xp.from_numpy(rank[order].astype(np.int32)),
        xp.from_numpy(id[order].astype(np.int32)),
        *(b and Bounds(xp.from_numpy(b.keys), xp.from_numpy(b.ranks)) for b in bounds),
    )


def arrays_of(merges: Mapping[tuple[int, int], Merge] | MergeArrays) -> MergeArrays:
    """The merges as int64 arrays, (P,) each."""
    if isinstance(merges, MergeArrays):
        return MergeArrays(*(np.asarray(a, np.int64) for a in merges))
    flat = np.fromiter((n for pair, merge in merges.items() for n in (*pair, *merge)), np.int64, 4 * len(merges))
    return MergeArrays(*flat.reshape(-1, 4).T.copy())


def is_canonical(left, right, rank, id) -> bool:
    """Whether no two merges share a rank or an id, and each ranks above the merges that make its parts."""
    if any(np.any(np.diff(np.sort(a)) == 0) for a in (rank, id)):
        return False
    made_at = np.full(1 + np.max([left, right, id], initial=-1), -1)
    made_at[id] = rank
    return bool(np.all(made_at[left] < rank) and np.all(made_at[right] < rank))


def bounds_of(merges: MergeArrays) -> tuple[Bounds, Bounds]:
    """The left and the right bounds of canonical merges."""
    left, right, rank, id = merges
    parts = np.full((2, 1 + np.max([left, right, id], initial=-1)), -1)  # of each id; −1 where no merge makes it
    parts[:, id] = left, right
    which, end = inside(left, parts[1])
    left_bounds = least(end << 32 | right[which], rank[which])
    which, beginning = inside(right, parts[0])
    return left_bounds, least(left[which] << 32 | beginning, rank[which])


def inside(tokens, part) -> tuple[np.ndarray, np.ndarray]:
    """Every token's part, that part's part and so on: which of the tokens it is inside, and the part."""
    which, found = np.arange(len(tokens)), [(np.arange(0), np.arange(0))]
    while len(which):
        tokens = part[tokens]
        which, tokens = which[tokens >= 0], tokens[tokens >= 0]
        found.append((which, tokens))
    return np.concatenate([w for w, _ in found]), np.concatenate([t for _, t in found])


def least(keys, ranks) -> Bounds:
    """Each key once, with the least of its ranks, after a key that no pair has: a search needs at least one."""
    keys, ranks = np.append(keys, -1), np.append(ranks, NEVER)
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return Bounds(keys[first], np.minimum.reduceat(ranks[order], first).astype(np.int32))


@op
def merge_words(symbols, starts, table):
    """The ids of many words after every merge.

    symbols: (N,) int32, all words one after another    starts: (W,) int32 or int64 increasing from 0, where each word begins
    Returns the merged ids: (M,) int32, and where each word's begin: (W,) as starts.
    """
    xp = namespace(symbols)
    if symbols.shape[0] < 2 or table.keys.shape[0] == 0:
        return symbols, starts
    choose = lowest_of_each_word if table.left_bounds is None else safe_pairs
    while True:
        first = begins(starts, symbols.shape[0])
        pairs, ranks, ids = adjacent(symbols, first, table)
        chosen = choose(pairs, ranks, starts, first, table)
        if not bool(xp.any(chosen)):
            return symbols, starts
        symbols, starts = merged(symbols, first, chosen, ids, starts.dtype)


@op
def halves(symbols, starts, table):
    """The two symbols that each word comes to before its last merge, bounds or none: one pair of a word is merged a round.

    symbols, starts: as of merge_words
    Returns (W, 2) int32; −1, −1 for a word of one symbol, or one that more than two are left of.
    """
    xp = namespace(symbols)
    two = xp.arange(2, dtype=starts.dtype)
    while symbols.shape[0] > 0 and table.keys.shape[0] > 0:
        first = begins(starts, symbols.shape[0])
        _, ranks, ids = adjacent(symbols, first, table)
        long = word_lengths(starts, symbols.shape[0]) > 2
        ranks = xp.where(xp.take(long, words_of(first), axis=0), ranks, xp.full_like(ranks, NEVER))
        chosen = lowest_of_each_word(None, ranks, starts, first, table)
        if not bool(xp.any(chosen)):
            break
        symbols, starts = merged(symbols, first, chosen, ids, starts.dtype)
    if symbols.shape[0] == 0:
        return xp.full((0, 2), -1, dtype=xp.int32)
    place = xp.reshape(xp.clip(starts[:, None] + two, 0, symbols.shape[0] - 1), (-1,))
    left = xp.reshape(xp.take(symbols, place, axis=0), (-1, 2))
    return xp.where((word_lengths(starts, symbols.shape[0]) == 2)[:, None], left, xp.full_like(left, -1))


def begins(starts, n: int):
    """Whether a word begins at each of n symbols: (n,) bool."""
    xp = namespace(starts)
    words_before = xp.searchsorted(starts, xp.arange(n + 1, dtype=starts.dtype), side="left")
    return words_before[1:] > words_before[:-1]


def words_of(first):
    """The word that each symbol belongs to, counted from 0: (N,) int32."""
    xp = namespace(first)
    return xp.cumulative_sum(xp.astype(first, xp.int32), axis=0) - 1


def word_lengths(starts, n: int):
    """How many of n symbols each word has: (W,) as starts."""
    xp = namespace(starts)
    return xp.concat([starts[1:], xp.full_like(starts[:1], n)], axis=0) - starts


def merged(symbols, first, chosen, ids, dtype):
    """The symbols after the chosen pairs have become their ids, and where each word begins, of this dtype."""
    xp = namespace(symbols)
    keep = ~xp.concat([chosen[-1:], chosen[:-1]], axis=0)  # no pair begins at the last symbol
    symbols = xp.compress(xp.where(chosen, ids, symbols), keep)
    return symbols, xp.compress(xp.arange(symbols.shape[0], dtype=dtype), xp.compress(first, keep))


def adjacent(symbols, first, table):
    """The pair that each symbol begins: its key (N,) int64, its rank and the id it makes, (N,) int32.

    The rank is NEVER for a pair without a merge, and where the next symbol belongs to another word.
    """
    xp = namespace(symbols)
    wide = xp.astype(symbols, xp.int64)
    keys = wide << 32 | xp.concat([wide[1:], wide[:1]], axis=0)
    place, found = look_up(table.keys, keys)
    found = found & ~xp.concat(
        [first[1:], first[:1]], axis=0
    )  # the last symbol is before a word's beginning, as the first is one
    never = xp.full_like(symbols, NEVER)
    return keys, xp.where(found, xp.take(table.ranks, place, axis=0), never), xp.take(table.ids, place, axis=0)


def look_up(keys, wanted):
    """Where each wanted key stands among increasing keys, and whether it does."""
    xp = namespace(keys)
    place = xp.clip(xp.searchsorted(keys, wanted), 0, keys.shape[0] - 1)
    return place, xp.take(keys, place, axis=0) == wanted


def least_rank(ranks, starts, first):
    """Each pair's word's least rank: (N,) int32."""
    xp = namespace(ranks)
    return xp.take(xp.segment_min(ranks, starts), words_of(first), axis=0)


def lowest_of_each_word(pairs, ranks, starts, first, table):
    """The leftmost of each word's lowest pairs: (N,) bool."""
    xp = namespace(ranks)
    position = xp.arange(ranks.shape[0], dtype=xp.int32)
    lowest = (ranks == least_rank(ranks, starts, first)) & (ranks < NEVER)
    return position == least_rank(xp.where(lowest, position, xp.full_like(position, NEVER)), starts, first)


def safe_pairs(pairs, ranks, starts, first, table):
    """All pairs that may be merged at once, among them each word's lowest: (N,) bool."""
    xp = namespace(ranks)
    position = xp.arange(ranks.shape[0], dtype=xp.int32)
    never = xp.full_like(ranks[:1], NEVER)
    same_word = ~xp.concat([first[1:], first[:1]], axis=0)

    def limit(bounds):
        place, found = look_up(bounds.keys, pairs)
        return xp.where(found & same_word, xp.minimum(xp.take(bounds.ranks, place, axis=0), ranks), ranks)

    before = xp.concat([never, ranks[:-1]], axis=0)
    left_safe = ranks < xp.concat([never, limit(table.left_bounds)[:-1]], axis=0)
    right_safe = ranks <= xp.concat([limit(table.right_bounds)[1:], never], axis=0)
    head = xp.cumulative_max(xp.where(ranks == before, xp.zeros_like(position), position))  # of a run of one pair, as in aaaa
    safe = xp.take(left_safe & right_safe, head, axis=0) & right_safe
    lowest = (ranks == least_rank(ranks, starts, first)) & (ranks < NEVER)
    return (safe | lowest) & ((position - head) % 2 == 0)
