"""The tokenizer's doors: text in, ids out, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.text import repaired

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def extended(trained):
    """With two special tokens, one inside the other, and two that are added but not special."""
    added = [
        AddedToken(2000 + i, name, special)
        for i, (name, special) in enumerate({"<a>": True, "<a><b>": True, "the cat": False, "the": False}.items())
    ]
    return Tokenizer(trained.model, added)


@given(data=st.data())
def test_decoding_inverts_encoding(trained, hard_text, data):
    text = data.draw(hard_text)
    assert trained.decode(trained.encode(text, disallowed_special=())) == text
    assert trained.decode(trained.encode(text, allowed_special="all")) == text
    assert trained.decode_bytes(trained.encode(text, allowed_special="all")) == text.encode()


@given(data=st.data())
def test_decoding_inverts_encoding_to_the_repaired_text(trained, broken_text, data):
    text = data.draw(broken_text)
    assert trained.decode(trained.encode(text, allowed_special="all")) == repaired(text)


@given(data=st.data())
def test_an_array_of_ids_equals_the_list(trained, hard_text, data):
    text = data.draw(hard_text) * data.draw(st.sampled_from([1, 40]))
    array = trained.encode_array(text, allowed_special="all")
    assert array.dtype == np.int32
    assert array.tolist() == trained.encode(text, allowed_special="all")
    assert trained.decode(array) == text


def test_a_whole_book_comes_back(trained, topics):
    assert trained.decode(trained.encode_array(topics)) == topics


def test_a_special_token_is_its_id_where_it_is_allowed(trained):
    assert trained.encode(f"a{END}b", allowed_special={END}) == [*trained.encode("a"), trained.eos, *trained.encode("b")]
    assert trained.encode(END, allowed_special="all") == [trained.eos]


def test_a_special_token_is_text_where_it_is_neither_allowed_nor_disallowed(trained):
    ids = trained.encode(END, disallowed_special=())
    assert trained.eos not in ids
    assert trained.decode(ids) == END


def test_a_special_token_in_the_text_is_an_error_by_default(trained):
    with pytest.raises(
        ValueError, match=r"^the text spells the special token '<\|endoftext\|>' at character 2; pass allowed_special="
    ):
        trained.encode(f"a {END}")
    with pytest.raises(ValueError, match="the special token '<a>' at character 0"):
        Tokenizer(trained.model, [AddedToken(2000, "<a>", True)]).encode("<a>", disallowed_special={"<a>"})


def test_the_longest_added_token_wins(extended):
    assert extended.encode("<a><b><a>", allowed_special="all") == [2001, 2000]
    assert extended.encode("the cat", allowed_special="all") == [2002]
    assert extended.encode("the ca") == [2003, *extended.model.encode(" ca")]


def test_a_token_that_is_added_but_not_special_needs_no_permission(extended):
    assert extended.encode("the") == [2003]
    assert extended.special_tokens == {"<a>", "<a><b>"}


def test_bos_and_eos_are_known_by_their_names(trained):
    names = ["<s>", "</s>"]
    tokenizer = Tokenizer(trained.model, [AddedToken(2000 + i, name, True) for i, name in enumerate(names)])
    assert (tokenizer.bos, tokenizer.eos) == (2000, 2001)
    assert (trained.bos, trained.eos) == (None, 1023)
    assert Tokenizer(trained.model).eos is None
    assert Tokenizer(trained.model, bos=5, eos=6).bos == 5


def test_the_vocabulary_reaches_to_the_largest_id(extended, trained):
    assert trained.vocab_size == 1024
    assert extended.vocab_size == 2004


def test_the_worked_example_makes_six_pairs(gpt2):
    ids = gpt2.encode("I love street food.")
    assert ids == [40, 1842, 4675, 2057, 13]
    assert [gpt2.bytes_of(id) for id in ids] == [b"I", b" love", b" street", b" food", b"."]
    pairs = definitions()["training_pairs"](ids, gpt2.eos, gpt2.eos)
    assert len(pairs) == 6
    assert pairs[0] == [[50256], 40]
    assert pairs[-1] == [[50256, *ids], 50256]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda t: t.encode(b"text"),
            TypeError,
            r"text is bytes; encode needs str\. Decode bytes first: data\.decode\('utf-8'\)\.",
        ),
        (lambda t: t.encode_array(None), TypeError, r"text is NoneType; encode needs str\."),
        (lambda t: t.encode(["a", "b"]), TypeError, r"text is list; encode needs str\."),
        (lambda t: t.decode([1024]), ValueError, r"token id 1024 is not in the vocabulary of 1024 tokens\."),
        (lambda t: t.decode(np.array([-1])), ValueError, r"token id -1 is not in the vocabulary of 1024 tokens\."),
        (lambda t: t.id_of("<pad>"), ValueError, r"'<pad>' is no token of the vocabulary; added tokens: <\|endoftext\|>\."),
        (
            lambda t: Tokenizer(t.model, [AddedToken(5, "<a>", True), AddedToken(5, "<b>", True)]),
            ValueError,
            r"the added tokens '<a>' and '<b>' share id 5\.",
        ),
        (
            lambda t: Tokenizer(t.model, [AddedToken(5, "<a>", True), AddedToken(6, "<a>", True)]),
            ValueError,
            r"the added token '<a>' has two ids, 5 and 6\.",
        ),
        (
            lambda t: Tokenizer(t.model, [AddedToken(5, "", True)]),
            ValueError,
            r"the added token '' with id 5 needs a text, and an id from 0 up, below 4,194,304\.",
        ),
        (lambda t: Tokenizer(t.model, [AddedToken(5, "<a>", True)]), ValueError, r"the added token '<a>' has the id 5 of b'&'\."),
        (lambda t: Tokenizer(t.model, eos=5000), ValueError, r"eos=5000 is not in the vocabulary of 1023 tokens\."),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(trained, call, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        call(trained)


@pytest.mark.oracle
@given(data=st.data())
def test_ids_are_those_of_tiktoken(gpt2, tiktoken_gpt2, broken_text, data):
    text = data.draw(broken_text)
    assert gpt2.encode(text, disallowed_special=()) == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, allowed_special="all") == tiktoken_gpt2.encode(text, allowed_special="all")


@pytest.mark.oracle
def test_books_have_tiktokens_ids(gpt2, tiktoken_gpt2, topics, data):
    shakespeare = (data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    for text in (topics, shakespeare):
        assert gpt2.encode_array(text).tolist() == tiktoken_gpt2.encode_ordinary(text)
