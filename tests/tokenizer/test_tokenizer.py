"""The tokenizer's doors: text in, ids out, and back."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import namespace, use
from refllm.conformance.specification import definitions
from refllm.tokenizer import AddedToken, Template, Tokenizer
from refllm.tokenizer.normalizers import Lowercase, Normalizer, Replace
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
def test_an_array_of_ids_equals_the_list(trained, backend, hard_text, data):
    text = data.draw(hard_text) * data.draw(st.sampled_from([1, 40]))
    array = trained.encode_array(text, allowed_special="all", eos=True, backend=backend.name)
    assert array.dtype == backend.xp.int32
    assert backend.xp.to_numpy(array).tolist() == trained.encode(text, allowed_special="all", eos=True)
    assert trained.decode(array, skip_special=True) == text.replace(END, "")
    with use(backend):
        assert namespace(trained.encode_array(text, disallowed_special=())) is backend.xp


@given(data=st.data())
def test_a_batch_equals_its_texts_one_by_one(trained, hard_text, data):
    texts = data.draw(st.lists(hard_text, max_size=4))
    singles = [trained.encode(text, allowed_special="all", eos=True) for text in texts]
    assert trained.encode_batch(texts, allowed_special="all", eos=True) == singles
    assert trained.encode_batch(iter(texts), disallowed_special=()) == [trained.encode(t, disallowed_special=()) for t in texts]


@given(data=st.data())
def test_the_count_is_the_number_of_ids(trained, hard_text, data):
    text = data.draw(hard_text)
    assert trained.count(text, allowed_special="all") == len(trained.encode(text, allowed_special="all"))
    assert trained.count(text, disallowed_special=()) == len(trained.encode(text, disallowed_special=()))


def test_the_count_of_a_book_is_the_number_of_its_ids(trained, topics):
    assert trained.count(topics[:50_000]) == len(trained.encode(topics[:50_000]))


@given(data=st.data())
def test_spans_cover_the_text_in_order(trained, broken_text, data):
    text = data.draw(broken_text)
    ids, spans = trained.encode_with_offsets(text, allowed_special="all")
    assert ids == trained.encode(text, allowed_special="all")
    bounds = [(0, 0), *spans, (len(text), len(text))]
    for (start, end), (next_start, next_end) in zip(bounds, bounds[1:], strict=False):
        assert start <= next_start <= end <= next_end


@given(data=st.data())
def test_a_span_of_whole_characters_is_the_tokens_text(trained, hard_text, data):
    text = data.draw(hard_text)
    for id, (start, end) in zip(*trained.encode_with_offsets(text, allowed_special="all"), strict=True):
        token = trained.bytes_of(id)
        assert token in text[start:end].encode()
        if "\ufffd" not in token.decode("utf-8", "replace"):
            assert text[start:end].encode() == token


def test_spans_are_those_of_the_text_as_given(trained):
    ids, spans = trained.encode_with_offsets(f"\ud83d\ude00{END}\ud800.", allowed_special="all", eos=True)
    assert ids[-1] == trained.eos
    assert spans == [*[(0, 2)] * 4, (2, 15), *[(15, 16)] * 3, (16, 17), (17, 17)]


def test_a_normalizer_changes_the_text_between_added_tokens(trained):
    tokenizer = Tokenizer(trained.model, trained.added, normalizer=Normalizer((Lowercase(), Replace("x", False, "é"))))
    assert tokenizer.encode(f"THE{END}X", allowed_special="all") == [*trained.encode("the"), trained.eos, *trained.encode("é")]
    assert tokenizer.encode_with_offsets("THEX")[1] == [*trained.encode_with_offsets("the")[1], (3, 4), (3, 4)][-3:]
    assert tokenizer.decode(tokenizer.encode("THE")) == "the"


def test_bos_and_eos_stand_around_where_they_are_asked_for(trained):
    tokenizer = Tokenizer(trained.model, [AddedToken(2000, "<s>", True), AddedToken(2001, "</s>", True)])
    inner = trained.encode("the text")
    assert tokenizer.encode("the text", bos=True, eos=True) == [2000, *inner, 2001]
    assert tokenizer.encode_array("the text", bos=True, backend="numpy").tolist() == [2000, *inner]
    assert tokenizer.encode_batch(["", "the text"], eos=True) == [[2001], [*inner, 2001]]
    assert tokenizer.encode_with_offsets("the text", bos=True, eos=True)[1][:: len(inner) + 1] == [(0, 0), (8, 8)]


def test_the_template_says_what_is_usual_around_a_text(trained):
    added = [AddedToken(2000, "[CLS]", True), AddedToken(2001, "[SEP]", True)]
    tokenizer = Tokenizer(trained.model, added, template=Template((2000,), (2001,)))
    assert tokenizer.with_special_tokens([5]) == [2000, 5, 2001]
    assert (tokenizer.bos, tokenizer.eos) == (2000, 2001)
    assert trained.with_special_tokens(iter([5])) == [5]


def test_ids_may_be_any_whole_numbers(trained, backend):
    ids = trained.encode("the text")
    xp = backend.xp
    for same in (ids, tuple(ids), iter(ids), np.array(ids), [np.int64(id) for id in ids], xp.asarray(ids, dtype=xp.int32)):
        assert trained.decode(same) == "the text"
    assert trained.tokens(ids[:1]) == [trained.bytes_of(ids[0])]
    assert trained.tokens([]) == []


def test_special_tokens_are_left_out_where_that_is_asked_for(extended):
    ids = extended.encode("the<a>cat", allowed_special="all")
    assert extended.decode(ids) == "the<a>cat"
    assert extended.decode(ids, skip_special=True) == "thecat"
    assert [extended.is_special(id) for id in (2000, 2003, 5)] == [True, False, False]


def test_tokens_are_found_by_their_text_or_bytes(trained):
    for id in (0, 100, 300, 700):
        assert trained.id_of(trained.bytes_of(id)) == id
    assert trained.bytes_of(trained.id_of(" the")) == b" the"
    assert trained.id_of(END) == trained.eos


def test_a_tokenizer_tells_what_it_is(trained, extended):
    assert repr(trained) == "<Tokenizer: ByteLevelBPE, 1,024 tokens, 1 of them added, eos 1023 '<|endoftext|>'>"
    assert (len(trained), len(extended)) == (1024, 1023 + 4)


def test_threads_encode_alike(trained, topics):
    texts = [topics[i : i + 400] for i in range(0, 40_000, 400)]
    tokenizer = Tokenizer(type(trained.model)(trained.model.vocabulary, trained.model.merges), trained.added)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == trained.encode_batch(texts)


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


def test_a_mask_is_known_by_its_name_where_it_is_special(trained):
    assert trained.mask is None
    for name in ("[MASK]", "<mask>", "<|mask|>"):
        assert Tokenizer(trained.model, [AddedToken(2000, name, True)]).mask == 2000
        assert Tokenizer(trained.model, [AddedToken(2000, name, False)]).mask is None


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
        (lambda t: t.decode([1.0]), TypeError, r"token id 1\.0 is float; ids are whole numbers\."),
        (lambda t: t.decode(np.array([1.0])), TypeError, r"token id 1\.0 is float; ids are whole numbers\."),
        (lambda t: t.decode(["a"]), TypeError, r"token id 'a' is str; ids are whole numbers\."),
        (lambda t: t.decode([None]), TypeError, r"token id None is NoneType; ids are whole numbers\."),
        (
            lambda t: t.decode(np.zeros((2, 3), np.int32)),
            ValueError,
            r"ids has shape \(2, 3\); decode needs \(tokens,\)\. For a batch decode each row\.",
        ),
        (lambda t: t.decode(5), TypeError, r"ids is int; decode needs token ids, such as \[1, 2\]\. For one id write \[id\]\."),
        (lambda t: t.decode("text"), TypeError, r"ids is str; decode needs token ids, such as .*"),
        (lambda t: t.encode_batch("text"), TypeError, r"texts is one str; encode_batch needs several, such as \[text\]\. .*"),
        (
            lambda t: t.encode("", bos=True),
            ValueError,
            r"bos=True needs a token for it, and this vocabulary has none; pass Tokenizer\(…, bos=id\)\.",
        ),
        (
            lambda t: Tokenizer(t.model, [AddedToken(2000, "\ud800", True)]),
            ValueError,
            r"the added token '\\ud800' holds a surrogate, which UTF-8 cannot carry\.",
        ),
        (
            lambda t: Tokenizer(t.model, template=Template((9999,))),
            ValueError,
            r"the template puts id 9999 around a text, which is not in the vocabulary\.",
        ),
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
