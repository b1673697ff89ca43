"""The byte-level BPE model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.byte_pair import merge_word
from refllm.tokenizer.words import pretokenize
from refllm.tokenizer.words.pretokenize import words

BYTES = {i: bytes([i]) for i in range(256)}


@given(data=st.data())
def test_ids_are_those_of_each_word_merged_on_its_own(trained, hard_text, data):
    text, model = data.draw(hard_text), trained.model
    ids = {token: id for id, token in model.vocabulary.items()}
    expected = [id for word in words(text) for id in merge_word([ids[bytes([b])] for b in word.encode()], model.merges)]
    assert model.encode(text) == expected


def test_a_book_encodes_alike_in_pieces_of_any_size(trained, topics, monkeypatch):
    whole = trained.model.encode_array(topics, load("numpy").xp)
    monkeypatch.setattr(pretokenize, "CHUNK", 1000)
    np.testing.assert_array_equal(trained.model.encode_array(topics, load("numpy").xp), whole)
    assert trained.model.encode(topics) == whole.tolist()


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
