"""Byte-level BPE for NumPy: words that are tokens found in a hash table, and of the rest each different word merged once.

A word of up to 7 bytes with its length is one 64-bit key, one of up to 15 bytes two, so equal keys are equal words.
Longer words are told apart by all their bytes, eight at a time, and merged. Most words are short, and most are tokens.

Where merges make all tokens, a word is first cut between characters that no token joins: no merge crosses such a place. So words
of scripts that put no spaces between words fall into a few characters each, which come again and again.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.lib.stride_tricks import as_strided

from refllm.array_api import OPS

BLOCK = 1 << 15  # words whose intermediate arrays stay in the cache
LONGEST = 256  # bytes; longer words are merged each time they come
LEAD = 0xC0  # the least byte that begins a character beyond ASCII
WORD = np.dtype("<u8")  # so that the first byte is the lowest
BYTES = np.array([2 ** (8 * n) - 1 for n in range(9)], WORD)  # the mask of the first n bytes
LENGTHS = np.array([n << 56 for n in range(8)] + [0], WORD)  # what marks a key of n bytes, in a byte that it leaves free
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio, odd: a product's high bits depend on all bits (Knuth, volume 3, 6.4)


def encode_words(data, starts, vocabulary):
    tables = tables_of(vocabulary)
    data, eights = readable(data)
    if vocabulary.spellings is None:
        begins = bounds(data, eights, starts, tables.joints)
    else:  # a part of a word may spell a token that only a whole word becomes
        begins = np.append(starts.astype(np.intp), data.size - 8)
    ids, starts, lengths = whole_or_missed(eights, begins, tables)
    chosen, which = distinct(eights, starts, lengths)
    starts, lengths = starts[chosen], lengths[chosen]
    symbols = vocabulary.byte_ids.take(data.take(spans(starts, lengths)))
    symbols, begins = OPS["merge_words"](symbols, np.cumsum(lengths) - lengths, vocabulary.merges)
    if vocabulary.spellings is not None and symbols.size:
        symbols, begins = OPS["whole_words"](symbols, begins, vocabulary.spellings)
    missed = begins[which], np.diff(begins, append=symbols.size)[which]
    return np.concatenate([filled(block, symbols, *missed) for block in ids])


def whole_or_missed(eights, begins, tables):
    """The ids of words that are tokens, and the words that may not be.

    begins: (W + 1,) where each word begins, and the end
    Returns blocks of ids: (BLOCK,) int32, −1 − m for a word that is the m-th of the missed; and where those begin, and how
    long they are: (M,). Each stands there once for every block that has it.
    """
    ids, starts, lengths, n_missed = [np.zeros(0, np.int32)], [begins[:0]], [begins[:0]], 0
    for first in range(0, begins.size - 1, BLOCK):
        block = begins[first : first + BLOCK + 1]
        sizes = np.diff(block)
        found = whole_word_ids(eights, block[:-1], sizes, tables)
        missed = np.flatnonzero(found < 0)
        chosen, which = distinct(eights, block[missed], sizes[missed])
        found[missed] = -1 - n_missed - which
        n_missed += chosen.size
        ids.append(found)
        starts.append(block[missed[chosen]])
        lengths.append(sizes[missed[chosen]])
    return ids, np.concatenate(starts), np.concatenate(lengths)


def readable(data) -> tuple[Any, Any]:
    """The bytes with eight more, and the eight bytes from each position on: (N,) uint64."""
    data = np.concatenate([data, np.zeros(8, np.uint8)])
    return data, as_strided(data[:8].view(WORD), (data.size - 7,), (1,))


def spans(starts, lengths):
    """The positions start … start + length − 1 of each span, one after another."""
    offsets = starts - (np.cumsum(lengths) - lengths)
    return np.repeat(offsets, lengths) + np.arange(lengths.sum())


def filled(ids, symbols, begins, counts):
    """The ids, each −1 − m of them replaced by symbols[begins[m] : begins[m] + counts[m]]."""
    missed = np.flatnonzero(ids < 0)
    which = -1 - ids[missed]
    begins, counts = begins[which], counts[which]
    total = np.ones(ids.size, np.intp)
    total[missed] = counts
    result = np.repeat(ids, total)
    result[spans((np.cumsum(total) - total)[missed], counts)] = symbols.take(spans(begins, counts))
    return result


class Table(NamedTuple):
    """An open-addressed hash table: a key lies at its hash, or behind it, before any slot that is empty."""

    keys: tuple[Any, ...]  # the parts of the keys, (slots,) uint64 each
    ids: Any  # (slots,) int32, −1 where empty
    shift: Any  # what leaves a slot's number of a hash


class Joints(NamedTuple):
    """What stands around the characters beyond ASCII inside tokens, other than at their beginning."""

    pairs: Any  # (65536,) bool, whether a byte and the next, which begins the character, stand together in any token
    windows: Table  # the up to 3 bytes on either side, as many as the token has


class Tables(NamedTuple):
    """What the kernel looks up in a vocabulary."""

    short: Table  # the tokens of up to 7 bytes
    middle: Table  # those of 8 to 15
    joints: Joints


_TABLES: WeakKeyDictionary[Any, Tables] = WeakKeyDictionary()


def tables_of(vocabulary) -> Tables:
    """The vocabulary's tables, made when it is first used."""
    if vocabulary not in _TABLES:
        _, eights = readable(vocabulary.whole_bytes)
        starts = vocabulary.whole_starts.astype(np.intp)
        lengths = np.diff(starts, append=vocabulary.whole_bytes.size)
        short, middle = np.flatnonzero(lengths < 8), np.flatnonzero((lengths >= 8) & (lengths < 16))
        _TABLES[vocabulary] = Tables(
            hash_table(short_keys(eights, starts[short], lengths[short]), vocabulary.whole[short]),
            hash_table(middle_keys(eights, starts[middle], lengths[middle]), vocabulary.whole[middle]),
            joints_of(vocabulary.whole_bytes, eights, starts, lengths),
        )
    return _TABLES[vocabulary]


