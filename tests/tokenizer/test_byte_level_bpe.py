"""The byte-level BPE model."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.tokenizer import byte_level_bpe
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.byte_pair import merge_word
from refllm.tokenizer.words import pretokenize
from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K
from refllm.tokenizer.words.pretokenize import words

PATTERNS = [GPT2, CL100K, O200K, LLAMA3, r"[a-z]+|\s"]
BYTES = {i: bytes([i]) for i in range(256)}


@given(data=st.data())
def test_ids_are_those_of_each_word_merged_on_its_own(trained, hard_text, data):
    text, model = data.draw(hard_text), trained.model
    ids = {token: id for id, token in model.vocabulary.items()}
    expected = [id for word in words(text) for id in merge_word([ids[bytes([b])] for b in word.encode()], model.merges)]
    assert model.encode(text) == expected


def alone(model, text):
    """The ids of a text, word by word."""
    return [id for word in words(text, model.pattern) for id in model._encode_word(word)]


@pytest.fixture(scope="module", params=PATTERNS, ids=["gpt2", "cl100k", "o200k", "llama3", "no array form"])
def model(trained, request):
    return ByteLevelBPE(trained.model.vocabulary, trained.model.merges, request.param)


@given(data=st.data())
def test_arrays_give_the_ids_that_each_word_has_alone(backend, model, hard_text, data):
    text = data.draw(hard_text)
    ids = model.encode_array(text, backend.xp)
    assert ids.dtype == backend.xp.int32
    assert backend.xp.to_numpy(ids).tolist() == alone(model, text)


@given(data=st.data())
def test_a_text_long_enough_for_arrays_has_the_ids_of_its_words(model, hard_text, data):
    text = data.draw(hard_text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_level_bpe, "LONG", 8)
        patch.setattr(byte_level_bpe, "PIECE", 16)
        patch.setattr(pretokenize, "CHUNK", 4)
        ids = model.encode(text)
        assert load("numpy").xp.to_numpy(model.encode_array(text, load("numpy").xp)).tolist() == ids
    assert ids == alone(model, text)
    assert all(type(id) is int for id in ids)


@given(data=st.data(), more=st.integers(-1, 1))
def test_ids_do_not_change_where_arrays_take_over(trained, topics, data, more):
    start = data.draw(st.integers(0, len(topics) - 2 * byte_level_bpe.LONG))
    text = topics[start : start + byte_level_bpe.LONG + more]
    assert trained.model.encode(text) == alone(trained.model, text)


def test_a_book_encodes_alike_in_pieces_of_any_size(trained, topics, monkeypatch):
    xp = load("numpy").xp
    whole = trained.model.encode_array(topics, xp)
    monkeypatch.setattr(pretokenize, "CHUNK", 1000)
    np.testing.assert_array_equal(trained.model.encode_array(topics, xp), whole)
    monkeypatch.setattr(byte_level_bpe, "PIECE", 10_000)
    np.testing.assert_array_equal(trained.model.encode_array(topics, xp), whole)
    assert trained.model.encode(topics) == whole.tolist() == alone(trained.model, topics)


def test_the_ids_of_a_long_text_share_their_ints(trained, topics):
    ids = trained.model.encode(topics)
    assert len({id(token) for token in ids}) <= trained.vocab_size


def test_a_hundred_thousand_equal_letters_have_the_ids_of_one_word(gpt2):
    assert gpt2.model.encode("a" * 100_000) == gpt2.model._encode_word("a" * 100_000)


def test_a_whole_word_is_its_token_where_the_model_says_so():
    vocabulary = BYTES | {256: b"ab", 257: b"abc"}  # no merge makes abc
    assert ByteLevelBPE.from_merges(vocabulary, [(97, 98)]).encode("abc abcd") == [256, 99, 32, 256, 99, 100]
    assert ByteLevelBPE.from_merges(vocabulary, [(97, 98)], whole_words=True).encode("abc abcd") == [257, 32, 256, 99, 100]


def test_merges_are_listed_in_order_of_rank(trained):
    again = ByteLevelBPE.from_merges(trained.model.vocabulary, trained.model.pairs())
    assert again.merges == trained.model.merges
    assert [trained.model.merges[pair].rank for pair in trained.model.pairs()] == list(range(len(again.merges)))


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(ValueError, match=r"^the vocabulary lacks 2 of the 256 bytes, such as 0x61; it needs all\.$"):
        ByteLevelBPE({id: token for id, token in BYTES.items() if token not in (b"a", b"b")}, {})


def test_a_merge_that_makes_no_token_is_refused():
    with pytest.raises(ValueError, match=r"^merge 1 makes b'cd', which is not in the vocabulary\.$"):
        ByteLevelBPE.from_merges(BYTES | {256: b"ab"}, [(97, 98), (99, 100)])


def test_ids_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^the ids go from 0 to 4194304; they must be from 0 up, below 4,194,304\.$"):
        ByteLevelBPE(BYTES | {1 << 22: b"ab"}, {})
    with pytest.raises(ValueError, match=r"^the ids go from -1 to 255; they must be from 0 up"):
        ByteLevelBPE(BYTES | {-1: b"ab"}, {})


def test_a_word_is_its_token_only_where_the_merges_make_it(trained):
    vocabulary = BYTES | {256: b"ab", 257: b"bc", 258: b"abc"}  # abc from a and bc, but ab comes first
    model = ByteLevelBPE.from_merges(vocabulary, [(97, 98), (98, 99), (97, 257)])
    assert model.encode("abc") == model.encode_array("abc", load("numpy").xp).tolist() == [256, 99]
    assert trained.model._whole.keys() == set(trained.model.vocabulary.values())


def test_an_empty_token_is_no_word():
    model = ByteLevelBPE.from_merges(BYTES | {256: b"", 257: b"ab"}, [(97, 98)], whole_words=True)
    assert model.encode("abc") == model.encode_array("abc", load("numpy").xp).tolist() == [257, 99]


@given(data=st.data())
def test_texts_encoded_together_have_the_ids_they_have_alone(model, hard_text, data):
    texts = data.draw(st.lists(hard_text | st.just("") | st.just("ab \n" * 200), max_size=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_level_bpe, "LONG", 1)
        patch.setattr(byte_level_bpe, "PIECE", data.draw(st.sampled_from([1, 30, 1000, 1 << 19])))
        assert model.encode_batch(texts) == [alone(model, text) for text in texts]


@given(st.lists(st.text("ab", max_size=4)), st.integers(1, 9))
def test_groups_hold_the_texts_in_order_and_no_more_than_their_size(texts, size):
    groups = list(byte_level_bpe.grouped(texts, size))
    assert [text for group in groups for text in group] == texts
    assert all(len(group) == 1 or (all(group) and sum(map(len, group)) <= size) for group in groups)
    assert all(sum(map(len, (*a, b[0]))) > size or not all((*a, *b)) for a, b in itertools.pairwise(groups))
