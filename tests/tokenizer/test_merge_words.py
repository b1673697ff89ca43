"""Merging many words at once equals merging each alone."""

import gc
import random
from collections.abc import Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import Backend, kernels, load
from refllm.backends.kernels import numpy_merge
from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_pair import Merge, merge_word
from refllm.tokenizer.formats.ranks import read_vocabulary
from refllm.tokenizer.merge_words import adjacent, halves, merge_table, merge_words, safe_pairs
from refllm.tokenizer.rank_merges import canonical_merges


@st.composite
def tables(draw):
    """Merges of a few letters and what they make, in any order of rank: not only those that training would find."""
    merges = {}
    ids = st.integers(0, 9)
    for rank in range(draw(st.integers(0, 12))):
        merges.setdefault((draw(ids), draw(ids)), Merge(rank, draw(ids)))
    return merges


@st.composite
def canonical_tables(draw):
    """Merges of four letters as training makes them: pair after pair of a text becomes a token, though here not the commonest."""
    choose = draw(st.randoms(use_true_random=False))
    text, merges = [choose.randrange(4) for _ in range(60)], {}
    for rank in range(draw(st.integers(0, 25))):
        if len(text) == 1:
            break
        i = choose.randrange(len(text) - 1)
        merges[text[i], text[i + 1]] = merge = Merge(rank, 4 + rank)
        text = merge_word(text, {(text[i], text[i + 1]): merge})
    return merges


words = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), max_size=8)


# Few words, words side by side, long ones by safe pairs and then from the heap, and by safe pairs alone.
SIZES = {"kernels": {}, "columns": {"FEW": 0}, "heap": {"FEW": 0, "SHORT": 3}, "rounds": {"FEW": 0, "SHORT": 3, "MANY": 0}}


class Way(NamedTuple):
    """A backend and how it merges: with which kernels, and these of which sizes."""

    backend: Backend
    kernels: Mapping
    sizes: Mapping

    @property
    def xp(self):
        return self.backend.xp

    @contextmanager
    def in_force(self):
        with pytest.MonkeyPatch.context() as patch, kernels(self.backend, self.kernels):
            for name, value in self.sizes.items():
                patch.setattr(numpy_merge, name, value)
            yield


@pytest.fixture(params=SIZES, scope="module")
def fast(request):
    """NumPy with its kernels, whose every way of merging is at work on the small words of these tests."""
    return Way(load("numpy"), load("numpy").kernels, SIZES[request.param])


@pytest.fixture(scope="module")
def plain(backend):
    """Each backend without kernels."""
    return Way(backend, {}, {})


def merged(way, words, table):
    """Each word's ids, merged all at once."""
    xp = way.xp
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
    symbols = np.array([id for word in words for id in word], np.int32)
    with way.in_force():
        ids, starts = map(xp.to_numpy, merge_words(xp.from_numpy(symbols), xp.from_numpy(starts), table))
    assert ids.dtype == starts.dtype == np.int32
    return [word.tolist() for word in np.split(ids, starts)[1:]]


def defined(words, merges):
    """Each word's ids by the specification."""
    ranked = [[list(pair), merge.id] for pair, merge in sorted(merges.items(), key=lambda item: item[1])]
    return definitions()["merge_words"](words, ranked)


@pytest.mark.parametrize("parallel", [True, False])
@given(tables(), words)
def test_merging_many_words_equals_merging_each_by_the_definition(plain, parallel, merges, words):
    assert merged(plain, words, merge_table(merges, plain.xp, parallel)) == defined(words, merges)


@given(canonical_tables(), words)
def test_merging_safe_pairs_at_once_equals_the_definition(plain, merges, words):
    table = merge_table(merges, plain.xp)
    assert table.left_bounds is not None
    assert merged(plain, words, table) == defined(words, merges)


@given(canonical_tables().filter(bool), words)
def test_a_round_merges_every_pair_that_the_definition_calls_safe(merges, words):
    xp, ranked = load("numpy").xp, [[list(pair), merge.id] for pair, merge in merges.items()]
    table = merge_table(merges, xp)
    for word in words:
        first = np.arange(len(word)) == 0
        pairs, ranks, _ = adjacent(np.int32(word), first, table)
        chosen = np.flatnonzero(safe_pairs(pairs, ranks, np.zeros(1, np.int32), first, table))
        assert set(definitions()["bpe_safe"](word, ranked)) <= set(chosen)


@given(canonical_tables(), words)
def test_rounds_of_safe_pairs_end_where_single_merges_do(merges, words):
    ranked = [[list(pair), merge.id] for pair, merge in merges.items()]
    assert [definitions()["bpe_rounds"](word, ranked) for word in words] == defined(words, merges)