def joints_of(data, eights, starts, lengths) -> Joints:
    """The joints of tokens that stand one after another."""
    places = np.flatnonzero(data >= LEAD)
    token = np.searchsorted(starts, places, side="right") - 1
    inside = places > starts[token]
    places, token = places[inside], token[inside]
    pairs = np.zeros(1 << 16, bool)
    pairs[pair(data, places)] = True
    end = starts + lengths
    keys = np.unique(window(eights, places, np.minimum(places - starts[token], 3), np.minimum(end[token] - places, 3)))
    return Joints(pairs, hash_table((keys,), np.arange(keys.size, dtype=np.int32)))


def pair(data, places):
    """The bytes before and at each place, as one number below 2¹⁶."""
    return data[places - 1].astype(np.intp) << 8 | data[places]


def window(eights, places, before, behind):
    """Some bytes before each place and some from it on, with the numbers of them: (N,) uint64."""
    numbers = np.asarray(before << 2 | behind, WORD) << np.uint64(56)
    return eights[places - before] & BYTES.take(before + behind) | numbers


def bounds(data, eights, starts, joints):
    """Where words and the parts they fall into begin, and the end: (P + 1,) int64. data: (N + 8,) the text and eight bytes

    The place before a character beyond ASCII is a joint of no token, if no token has around it just the bytes that are there.
    """
    first = np.zeros(data.size - 7, bool)
    first[starts] = True
    first[-1] = True
    places = np.flatnonzero((data[:-7] >= LEAD) & ~first)
    for begin in range(0, places.size, BLOCK):
        block = places[begin : begin + BLOCK]
        joined = joints.pairs.take(pair(data, block))
        first[block[~joined]] = True
        left = block[joined]
        for before in (1, 2, 3):
            for behind in (1, 2, 3):
                left = left[find(joints.windows, (window(eights, left, before, behind),)) < 0]
        first[left] = True
    return np.flatnonzero(first)


def short_keys(eights, starts, lengths):
    """The keys of words; those of up to 7 bytes are their own."""
    n = np.minimum(lengths, 8)
    return (eights[starts] & BYTES.take(n) | LENGTHS.take(n),)


def middle_keys(eights, starts, lengths):
    """The keys of words of 8 to 15 bytes, of two parts each."""
    return eights[starts], *short_keys(eights, starts + 8, lengths - 8)


