"""Merges by the ranks of tokens, as in tiktoken: two tokens merge where their bytes joined are a token, lower ranks first.

Of all the pairs that join to a token only one ever makes it, its canonical pair. For whatever merges happen within the bytes of a
token that comes to stand in a word, each was the lowest there too, leftmost first: they are the merges of these bytes alone, and
the last of them is always the same. Hence the canonical pairs by themselves, half as many, give every word the same ids: at each
step the lowest of all pairs is canonical, and so it is the lowest of those.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from refllm.array_api import load
from refllm.tokenizer.merge_words import MergeArrays, halves, merge_table

MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴


class RankMerges:
    """A table of merges to read, found when it is first needed: the canonical merges of ranked tokens.

    vocabulary: id -> bytes, the id being the rank, all 256 single bytes among them
    """

    def __init__(self, vocabulary: Mapping[int, bytes]):
        self.vocabulary = vocabulary

    @functools.cached_property
    def get(self) -> Callable[..., tuple[int, int]]:
        """get(pair, default): the rank and the id that an adjacent pair of ids merges to; a dict's own method, for speed."""
        left, right, rank, id = (a.tolist() for a in self.canonical)
        return dict(zip(zip(left, right, strict=True), zip(rank, id, strict=True), strict=True)).get

    @functools.cached_property
    def canonical(self) -> MergeArrays:
        """The one merge that ever makes each token of several bytes, in order of rank."""
        return canonical_merges(self.vocabulary)

    def pairs(self) -> list[tuple[int, int]]:
        """The one pair that ever makes each token of several bytes, in order of rank; a token that none makes is left out."""
        return list(zip(self.canonical.left.tolist(), self.canonical.right.tolist(), strict=True))


def canonical_merges(vocabulary: Mapping[int, bytes]) -> MergeArrays:
    """The one merge that ever makes each token of several bytes, in order of rank, (P,) int64 each.

    vocabulary: id -> bytes, the id being the rank, all 256 single bytes among them
    A token that more than two tokens are left of is never made, and left out.
    """
    tokens = {token: id for id, token in vocabulary.items() if token}
    ids = np.fromiter(tokens.values(), np.int64, len(tokens))
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    data = np.frombuffer(b"".join(tokens), np.uint8)
    left, right, whole = (ids[numbers] for numbers in splits(tokens, data, lengths))
    byte_ids = np.array([tokens[bytes([byte])] for byte in range(256)], np.int32)
    table = merge_table(MergeArrays(left, right, whole, whole), load("numpy").xp, parallel=False)
    pairs = halves(byte_ids[data], np.cumsum(lengths) - lengths, table)
    made = np.flatnonzero(pairs[:, 0] >= 0)
    made = made[np.argsort(ids[made])]
    left, right = pairs[made].T.astype(np.int64)
    return MergeArrays(left, right, ids[made], ids[made])


def splits(tokens: Mapping[bytes, int], data, lengths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every way to cut a token into two tokens: the numbers of the left, the right and the whole one, (S,) int64 each.

    data: (N,) uint8, the tokens' bytes one after another    lengths: (V,)
    """
    ends = np.cumsum(lengths)
    begins = ends - lengths
    hashed = span_hashes(data)
    hashes = hashed(begins, ends)
    order = np.argsort(hashes)
    if np.any(hashes[order[1:]] == hashes[order[:-1]]):  # two tokens cannot be told apart
        return splits_one_by_one(tokens)
    inner = np.ones(len(data), bool)
    inner[begins] = False
    cuts, whole = np.flatnonzero(inner), np.repeat(np.arange(len(lengths)), lengths - 1)

    known = hashes[order]

    def looked_up(spans):
        in_order, place = np.argsort(spans), np.empty(len(spans), np.int64)
        place[in_order] = np.searchsorted(known, spans[in_order])  # twice as fast as in no order
        place = np.minimum(place, len(known) - 1)
        return order[place], known[place] == spans

    left, found = looked_up(hashed(begins[whole], cuts))
    left, cuts, whole = left[found], cuts[found], whole[found]
    right, found = looked_up(hashed(cuts, ends[whole]))
    left, right, cuts, whole = left[found], right[found], cuts[found], whole[found]
    same = (lengths[left] == cuts - begins[whole]) & (lengths[right] == ends[whole] - cuts)
    left, right, whole = left[same], right[same], whole[same]
    same = joined_equal(data, begins, lengths, left, right, whole)
    return left[same], right[same], whole[same]


def span_hashes(data):
    """A function from where spans of the bytes begin and end to their hashes, equal for equal bytes (Karp & Rabin 1987).

    With the running sums S of (byte + 1)·Mⁱ modulo 2⁶⁴, the bytes from a to b have the hash (S_b − S_a)·M⁻ᵃ.
    """
    powers, inverses = (
        np.cumprod(np.append(np.uint64(1), np.full(len(data), m, np.uint64))) for m in (MULTIPLIER, pow(MULTIPLIER, -1, 2**64))
    )
    sums = np.append(np.uint64(0), np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[:-1]))
    return lambda begins, ends: (sums[ends] - sums[begins]) * inverses[begins]


def joined_equal(data, begins, lengths, left, right, whole):
    """Whether the bytes of two tokens joined, as long as the whole one's, are its bytes: (S,) bool."""
    if not len(whole):
        return np.zeros(0, bool)
    n = lengths[whole]
    first = np.cumsum(n) - n
    within = np.arange(n.sum()) - np.repeat(first, n)
    of_left = within < np.repeat(lengths[left], n)
    source = within + np.where(of_left, np.repeat(begins[left], n), np.repeat(begins[right] - lengths[left], n))
    return np.logical_and.reduceat(data[source] == data[within + np.repeat(begins[whole], n)], first)


def splits_one_by_one(tokens: Mapping[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `splits` returns, by looking every part up."""
    number = {token: n for n, token in enumerate(tokens)}
    found = [
        (number[token[:i]], number[token[i:]], n)
        for token, n in number.items()
        for i in range(1, len(token))
        if token[:i] in number and token[i:] in number
    ]
    left, right, whole = np.array(found, np.int64).reshape(-1, 3).T
    return left, right, whole
