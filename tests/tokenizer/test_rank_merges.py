"""Merges by rank: the canonical ones stand for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import rank_merges
from refllm.tokenizer.byte_pair import NEVER, Merge, merge_word
from refllm.tokenizer.rank_merges import RankMerges, canonical_merges

BYTES = {i: bytes([i]) for i in range(256)}
SMALL = BYTES | {300: b"ab", 301: b"abab", 302: b"bc", 303: b"abc", 304: b"xyz"}

vocabularies = st.lists(
    st.text(st.sampled_from("abc"), min_size=2, max_size=6).map(str.encode) | st.binary(min_size=2, max_size=3), unique=True
).map(lambda tokens: BYTES | dict(enumerate(tokens, 256)))


class AllPairs:
    """tiktoken's meaning of ranks: any two tokens merge where their bytes joined are a token."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
        self.ids = {token: id for id, token in vocabulary.items()}

    def get(self, pair, default=NEVER):
        id = self.ids.get(self.vocabulary[pair[0]] + self.vocabulary[pair[1]])
        return default if id is None else Merge(id, id)


def test_a_pair_becomes_a_token_where_it_is_the_one_that_makes_it():
    merges = RankMerges(SMALL)
    assert merges.get((97, 98), None) == (300, 300)
    assert merges.get((300, 99), None) == (303, 303)
    assert merges.get((97, 302), None) is None  # a|bc is abc, but ab is made before bc
    assert merges.get((98, 97), None) is None


def test_each_token_is_made_by_one_pair_and_some_by_none():
    assert RankMerges(SMALL).pairs() == [(97, 98), (300, 300), (98, 99), (300, 99)]


@given(vocabularies)
def test_the_one_pair_of_a_token_is_what_its_bytes_come_to(vocabulary):
    """In whatever order the ranks stand."""
    expected = []
    for id in range(256, len(vocabulary)):
        left = merge_all_but_the_last(vocabulary, id)
        if len(left) == 2:
            expected.append((*left, id, id))
    assert list(zip(*(a.tolist() for a in canonical_merges(vocabulary)), strict=True)) == expected


def merge_all_but_the_last(vocabulary, id):
    """A token's bytes, merged until two tokens are left, or none of its pairs merges."""
    merges, left = AllPairs(vocabulary), list(vocabulary[id])
    while len(left) > 2:
        merge, i = min((merges.get(pair), i) for i, pair in enumerate(zip(left, left[1:], strict=False)))
        if merge == NEVER:
            break
        left[i : i + 2] = [merge.id]
    return left


@given(vocabularies, st.text(st.sampled_from("abc"), max_size=60).map(str.encode))
def test_canonical_merges_give_every_word_the_ids_that_all_pairs_give(vocabulary, word):
    assert merge_word(list(word), RankMerges(vocabulary)) == merge_word(list(word), AllPairs(vocabulary))


@pytest.mark.parametrize("length", [20, 200])
def test_short_and_long_words_merge_as_all_pairs_do(length):
    word = list(b"abababcabxyz" * length)[:length]
    assert merge_word(word, RankMerges(SMALL)) == merge_word(word, AllPairs(SMALL))


@pytest.mark.parametrize("multiplier", [rank_merges.MULTIPLIER, 1])
def test_tokens_that_share_a_hash_are_told_apart(multiplier, monkeypatch):
    """With the multiplier 1 a hash is the sum of the bytes, so that 240 242 and 241 241 have the same, as have ab and ba."""
    monkeypatch.setattr(rank_merges, "MULTIPLIER", multiplier)
    vocabulary = BYTES | {256: b"\xf0\xf2", 257: b"\xf1\xf1\x80", 258: b"\xf0\xf2\x80\x80"}
    assert RankMerges(vocabulary).pairs() == [(240, 242)]
    assert RankMerges(BYTES | {256: b"ab", 257: b"ba", 258: b"aba"}).pairs() == [(97, 98), (98, 97), (256, 97)]


def test_the_pairs_of_gpt2_are_its_merges(gpt2):
    vocabulary = {id: token for id, token in gpt2.model.vocabulary.items() if id < 50256}
    assert RankMerges(vocabulary).pairs() == gpt2.model.pairs()


@given(data=st.data())
def test_ranks_merge_a_text_as_gpt2s_merges_do(gpt2, gpt2_by_rank, hard_text, data):
    ids = gpt2.model.encode(data.draw(hard_text))
    word = [gpt2.model._byte_ids[byte] for byte in gpt2.decode_bytes(ids)]
    assert merge_word(word, gpt2_by_rank) == merge_word(word, gpt2.model.merges)


@pytest.fixture(scope="module")
def gpt2_by_rank(gpt2):
    """GPT-2's vocabulary read as a rank file's."""
    return RankMerges(gpt2.model.vocabulary)
