"""Byte-pair merging for NumPy.

Pairs are found in a hash table of open addresses, in one or two looks instead of a search's 17.
Words of up to SHORT symbols are merged side by side, a word to a column. Each word still at work loses one symbol a step, so all
of them have the same length: a word joins when the length has come down to its own, and nothing is padded.
Longer words are merged by safe pairs as long as these are many, and from a heap when they have become few.
"""

import heapq
import weakref

import numpy as np

from .numpy_blocks import reference

PLACE_BITS = 7  # of a place in a short word
SHORT = 1 << PLACE_BITS  # symbols
FEW = 512  # symbols in all; they go to the heap at once
MANY = 1 / 32  # of a round's symbols; where fewer are merged, a heap is faster


class PairTable:
    """Ranks of pairs by open addressing (Knuth vol. 3, 6.4, algorithm L): a key stands at its hash, or in the next free slot.

    keys: (P,) int64, none negative or twice    ranks: (P,) int32    none: the rank of a pair that is not in the table
    """

    def __init__(self, keys, ranks, none: int):
        size = 16
        while size < 4 * len(keys):
            size *= 2
        self.shift, self.last = np.uint64(65 - size.bit_length()), size - 1
        self.keys, self.ranks = np.full(size, -1, np.int64), np.full(size, none, np.int32)
        slots = self.hashed(keys)
        while len(keys):
            free = self.keys[slots] < 0
            self.keys[slots[free]] = keys[free]  # where several want one slot, one of them gets it
            placed = self.keys[slots] == keys
            self.ranks[slots[placed]] = ranks[placed]
            keys, ranks, slots = keys[~placed], ranks[~placed], (slots[~placed] + 1) & self.last

    def hashed(self, keys):
        """The slot where to look first: the high bits of a product (Fibonacci hashing, Knuth ibid.)."""
        return (keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> self.shift).view(np.int64)

    def of(self, left, right):
        """The ranks of pairs of symbols, (N,) each: (N,) int32."""
        keys = left.astype(np.int64) << 32 | right
        slots = self.hashed(keys)
        held = self.keys[slots]
        unsettled = np.flatnonzero((held != keys) & (held >= 0))
        while len(unsettled):
            slots[unsettled] = (slots[unsettled] + 1) & self.last
            held = self.keys[slots[unsettled]]
            unsettled = unsettled[(held != keys[unsettled]) & (held >= 0)]
        return self.ranks[slots]  # which is none in an empty slot


class Ready:
    """A table of merges made ready, its ranks numbered from 0 without gaps.

    ids: (R,) int32, what the pairs of each rank make    none: R, above every rank
    tied: what each pair makes, where pairs of one rank make different ids, as SentencePiece's of one score do; else None
    """

    def __init__(self, table, ranks, rank_of_each):
        self.none = len(ranks)
        self.ids = np.zeros(len(ranks), np.int32)
        self.ids[rank_of_each] = table.ids
        one_id_a_rank = np.array_equal(self.ids[rank_of_each], table.ids)
        self.tied = None if one_id_a_rank else PairTable(table.keys, table.ids, -1)
        self.table = PairTable(table.keys, rank_of_each, self.none)
        self.bounds = [
            bounds and PairTable(bounds.keys[1:], np.searchsorted(ranks, bounds.ranks[1:]).astype(np.int32), self.none)
            for bounds in (table.left_bounds, table.right_bounds)
        ]
        keys = table.keys.copy()  # the table's own would never be let go
        self.pairs = (keys, rank_of_each)
        self.made_of = (keys, table.ids)
        self.scalar = self.scalar_ids = None

    def made(self, ranks, left, right):
        """What pairs make: (n,) int32, given their ranks and symbols, (n,) each."""
        return self.ids[ranks] if self.tied is None else self.tied.of(left, right)

    def make(self):
        """The function from one pair's rank and symbols to what it makes."""
        if self.tied is None:
            of_rank = self.ids.item
            return lambda rank, left, right: of_rank(rank)
        if self.scalar_ids is None:
            self.scalar_ids = dict(zip(*(a.tolist() for a in self.made_of), strict=True))
        of_pair = self.scalar_ids
        return lambda rank, left, right: of_pair[left << 32 | right]

    def rank(self):
        """The function from a pair's key and a default to its rank: a dict's, made when first asked for."""
        if self.scalar is None:
            self.scalar = dict(zip(*(a.tolist() for a in self.pairs), strict=True))
        return self.scalar.get


READY: dict[int, Ready | None] = {}  # by the identity of the table's keys, as long as these live


