"""Merging one word: the two algorithms, the definition, and known results."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_pair import SHORT, Merge, merge_long, merge_short, merge_word


@st.composite
def tables(draw):
    """Merges of a few letters and what they make, in any order of rank: not only those that training would find."""
    merges = {}
    ids = st.integers(0, 9)
    for rank in range(draw(st.integers(0, 12))):
        merges.setdefault((draw(ids), draw(ids)), Merge(rank, draw(ids)))
    return merges


@given(tables(), st.lists(st.integers(0, 9), max_size=40))
def test_merging_equals_its_definition(merges, ids):
    expected = definitions()["bpe"](
        ids, [[list(pair), merge.id] for pair, merge in sorted(merges.items(), key=lambda item: item[1])]
    )
    assert merge_short(ids, merges) == expected
    assert merge_long(ids, merges) == expected


@given(st.integers(0, 200), st.integers(2, 3), st.randoms(use_true_random=False))
def test_long_runs_of_few_letters_merge_alike_in_both_algorithms(length, n_letters, draw):
    ids = [draw.randrange(n_letters) for _ in range(length)]
    merges = {(0, 0): Merge(2, 10), (0, 1): Merge(0, 11), (10, 10): Merge(3, 12), (11, 0): Merge(1, 13), (12, 12): Merge(4, 14)}
    assert merge_short(ids, merges) == merge_long(ids, merges) == merge_word(ids, merges)


def test_merging_leaves_its_argument_alone():
    ids = [0, 0] * SHORT
    merge_word(ids, {(0, 0): Merge(0, 1)})
    merge_word(ids[:2], {(0, 0): Merge(0, 1)})
    assert ids == [0, 0] * SHORT


def test_the_example_of_wikipedia():
    merges = {(ord("a"), ord("a")): Merge(0, 256), (256, ord("b")): Merge(2, 258), (ord("a"), ord("b")): Merge(1, 257)}
    assert merge_word([*b"aaabdaaabac"], merges) == [256, 257, 100, 256, 257, 97, 99]
    merges = {(97, 97): Merge(0, 256), (256, 97): Merge(1, 257), (257, 98): Merge(2, 258)}
    assert merge_word([*b"aaabdaaabac"], merges) == [258, 100, 258, 97, 99]  # minbpe's test


def long_word(letters):
    draw = random.Random(0)
    return "".join(draw.choice(letters) for _ in range(20_000))


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz"])
def test_a_word_of_twenty_thousand_letters_is_merged(gpt2, letters):
    """At this length a quadratic algorithm would take minutes."""
    assert gpt2.decode(gpt2.encode(long_word(letters))) == long_word(letters)


@pytest.mark.oracle
@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz"])
def test_a_word_of_twenty_thousand_letters_equals_tiktokens(gpt2, tiktoken_gpt2, letters):
    assert gpt2.encode(long_word(letters)) == tiktoken_gpt2.encode(long_word(letters))
