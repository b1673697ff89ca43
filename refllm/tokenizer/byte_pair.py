"""Byte-pair encoding of one word (Gage 1994; Sennrich et al. 2016, arXiv:1508.07909), over bytes as in GPT-2.

A word starts as the ids of its bytes. While some adjacent pair has a rank, the pair of lowest rank is merged, leftmost first.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol

SHORT = 32  # ids; up to here a plain search for the lowest rank beats a heap


class Merge(NamedTuple):
    """What becomes of an adjacent pair of ids: lower ranks merge first."""

    rank: int
    id: int


NEVER = Merge(2**62, -1)


class Merges(Protocol):
    """A table of merges: a dict, or what looks like one."""

    @property
    def get(self) -> Callable[..., tuple[int, int]]:
        """get(pair, default): the rank and the id of what becomes of an adjacent pair; the default where it never merges."""


def merge_word(ids: list[int], merges: Merges) -> list[int]:
    """The ids of a word after every merge, given the ids of its bytes."""
    return merge_short(ids, merges) if len(ids) <= SHORT else merge_long(ids, merges)


def merge_short(ids: list[int], merges: Merges) -> list[int]:
    """One merge at a time: O(n²) for n ids."""
    ids, find, never = list(ids), merges.get, NEVER.rank
    found = [find(pair, NEVER) for pair in zip(ids, ids[1:], strict=False)]
    ranks = [rank for rank, _ in found]
    while ranks and (lowest := min(ranks)) != never:
        i = ranks.index(lowest)
        _, ids[i] = found[i]
        del ids[i + 1], found[i], ranks[i]
        if i > 0:
            found[i - 1] = merge = find((ids[i - 1], ids[i]), NEVER)
            ranks[i - 1], _ = merge
        if i < len(ranks):
            found[i] = merge = find((ids[i], ids[i + 1]), NEVER)
            ranks[i], _ = merge
    return ids


def merge_long(ids: list[int], merges: Merges) -> list[int]:
    """The same with a heap of candidates over a linked list: O(n log n) for n ids."""
    ids, find = list(ids), merges.get
    n = len(ids)
    after = list(range(1, n + 1))
    before = list(range(-1, n - 1))
    heap: list[tuple[int, ...]] = []

    def offer(left: int, right: int) -> None:
        rank, id = find((ids[left], ids[right]), NEVER)
        if id >= 0:
            heapq.heappush(heap, (rank, left, right, id, ids[left], ids[right]))

    for i in range(n - 1):
        offer(i, i + 1)
    while heap:
        _, left, right, new, left_id, right_id = heapq.heappop(heap)
        if ids[left] != left_id or ids[right] != right_id:
            continue  # one of the two was merged since; two that are left as they were are neighbours still
        ids[left], ids[right] = new, -1
        after[left] = after[right]
        if after[left] < n:
            before[after[left]] = left
            offer(left, after[left])
        if before[left] >= 0:
            offer(before[left], left)
    return [token for token in ids if token >= 0]
