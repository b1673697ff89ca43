"""Added tokens found in a text as Hugging Face's tokenizers finds them."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.added_tokens import WHITESPACE, Finder, is_word
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.normalizers import Form, Lowercase, Normalizer, Prepend

BYTES = ByteLevelBPE({i: bytes([i]) for i in range(256)}, {})
CONTENTS = ["<x>", "<x>y", "xx", "ab", " a", "a ", "\n", "ÉÉ", "e\u0301", "ß.", "one two", "_1", "\u2160", "ÀB"]
NORMALIZERS = {"none": (), "lower": (Lowercase(),), "nfkc": (Form("NFKC"),), "both": (Form("NFD"), Lowercase(), Prepend("x"))}


def cut(text, *tokens):
    return [(text[start:end], token and token.id) for start, end, token in Finder((t.content, t) for t in tokens).cut(text)]


@pytest.mark.parametrize(
    ("token", "text", "expected"),
    [
        (AddedToken(7, "<x>", True), "a <x> b", [("a ", None), ("<x>", 7), (" b", None)]),
        (AddedToken(7, "<x>", True, lstrip=True), "a \n<x> b", [("a", None), (" \n<x>", 7), (" b", None)]),
        (AddedToken(7, "<x>", True, rstrip=True), "a <x>\t\u3000b", [("a ", None), ("<x>\t\u3000", 7), ("b", None)]),
        (AddedToken(7, "x", True, single_word=True), "x ax x1 x_ .x. xé x\u0301 x", None),
        (AddedToken(7, "x", True, lstrip=True, rstrip=True), " x  x ", [(" x  ", 7), ("x ", 7)]),
    ],
)
def test_each_flag_says_where_a_token_is_found_and_how_far_it_reaches(token, text, expected):
    if expected is None:
        expected = [("x", 7), (" ax x1 x_ .", None), ("x", 7), (". xé x\u0301 ", None), ("x", 7)]
    assert cut(text, token) == expected


def test_the_longest_of_several_tokens_is_found_and_of_equal_ones_the_first():
    tokens = [AddedToken(1, "<a>", True), AddedToken(2, "<a><b>", True)]
    assert cut("<a><b><a>", *tokens) == [("<a><b>", 2), ("<a>", 1)]
    finder = Finder([("a", tokens[0]), ("a", tokens[1])])
    assert [token.id for _, _, token in finder.cut("aa")] == [1, 1]


@given(text=st.text(st.sampled_from("ab<> "), max_size=20), contents=st.lists(st.sampled_from(["<a>", "<a", "b", "ab", " b"])))
def test_added_tokens_are_cut_out_as_defined(text, contents):
    tokens = [AddedToken(i, content, True) for i, content in enumerate(contents)]
    assert [part for part, _ in cut(text, *tokens)] == definitions()["cut_at_tokens"](text, contents)


@pytest.mark.parametrize(
    ("content", "flags", "text", "expected"),
    [
        (" a", {}, "<x> a", ["<x> ", " a"]),
        (" a", {"lstrip": True}, "<x> a", ["<x> ", "a"]),
        ("\n", {"lstrip": True}, "<x>\n.", ["<x>\n", "."]),
    ],
)
def test_whitespace_that_two_tokens_want_goes_to_both_or_to_the_first(content, flags, text, expected):
    tokens = AddedToken(1, "<x>", True, rstrip=True), AddedToken(2, content, True, **flags)
    assert [part for part, _ in cut(text, *tokens)] == expected


def test_nothing_is_found_where_no_token_is():
    assert cut("text") == [("text", None)]
    assert cut("") == []


def test_whitespace_is_unicodes():
    python = {chr(point) for point in range(0x110000) if chr(point).isspace()}
    assert python - WHITESPACE == set("\x1c\x1d\x1e\x1f")
    assert python >= WHITESPACE


def test_letters_marks_digits_and_connectors_are_of_words():
    assert all(map(is_word, "aÉ中ªʰ\u0301\u0903٣Ⅷ_‿\u200d\u24b6🅰"))
    assert not any(map(is_word, " .-²½€😀\x85\ue000"))
    assert not is_word("")
    for character in "abz09_é\u0301":
        assert is_word(character) == (unicodedata.category(character)[0] in "LMN" or character == "_")


flags = st.fixed_dictionaries({name: st.booleans() for name in ("special", "lstrip", "rstrip", "single_word", "normalized")})


@st.composite
def tokenizers_and_texts(draw):
    contents = draw(st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=5, unique=True))
    tokens = [AddedToken(300 + i, content, **draw(flags)) for i, content in enumerate(contents)]
    steps = NORMALIZERS[draw(st.sampled_from(sorted(NORMALIZERS)))]
    text = "".join(draw(st.lists(st.sampled_from([*CONTENTS, "  ", "A", "X", "x", "e", "É", "1", ".", "à"]), max_size=10)))
    return Tokenizer(BYTES, tokens, normalizer=Normalizer(steps) if steps else None), text


@pytest.mark.oracle
@given(tokenizers_and_texts())
def test_added_tokens_are_found_where_tokenizers_finds_them(drawn):
    import tokenizers

    from refllm.tokenizer.formats.hugging_face import to_document

    ours, text = drawn
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_document(ours)))
    try:
        encoded = theirs.encode(text)
    except BaseException as error:  # not Exception: tokenizers panics where a token lies in whitespace that another took along
        if "bad split" not in str(error):
            raise
        return
    ids, spans = ours.encode_with_offsets(text, allowed_special="all")
    assert ids == ours.encode(text, allowed_special="all") == encoded.ids
    if ours.normalizer is None or Form("NFKC") not in ours.normalizer.steps:
        assert spans == encoded.offsets
    else:  # of characters that were composed, tokenizers counts the first only
        assert [start for start, _ in spans] == [start for start, _ in encoded.offsets]