@pytest.mark.parametrize("parallel", [True, False])
@given(tables() | canonical_tables(), words)
def test_numpys_kernel_merges_by_the_definition(fast, parallel, merges, words):
    assert merged(fast, words, merge_table(merges, fast.xp, parallel)) == defined(words, merges)


@given(tables() | canonical_tables(), words)
def test_the_halves_of_a_word_are_what_it_comes_to_before_its_last_merge(plain, merges, words):
    assert halved(plain, words, merges) == halved_as_defined(words, merges)


@given(tables() | canonical_tables(), words)
def test_numpys_kernel_finds_the_halves(fast, merges, words):
    assert halved(fast, words, merges) == halved_as_defined(words, merges)


@pytest.mark.parametrize("in_force", [True, False])
def test_a_word_of_two_symbols_is_its_halves(backend, in_force):
    merges = {(0, 1): Merge(0, 4), (4, 2): Merge(1, 5)}
    way = Way(backend, backend.kernels if in_force else {}, {})
    assert halved(way, [[0, 1], [0, 1, 2], [3], [2, 2, 2], [3, 3]], merges) == [
        [0, 1],
        [4, 2],
        [-1, -1],
        [-1, -1],
        [3, 3],
    ]


def halved(way, words, merges):
    """Each word's halves, found all at once."""
    xp = way.xp
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
    symbols = np.array([id for word in words for id in word], np.int32)
    with way.in_force():
        return xp.to_numpy(halves(xp.from_numpy(symbols), xp.from_numpy(starts), merge_table(merges, xp))).tolist()


def halved_as_defined(words, merges):
    """Each word's halves by the specification."""
    ranked = [[list(pair), merge.id] for pair, merge in sorted(merges.items(), key=lambda item: item[1])]
    return definitions()["halves"](words, ranked)


# What is not canonical: a token made in two ways, a rank given twice, a token that ranks below or beside its part.
DOUBLE = {(0, 1): Merge(0, 4), (2, 3): Merge(1, 4)}
TIED = {(0, 1): Merge(0, 4), (2, 3): Merge(0, 5)}
FALLING = {(0, 1): Merge(1, 4), (4, 2): Merge(0, 5)}
FALLING_RIGHT = {(0, 1): Merge(1, 4), (2, 4): Merge(0, 5)}
OF_ITSELF = {(0, 1): Merge(0, 0)}
OF_ITSELF_RIGHT = {(0, 1): Merge(0, 1)}


@pytest.mark.parametrize("merges", [DOUBLE, TIED, FALLING, FALLING_RIGHT, OF_ITSELF, OF_ITSELF_RIGHT])
def test_a_table_that_is_not_canonical_merges_one_pair_a_round(backend, merges):
    assert merge_table(merges, backend.xp).left_bounds is None


A, B, C, D, E, F, G, H = range(8)


def test_a_pair_waits_for_a_lower_one_that_a_merge_on_its_left_will_bring(plain):
    """C D is lower than B C, its only rival at first; but A B is merged before, and AB C is lower than C D."""
    merges = {(A, B): Merge(1, E), (E, C): Merge(3, F), (C, D): Merge(5, G), (B, C): Merge(10, H)}
    assert merged(plain, [[A, B, C, D], [C, D], [B, C, D]], merge_table(merges, plain.xp)) == [[F, D], [G], [B, G]]


def test_a_pair_waits_for_a_lower_one_that_a_merge_on_its_right_will_bring(plain):
    merges = {(C, D): Merge(1, E), (B, E): Merge(3, F), (A, B): Merge(5, G), (B, C): Merge(10, H)}
    assert merged(plain, [[A, B, C, D], [A, B], [A, B, C]], merge_table(merges, plain.xp)) == [[A, F], [G], [G, C]]


RUNS = [
    ([A, B, C, C], {(A, B): Merge(0, C), (C, C): Merge(1, D)}, [D, C]),  # A B makes one more C at the beginning of the run
    ([A, A, A, A, B, C], {(B, C): Merge(1, D), (A, D): Merge(3, E), (A, A): Merge(5, F)}, [F, A, E]),  # the last A goes to B C
]


@pytest.mark.parametrize(("word", "merges", "expected"), RUNS)
def test_a_run_waits_for_what_its_neighbours_become(plain, word, merges, expected):
    assert merged(plain, [word], merge_table(merges, plain.xp)) == [expected]


@pytest.mark.parametrize(("word", "merges", "expected"), RUNS)
def test_a_run_waits_in_numpys_kernel_too(fast, word, merges, expected):
    assert merged(fast, [word, word], merge_table(merges, fast.xp)) == [expected, expected]