def ready(table) -> Ready | None:
    """The table made ready, once; None for one that these kernels cannot serve."""
    name = id(table.keys)
    if name not in READY:
        ranks = np.sort(table.ranks)
        ranks = ranks[np.append(True, ranks[1:] != ranks[:-1])[: len(ranks)]]  # np.unique would first import all of numpy.ma
        rank_of_each = np.searchsorted(ranks, table.ranks)
        made = Ready(table, ranks, rank_of_each.astype(np.int32))
        READY[name] = made if len(ranks) < 2 ** (31 - PLACE_BITS) else None
        weakref.finalize(table.keys, READY.pop, name, None).atexit = False
    return READY[name]


def merge_words(symbols, starts, table):
    merges = ready(table)
    if merges is None or symbols.dtype != np.int32:
        return reference("merge_words", symbols, starts, table)
    if not len(symbols):
        return symbols, starts
    merged, lengths, new_lengths = merge(symbols, starts, merges, 1)
    within = np.arange(len(symbols)) - np.repeat(starts, lengths)
    ends = np.cumsum(new_lengths)
    return merged[within < np.repeat(new_lengths, lengths)], (ends - new_lengths).astype(starts.dtype)


def halves(symbols, starts, table):
    merges = ready(table)
    if merges is None or symbols.dtype != np.int32:
        return reference("halves", symbols, starts, table)
    if not len(symbols):
        return np.full((0, 2), -1, np.int32)
    merged, _, lengths = merge(symbols, starts, merges, 2)
    pairs = merged[np.minimum(starts[:, None] + np.arange(2), len(merged) - 1)]
    return np.where((lengths == 2)[:, None], pairs, np.int32(-1))


def merge(symbols, starts, merges, leave):
    """Merge each word until `leave` symbols are left.

    Returns the symbols, (N,), each word's merged ones at the beginning of its place, and its lengths before and after, (W,).
    """
    symbols = symbols.copy()
    lengths = np.diff(starts, append=len(symbols))
    after = lengths.copy()
    short = (lengths <= SHORT) & (len(symbols) > FEW)
    merge_side_by_side(symbols, starts, lengths, after, np.flatnonzero(short), merges, leave)
    if not short.all():
        merge_long(symbols, starts, lengths, after, np.flatnonzero(~short), merges, leave)
    return symbols, lengths, after


def merge_side_by_side(symbols, starts, lengths, after, words, merges, leave):
    """Merge some of the words in place, none longer than SHORT, and set their lengths after."""
    words = words[np.argsort(lengths[words], kind="stable")]
    joins = np.searchsorted(lengths[words], np.arange(SHORT + 2))  # where the words of each length begin
    longest = int(lengths[words[-1]]) if len(words) else 0
    at_work = words[:0]
    columns, keys = np.empty((longest, 0), np.int32), np.empty((max(longest - 1, 0), 0), np.int32)

    def finish(words, columns):
        symbols[starts[words] + np.arange(len(columns))[:, None]] = columns
        after[words] = len(columns)

    for length in range(longest, leave, -1):
        joining = words[joins[length] : joins[length + 1]]
        if len(joining):
            joined = symbols[starts[joining] + np.arange(length)[:, None]]  # (length, n)
            ranks = merges.table.of(joined[:-1].reshape(-1), joined[1:].reshape(-1)).reshape(length - 1, -1)
            at_work = np.concatenate([at_work, joining])
            columns = np.concatenate([columns, joined], axis=1)
            keys = np.concatenate([keys, ranks << PLACE_BITS | np.arange(length - 1, dtype=np.int32)[:, None]], axis=1)
        lowest = keys.min(axis=0)
        going_on = lowest < merges.none << PLACE_BITS
        if not going_on.all():
            finish(at_work[~going_on], columns[:, ~going_on])
            at_work, columns, keys, lowest = at_work[going_on], columns[:, going_on], keys[:, going_on], lowest[going_on]
        columns, keys = merge_lowest(columns, keys, lowest, merges)
    finish(at_work, columns)


