"""The merges of byte-pair encoding, learned from counted words (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1).

Again and again the most frequent adjacent pair of ids becomes a new id. A run such as "aaa" holds the pair (a, a) twice but is
merged once, from the left. Where several pairs are the most frequent, one of two rules decides:

    smallest   the smallest (left id, right id), as in Hugging Face's BpeTrainer and in rustbpe
    first      the pair that comes first in the text as merged so far, as in minbpe and in tiktoken's educational trainer

All words stand in one row of symbols, each word once, an edge between any two. The places of a pair all arise in the step that
makes the newer of its ids, and from then on can only be lost: so each place is written down once, and looked at again only when
its pair is merged. For the same reason a pair's count only falls: pairs wait by their counts, and whether one has become rarer
need not be known before its old count comes up. As long as its count stays, its first place does.

It is a chain of small steps, each of which needs the last: a work for the host, and for dictionaries rather than arrays.
"""

import heapq
import itertools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Pair = tuple[int, int]
Progress = Callable[[int, int], None]  # (done, to do)

EDGE, GONE = -1, -2  # what stands in the row beside each word, and where the right half of a merged pair was


class Row(NamedTuple):
    """All words one after another, linked both ways, so that a merge touches its neighbours only."""

    symbols: array  # (N,) ids, EDGE or GONE
    before: array  # (N,) the place of the symbol before
    after: array  # (N,) the place of the symbol after
    weights: array  # (N,) how often the word of this place occurs


class Learned(NamedTuple):
    """What words teach: merges in order, and how many tokens the words become by them, each as often as it occurs."""

    merges: list[Pair]
    n_tokens: int


def learn_merges(
    counts: Mapping[str, int],
    n_merges: int,
    byte_ids: Sequence[int] = range(256),
    ties: Literal["smallest", "first"] = "smallest",
    progress: Progress | None = None,
) -> Learned:
    """The first n_merges merges of words that occur so often; merge i makes id 256 + i. There are fewer where no pair is left.

    counts: the words in the order in which they first occur    byte_ids: the id of each byte
    progress: called as (merges done, n_merges)
    """
    row = rowed(counts, byte_ids)
    totals, places = counted_pairs(row)
    waiting = Waiting(totals)
    merges: list[Pair] = []

    def ranked(pair: Pair) -> tuple[Pair | int, Pair]:
        return pair if ties == "smallest" else first_place(pair, places[pair], row), pair

    while len(merges) < n_merges and (total := waiting.highest()):
        ready = [ranked(pair) for pair in waiting.taken(total)]
        heapq.heapify(ready)
        while ready and len(merges) < n_merges:
            pair = heapq.heappop(ready)[1]
            if totals[pair] < total:
                waiting.add(pair)
                continue
            come = merge(pair, places.pop(pair), 256 + len(merges), row, totals)
            merges.append(pair)
            places.update(come)
            for pair in come:
                if totals[pair] == total:
                    heapq.heappush(ready, ranked(pair))
                else:
                    waiting.add(pair)
            if progress is not None:
                progress(len(merges), n_merges)
    weighed = zip(row.symbols, row.weights, strict=True)
    return Learned(merges, sum(weight for symbol, weight in weighed if symbol >= 0))


class Waiting:
    """Pairs by how often they occurred when they were put here; since then they may have become rarer, never more frequent."""

    def __init__(self, totals: Mapping[Pair, int]):
        self.totals = totals
        self.pairs: dict[int, list[Pair]] = {}
        self.counts: list[int] = []  # the keys of pairs as a heap, negative
        for pair in totals:
            self.add(pair)

    def add(self, pair: Pair) -> None:
        """Put a pair where its total belongs; one that is gone is dropped."""
        total = self.totals[pair]
        if total in self.pairs:
            self.pairs[total].append(pair)
        elif total:
            self.pairs[total] = [pair]
            heapq.heappush(self.counts, -total)

    def highest(self) -> int:
        """The largest total that any pair may have; 0 where none is left."""
        return -self.counts[0] if self.counts else 0

    def taken(self, total: int) -> list[Pair]:
        """Take out the pairs of the highest total; those that have become rarer stay, where they belong now."""
        heapq.heappop(self.counts)
        pairs = self.pairs.pop(total)
        for pair in pairs:
            if self.totals[pair] < total:
                self.add(pair)
        return [pair for pair in pairs if self.totals[pair] == total]


def rowed(counts: Mapping[str, int], byte_ids: Sequence[int]) -> Row:
    """The row of words, in their order, that are not merged yet."""
    symbols, weights = array("q", [EDGE]), array("q", [0])
    for word, count in counts.items():
        data = word.encode()
        symbols.extend([byte_ids[byte] for byte in data])
        symbols.append(EDGE)
        weights.extend([count] * len(data))
        weights.append(0)
    n = len(symbols)
    return Row(symbols, array("q", range(-1, n - 1)), array("q", range(1, n + 1)), weights)


def counted_pairs(row: Row) -> tuple[dict[Pair, int], dict[Pair, array]]:
    """How often each adjacent pair occurs, and the places of its left symbols, increasing, in a row that is not merged yet."""
    totals: dict[Pair, int] = {}
    places: dict[Pair, array] = {}
    for place, pair in enumerate(itertools.pairwise(row.symbols)):
        if EDGE not in pair:
            totals[pair] = totals.get(pair, 0) + row.weights[place]
            places.setdefault(pair, array("q")).append(place)
    return totals, places


def merge(pair: Pair, places: Iterable[int], new: int, row: Row, totals: dict[Pair, int]) -> dict[Pair, array]:
    """Replace the pair by a new id wherever it still stands, from the left; the row and the totals are changed in place.

    Returns the places of the pairs that came. One may be gone again: in aaaa the first (a, a) makes (new, a), and the last
    unmakes it.
    """
    left, right = pair
    symbols, before, after, weights = row
    come: dict[Pair, array] = {}
    for place in places:
        gone = after[place]
        if symbols[place] != left or symbols[gone] != right:
            continue
        weight, back, on = weights[place], before[place], after[gone]
        symbols[place], symbols[gone] = new, GONE
        after[place], before[on] = on, place
        if (other := symbols[back]) != EDGE:
            totals[other, left] -= weight
            if (came := (other, new)) in come:
                come[came].append(back)
                totals[came] += weight
            else:
                come[came] = array("q", (back,))
                totals[came] = weight
        if (other := symbols[on]) != EDGE:
            totals[right, other] -= weight
            if (came := (new, other)) in come:
                come[came].append(place)
                totals[came] += weight
            else:
                come[came] = array("q", (place,))
                totals[came] = weight
    del totals[pair]
    return come


def first_place(pair: Pair, places: Iterable[int], row: Row) -> int:
    """The first of the pair's places where it still stands."""
    left, right = pair
    return next(place for place in places if row.symbols[place] == left and row.symbols[row.after[place]] == right)
