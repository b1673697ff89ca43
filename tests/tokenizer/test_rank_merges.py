"""Merges by rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.byte_pair import NEVER, Merge, merge_word
from refllm.tokenizer.rank_merges import RankMerges

SMALL = {i: bytes([i]) for i in range(256)} | {300: b"ab", 301: b"abab", 302: b"bc", 303: b"abc", 304: b"xyz"}


def test_two_tokens_merge_where_their_bytes_joined_are_a_token():
    merges = RankMerges(SMALL)
    assert merges.get((97, 98)) == Merge(300, 300)
    assert merges.get((300, 99)) == Merge(303, 303)
    assert merges.get((97, 302)) == Merge(303, 303)
    assert merges.get((98, 97)) is NEVER


def test_each_token_is_made_by_one_pair_and_some_by_none():
    assert RankMerges(SMALL).pairs() == [(97, 98), (300, 300), (98, 99), (300, 99)]


def test_the_pairs_of_gpt2_are_its_merges(gpt2):
    pairs = gpt2.model.pairs()[:3000]
    vocabulary = {id: token for id, token in gpt2.model.vocabulary.items() if id < 256 + len(pairs)}
    assert RankMerges(vocabulary).pairs() == pairs


@given(st.binary(max_size=60) | st.text(st.sampled_from("abcx"), max_size=60).map(str.encode))
def test_the_pairs_merge_every_word_as_the_ranks_do(word):
    merges = RankMerges(SMALL)
    table = {pair: merges.get(pair) for pair in merges.pairs()}
    assert merge_word(list(word), merges) == merge_word(list(word), table)


@given(data=st.data())
def test_ranks_merge_a_text_as_gpt2s_merges_do(gpt2, hard_text, data):
    ids = gpt2.model.encode(data.draw(hard_text))
    word = [gpt2.model._byte_ids[byte] for byte in gpt2.decode_bytes(ids)]
    assert merge_word(word, RankMerges(gpt2.model.vocabulary)) == merge_word(word, gpt2.model.merges)


@pytest.mark.parametrize("length", [20, 200])
def test_short_and_long_words_merge_alike(length):
    word = list(b"abababcabxyz" * length)[:length]
    assert merge_word(word, RankMerges(SMALL)) == merge_word(
        word, {pair: RankMerges(SMALL).get(pair) for pair in RankMerges(SMALL).pairs()}
    )