@given(st.integers(1, 120), st.integers(1, 3), st.randoms(use_true_random=False))
def test_runs_of_one_letter_merge_from_the_left(plain, length, n_letters, draw):
    merges = {(0, 0): Merge(2, 10), (0, 1): Merge(0, 11), (10, 10): Merge(3, 12), (11, 0): Merge(1, 13), (12, 12): Merge(4, 14)}
    word = [draw.randrange(n_letters) for _ in range(length)]
    assert merged(plain, [word, word], merge_table(merges, plain.xp)) == [merge_word(word, merges)] * 2


@pytest.mark.parametrize("in_force", [True, False])
def test_merging_changes_none_of_its_arguments(backend, in_force):
    xp = backend.xp
    merges = {(0, 1): Merge(0, 4), (4, 4): Merge(1, 5)}
    for n in (2, 200):
        symbols, starts = np.tile(np.int32([0, 1]), 2 * n), np.arange(0, 4 * n, 4, dtype=np.int64)
        given_symbols, given_starts = xp.from_numpy(symbols), xp.from_numpy(starts)
        with kernels(backend, backend.kernels if in_force else {}):
            ids, begins = merge_words(given_symbols, given_starts, merge_table(merges, xp))
        assert xp.to_numpy(ids).tolist() == [5] * n
        assert xp.to_numpy(begins).tolist() == list(range(n))
        assert begins.dtype == given_starts.dtype
        assert np.array_equal(xp.to_numpy(given_symbols), symbols)
        assert np.array_equal(xp.to_numpy(given_starts), starts)


@given(data=st.data())
def test_gpt2_merges_whole_texts_alike_in_every_way(fast, gpt2, gpt2_table, hard_text, data):
    texts = [text for text in data.draw(st.lists(hard_text, max_size=3)) if text]
    words = [[gpt2.model._byte_ids[byte] for byte in text.encode()] for text in texts]
    expected = [merge_word(word, gpt2.model.merges) for word in words]
    assert merged(fast, words, gpt2_table) == expected
    assert merged(fast._replace(kernels={}), words, gpt2_table) == expected


@pytest.fixture(scope="module")
def gpt2_table(gpt2):
    """GPT-2's merges in NumPy's arrays."""
    table = merge_table(gpt2.model.merges, load("numpy").xp)
    assert table.left_bounds is not None
    return table


def texts_of(length):
    """Texts without spaces that merge in very different ways, each of this many characters."""
    draw = random.Random(length)
    alphabets = {
        "one": "a",
        "two": "ab",
        "hex": "0123456789abcdef",
        "random": "abcdefghijklmnopqrstuvwxyz",
        "any": "\n aé中😀-=([",
    }
    return {name: "".join(draw.choice(letters) for _ in range(length)) for name, letters in alphabets.items()}


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["p50k_base", "cl100k_base", "o200k_base"])
def test_texts_that_are_one_word_have_tiktokens_ids(packaged, topics, name):
    import tiktoken

    vocabulary = read_vocabulary(packaged(name))
    theirs = tiktoken.Encoding(
        name, pat_str=r"[\s\S]+", mergeable_ranks={t: id for id, t in vocabulary.items()}, special_tokens={}
    )
    of_bytes = {token: id for id, token in vocabulary.items()}
    table = merge_table(canonical_merges(vocabulary), load("numpy").xp)
    assert table.left_bounds is not None
    draw = random.Random(0)
    longest = [*texts_of(10_000).values(), topics[:10_000], topics[10_000:20_000].replace(" ", "")]
    places = [(draw.randrange(len(topics)), draw.randrange(1, 90)) for _ in range(1000)]
    texts = [
        *longest,
        *(topics[i : i + n] for i, n in places),
        *(text for n in range(1, 300, 5) for text in texts_of(n).values()),
    ]
    words = [[of_bytes[bytes([byte])] for byte in text.encode()] for text in texts]
    for text, ids in zip(texts, merged(Way(load("numpy"), load("numpy").kernels, {}), words, table), strict=True):
        assert ids == theirs.encode(text), text


def test_numpys_kernel_lets_a_table_go_with_its_last_user():
    numpy = load("numpy")
    gc.collect()
    before = len(numpy_merge.READY)
    table = merge_table({(0, 1): Merge(0, 4), (4, 2): Merge(1, 5)}, numpy.xp)
    symbols, starts = np.array([0, 1, 2] * 300, np.int32), np.array([0], np.int32)
    merge_words(symbols, starts, table)
    assert len(numpy_merge.READY) == before + 1
    del table
    gc.collect()
    assert len(numpy_merge.READY) == before
