"""Texts and pairs of texts as BERT reads them."""

import pytest

from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.sentence_pair import sentence_pair
from refllm.tokenizer.template import Template
from refllm.tokenizer.word_piece import WordPiece

ADDED = [AddedToken(100, "[UNK]", True), AddedToken(101, "[CLS]", True), AddedToken(102, "[SEP]", True)]
MODEL = WordPiece({0: "the", 3: "##s", 5: "a"}, 100)


def test_a_pair_has_types_that_tell_its_texts_apart():
    tokenizer = Tokenizer(MODEL, ADDED, template=Template((101,), (102,)))
    assert sentence_pair(tokenizer, "the", "as a") == ([101, 0, 102, 5, 3, 5, 102], [0, 0, 0, 1, 1, 1, 1])
    assert sentence_pair(tokenizer, "the") == ([101, 0, 102], [0, 0, 0])
    assert sentence_pair(tokenizer, "", "") == ([101, 102, 102], [0, 0, 1])
    assert sentence_pair(tokenizer, "[SEP]", allowed_special="all")[0] == [101, 102, 102]
    with pytest.raises(ValueError, match=r"spells the special token '\[SEP\]'"):
        sentence_pair(tokenizer, "a", "[SEP]")
    with pytest.raises(ValueError, match="^this tokenizer has no template"):
        sentence_pair(Tokenizer(MODEL, ADDED), "a")
