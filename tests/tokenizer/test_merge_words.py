"""Merging many words at once equals merging each alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels
from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.merge_words import merge_table, merge_words


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


@pytest.fixture(params=["kernels on", "kernels off"], scope="module")
def plain_or_fast(request, backend):
    """The backend with its own kernels in force, and with none."""
    with kernels(backend, backend.kernels if request.param == "kernels on" else {}):
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
def test_merging_many_words_equals_merging_each_by_the_definition(plain_or_fast, parallel, merges, words):
    assert merged(plain_or_fast, words, merge_table(merges, plain_or_fast.xp, parallel)) == defined(words, merges)


@pytest.mark.parametrize("parallel", [True, False])
@given(canonical_tables(), words)
def test_merging_safe_pairs_at_once_equals_the_definition(plain_or_fast, parallel, merges, words):
    table = merge_table(merges, plain_or_fast.xp, parallel)
    assert (table.left_bounds is not None) == parallel
    assert merged(plain_or_fast, words, table) == defined(words, merges)
