"""Merges by rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import rank_merges
from refllm.tokenizer.byte_pair import NEVER, Merge, merge_word
from refllm.tokenizer.rank_merges import RankMerges, canonical_merges

SMALL = {i: bytes([i]) for i in range(256)} | {300: b"ab", 301: b"abab", 302: b"bc", 303: b"abc", 304: b"xyz"}


def test_two_tokens_merge_where_their_bytes_joined_are_a_token():
    merges = RankMerges(SMALL)
    assert merges.get((97, 98)) == Merge(300, 300)
    assert merges.get((300, 99)) == Merge(303, 303)
    assert merges.get((97, 302)) == Merge(303, 303)
    assert merges.get((98, 97)) is NEVER


def test_each_token_is_made_by_one_pair_and_some_by_none():
    assert RankMerges(SMALL).pairs() == [(97, 98), (300, 300), (98, 99), (300, 99)]


BYTES = {i: bytes([i]) for i in range(256)}
vocabularies = st.lists(
    st.text(st.sampled_from("abc"), min_size=2, max_size=6).map(str.encode) | st.binary(min_size=2, max_size=3), unique=True
).map(lambda tokens: BYTES | dict(enumerate(tokens, 256)))


@given(vocabularies)
def test_the_one_pair_of_a_token_is_what_its_bytes_come_to(vocabulary):
    """By the definition: the merges of its bytes, in whatever order the ranks stand, until two tokens are left."""
    expected = []
    for id in range(256, len(vocabulary)):
        left = merge_all_but_the_last(vocabulary, id)
        if len(left) == 2:
            expected.append((*left, id, id))
    assert list(zip(*(a.tolist() for a in canonical_merges(vocabulary)), strict=True)) == expected


def merge_all_but_the_last(vocabulary, id):
    merges, left = RankMerges(vocabulary), list(vocabulary[id])
    while (
        len(left) > 2
        and (lowest := min((merges.get(pair), i) for i, pair in enumerate(zip(left, left[1:], strict=False))))[0] != NEVER
    ):
        merge, i = lowest
        left[i : i + 2] = [merge.id]
    return left


@given(vocabularies, st.text(st.sampled_from("abc"), max_size=60).map(str.encode))
def test_canonical_pairs_merge_every_word_as_all_pairs_do(vocabulary, word):
    merges = RankMerges(vocabulary)
    table = {pair: merges.get(pair) for pair in merges.pairs()}
    assert merge_word(list(word), table) == merge_word(list(word), merges)


@pytest.mark.parametrize("multiplier", [rank_merges.MULTIPLIER, 1])
def test_tokens_that_share_a_hash_are_told_apart(multiplier, monkeypatch):
    """With the multiplier 1 a hash is the sum of the bytes, so that 240 242 and 241 241 have the same, as have ab and ba."""
    monkeypatch.setattr(rank_merges, "MULTIPLIER", multiplier)
    vocabulary = BYTES | {256: b"\xf0\xf2", 257: b"\xf1\xf1\x80", 258: b"\xf0\xf2\x80\x80"}
    assert RankMerges(vocabulary).pairs() == [(240, 242)]
    assert RankMerges(BYTES | {256: b"ab", 257: b"ba", 258: b"aba"}).pairs() == [(97, 98), (98, 97), (256, 97)]


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
