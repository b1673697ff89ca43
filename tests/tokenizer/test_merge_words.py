"""Merging many words at once equals merging each alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.backends.kernels import numpy_merge
from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.merge_words import halves, merge_table, merge_words


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
    """Merges of four letters as training makes them: each makes a new token, of letters and of tokens made before."""
    merges = {}
    for rank in range(draw(st.integers(0, 25))):
        ids = st.integers(0, 3 + rank)
        merges.setdefault((draw(ids), draw(ids)), Merge(rank, 4 + rank))
    return merges


words = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), max_size=8)


# Few words, words side by side, long ones by safe pairs and then from the heap, and by safe pairs alone.
SIZES = {"kernels": {}, "columns": {"FEW": 0}, "heap": {"FEW": 0, "SHORT": 3}, "rounds": {"FEW": 0, "SHORT": 3, "MANY": 0}}


@pytest.fixture(params=SIZES, scope="module")
def fast(request):
    """NumPy with its kernels, whose every way of merging is at work on the small words of these tests."""
    backend = load("numpy")
    with pytest.MonkeyPatch.context() as patch, kernels(backend, backend.kernels):
        for name, value in SIZES[request.param].items():
            patch.setattr(numpy_merge, name, value)
        yield backend


@pytest.fixture(scope="module")
def plain(backend):
    """Each backend without kernels."""
    with kernels(backend, {}):
        yield backend


def merged(backend, words, table):
    """Each word's ids, merged all at once."""
    xp = backend.xp
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
    symbols = np.array([id for word in words for id in word], np.int32)
    ids, starts = map(xp.to_numpy, merge_words(xp.from_numpy(symbols), xp.from_numpy(starts), table))
    assert ids.dtype == starts.dtype == np.int32
    return [word.tolist() for word in np.split(ids, starts)[1:]]


def defined(words, merges):
    """Each word's ids by the specification."""
    ranked = [[list(pair), merge.id] for pair, merge in sorted(merges.items(), key=lambda item: item[1])]
    return [definitions()["bpe"](word, ranked) for word in words]


@pytest.mark.parametrize("parallel", [True, False])
@given(tables(), words)
def test_merging_many_words_equals_merging_each_by_the_definition(plain, parallel, merges, words):
    assert merged(plain, words, merge_table(merges, plain.xp, parallel)) == defined(words, merges)


@given(canonical_tables(), words)
def test_merging_safe_pairs_at_once_equals_the_definition(plain, merges, words):
    table = merge_table(merges, plain.xp)
    assert table.left_bounds is not None
    assert merged(plain, words, table) == defined(words, merges)


@pytest.mark.parametrize("parallel", [True, False])
@given(tables() | canonical_tables(), words)
def test_numpys_kernel_merges_by_the_definition(fast, parallel, merges, words):
    assert merged(fast, words, merge_table(merges, fast.xp, parallel)) == defined(words, merges)


@given(tables() | canonical_tables(), words)
def test_the_halves_of_a_word_are_what_it_comes_to_before_its_last_merge(plain, merges, words):
    assert halved(plain, words, merges) == [merged_to_two(word, merges) for word in words]


@given(tables() | canonical_tables(), words)
def test_numpys_kernel_finds_the_halves(fast, merges, words):
    assert halved(fast, words, merges) == [merged_to_two(word, merges) for word in words]


def halved(backend, words, merges):
    """Each word's halves, found all at once."""
    xp = backend.xp
    starts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
    symbols = np.array([id for word in words for id in word], np.int32)
    return xp.to_numpy(halves(xp.from_numpy(symbols), xp.from_numpy(starts), merge_table(merges, xp))).tolist()


def merged_to_two(word, merges):
    """A word's lowest pair is merged, leftmost first, while more than two symbols are left."""
    while len(word) > 2:
        ranked = [(merges[pair], i) for i, pair in enumerate(zip(word, word[1:], strict=False)) if pair in merges]
        if not ranked:
            break
        merge, i = min(ranked)
        word = [*word[:i], merge.id, *word[i + 2 :]]
    return word if len(word) == 2 else [-1, -1]