def hashed(keys):
    """A hash of keys, their parts' bits spread over all of it: (W,) uint64."""
    total = keys[0] * SPREAD
    for key in keys[1:]:
        total = (total ^ total >> np.uint64(32) ^ key) * SPREAD
    return total


def hash_table(keys, ids) -> Table:
    """The table in which each key has its id, all different; at least three quarters of it stay empty."""
    bits = int(4 * ids.size).bit_length()
    table = Table(tuple(np.zeros(1 << bits, WORD) for _ in keys), np.full(1 << bits, -1, np.int32), np.uint64(64 - bits))
    slots = (hashed(keys) >> table.shift).view(np.int64)
    left = np.arange(ids.size)
    while left.size:
        free = left[table.ids[slots[left]] < 0]
        table.ids[slots[free]] = ids[free]
        for column, key in zip(table.keys, keys, strict=True):
            column[slots[free]] = key[free]
        left = left[table.ids[slots[left]] != ids[left]]
        slots[left] = slots[left] + 1 & (1 << bits) - 1
    return table


def find(table, keys):
    """The ids of keys: (W,) int32, −1 for those that the table lacks."""
    slots = (hashed(keys) >> table.shift).view(np.int64)
    ids = table.ids.take(slots)
    other = differs(table, slots, keys)
    left = np.flatnonzero(other & (ids >= 0))
    ids[other] = -1
    keys, slots = tuple(key[left] for key in keys), slots[left]
    while left.size:
        slots = slots + 1 & table.ids.size - 1
        found, other = table.ids.take(slots), differs(table, slots, keys)
        ids[left[~other]] = found[~other]
        go = other & (found >= 0)
        keys, slots, left = tuple(key[go] for key in keys), slots[go], left[go]
    return ids


def differs(table, slots, keys):
    """Whether other keys stand in the slots: (W,) bool."""
    other = table.keys[0].take(slots) != keys[0]
    for column, key in zip(table.keys[1:], keys[1:], strict=True):
        other |= column.take(slots) != key
    return other


def whole_word_ids(eights, starts, lengths, tables):
    """The ids of the words that are tokens of up to 15 bytes: (W,) int32, −1 for the others."""
    ids = find(tables.short, short_keys(eights, starts, lengths))
    longer = np.flatnonzero(lengths > 7)
    ids[longer] = -1
    longer = longer[lengths[longer] < 16]
    ids[longer] = find(tables.middle, middle_keys(eights, starts[longer], lengths[longer]))
    return ids


def distinct(eights, starts, lengths):
    """One of each different word: (D,), and for each word which of these it is: (W,)."""
    hashes = whole_hashes(eights, starts, lengths)
    order = np.argsort(hashes)
    starts, lengths, hashes = starts[order], lengths[order], hashes[order]
    same = (hashes[1:] == hashes[:-1]) & (lengths[1:] == lengths[:-1]) & (lengths[1:] <= LONGEST)
    left = np.flatnonzero(same)
    for place in range(0, LONGEST, 8):
        left = left[lengths[left] > place]
        if not left.size:
            break
        equal = part(eights, starts[left], lengths[left], place) == part(eights, starts[left + 1], lengths[left], place)
        same[left[~equal]] = False
        left = left[equal]
    first = np.append(True, ~same)[: order.size]
    which = np.empty(order.size, np.intp)
    which[order] = np.cumsum(first) - 1
    return order[first], which


def whole_hashes(eights, starts, lengths):
    """A hash of each word, of its first LONGEST bytes: (W,) uint64."""
    hashes = hashed((part(eights, starts, lengths, 0), lengths.astype(WORD)))
    left = np.arange(starts.size)
    for place in range(8, LONGEST, 8):
        left = left[lengths[left] > place]
        if not left.size:
            break
        hashes[left] = hashed((hashes[left], part(eights, starts[left], lengths[left], place)))
    return hashes


def part(eights, starts, lengths, place):
    """The bytes from place on, up to eight of each word: (W,) uint64."""
    return eights[starts + place] & BYTES.take(np.minimum(lengths - place, 8))


KERNELS = {"encode_words": encode_words}