def merge_lowest(columns, keys, lowest, merges):
    """Merge the lowest pair of each column.

    columns: (L, n) symbols    keys: (L − 1, n), a pair's rank and its place, packed    lowest: (n,) the least of each column
    Returns the same with a row less.
    """
    n = len(lowest)
    place = lowest & (1 << PLACE_BITS) - 1
    chosen, flat = place * n + np.arange(n), columns.reshape(-1)
    new = merges.made(lowest >> PLACE_BITS, flat[chosen], flat[chosen + n])
    moves = np.arange(len(keys), dtype=np.int32)[:, None] >= place
    columns = np.where(moves, columns[1:], columns[:-1])
    columns.reshape(-1)[chosen] = new
    keys = np.where(moves[:-1], keys[1:] - 1, keys[:-1])
    before, behind = np.flatnonzero(place > 0), np.flatnonzero(place < len(keys))
    left = np.concatenate([(place[before] - 1) * n + before, place[behind] * n + behind])  # the pairs around the new symbols
    ranks = merges.table.of(columns.reshape(-1)[left], columns.reshape(-1)[left + n])
    keys.reshape(-1)[left] = ranks << PLACE_BITS | (left // n).astype(np.int32) if n else ranks
    return columns, keys


def merge_long(symbols, starts, lengths, after, words, merges, leave):
    """Merge some of the words in place, of any length, and set their lengths after."""
    spread = np.arange(lengths[words].sum()) - np.repeat(np.cumsum(lengths[words]) - lengths[words], lengths[words])
    joined = symbols[np.repeat(starts[words], lengths[words]) + spread]
    first = spread == 0
    joined, first, ranks = merge_safe(joined, first, merges, leave)
    begins = np.flatnonzero(first)
    for word, ids, ranks_of_word in zip(words, np.split(joined, begins[1:]), np.split(ranks, begins[1:]), strict=True):
        merged = merge_from_heap(ids.tolist(), ranks_of_word.tolist(), merges, leave)
        symbols[starts[word] : starts[word] + len(merged)] = merged
        after[word] = len(merged)


def merge_safe(symbols, first, merges, leave):
    """Merge safe pairs in rounds, as the readable body does, while they are many.

    first: (N,) bool, where a word begins    Returns the symbols, first, and the ranks of the pairs that they begin, (M,).
    """
    chosen = safe_pairs(symbols, first, merges) if merges.bounds[0] and leave == 1 and len(symbols) > FEW else np.zeros(1, bool)
    while np.count_nonzero(chosen) > MANY * len(symbols):
        ids = merges.ids[merges.table.of(symbols[chosen], symbols[np.append(False, chosen[:-1])])]
        symbols = symbols.copy()
        symbols[chosen] = ids
        keep = ~np.append(False, chosen[:-1])
        symbols, first = symbols[keep], first[keep]
        chosen = safe_pairs(symbols, first, merges)
    return symbols, first, adjacent(symbols, first, merges.table, merges.none)


def adjacent(symbols, first, table, none):
    """The rank in a table of the pair that each symbol begins, (N,) int32; `none` before another word."""
    return np.where(np.append(first[1:], True), none, table.of(symbols, np.append(symbols[1:], 0)))


def safe_pairs(symbols, first, merges):
    """Which symbols begin a pair that may be merged now, (N,) bool."""
    none = merges.none
    ranks = adjacent(symbols, first, merges.table, none)
    left_limit, right_limit = (np.minimum(ranks, adjacent(symbols, first, bounds, none)) for bounds in merges.bounds)
    left_safe = ranks < np.append(none, left_limit[:-1])
    right_safe = ranks <= np.append(right_limit[1:], none)
    begins = np.flatnonzero(first)
    lowest = np.repeat(np.minimum.reduceat(ranks, begins), np.diff(begins, append=len(first)))
    position = np.arange(len(ranks))
    head = np.maximum.accumulate(np.where(ranks == np.append(none, ranks[:-1]), 0, position))
    safe = (left_safe & right_safe)[head] & right_safe | (ranks == lowest)
    return safe & (ranks < none) & ((position - head) % 2 == 0)


def merge_from_heap(ids: list[int], ranks: list[int], merges: Ready, leave: int) -> list[int]:
    """One word's ids, the pair of lowest rank and then leftmost first; ranks: of the pair that each symbol begins."""
    none, rank_of, n = merges.none, merges.rank(), len(ids)
    make = merges.make()
    heap = [rank << 32 | i for i, rank in enumerate(ranks) if rank < none]
    heapq.heapify(heap)
    after, before, length = list(range(1, n + 1)), list(range(-1, n - 1)), n

    def changed(left: int, right: int) -> None:
        ranks[left] = rank = rank_of(ids[left] << 32 | ids[right], none)
        if rank < none:
            heapq.heappush(heap, rank << 32 | left)

    while heap and length > leave:
        lowest = heapq.heappop(heap)
        rank, left = lowest >> 32, lowest & 0xFFFFFFFF
        if ranks[left] != rank:
            continue  # the pair has gone since
        right = after[left]
        ids[left], ids[right], ranks[left], ranks[right] = make(rank, ids[left], ids[right]), -1, none, none
        after[left] = after[right]
        length -= 1
        if after[left] < n:
            before[after[left]] = left
            changed(left, after[left])
        if left > 0:
            changed(before[left], left)
    return [id for id in ids if id >= 0]


KERNELS = {"merge_words": merge_words, "halves": halves}
