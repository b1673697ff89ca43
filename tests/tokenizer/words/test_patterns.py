"""The patterns, as Python's re runs them on shadows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K, compiled, shadow
from refllm.tokenizer.words.pretokenize import words_by_pattern
from refllm.tokenizer.words.unicode_categories import members

PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "o200k": O200K, "llama3": LLAMA3}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_shadow_is_as_long_as_its_text_and_keeps_its_ascii(text):
    assert len(shadow(text)) == len(text)
    assert all(ord(s) < 0x100 and (s == c or (ord(c) > 0x7F and ord(s) > 0x7F)) for s, c in zip(shadow(text), text, strict=True))


@pytest.mark.parametrize("name", ["L", "Lu", "Ll", "M", "N", "P", "Sm", "Z", "C"])
@given(character=st.characters(exclude_categories=["Cs"]))
def test_a_category_in_a_pattern_holds_its_members(name, character):
    member = bool(members(name)[ord(character)])
    assert bool(compiled(rf"\p{{{name}}}").fullmatch(shadow(character))) == member
    assert bool(compiled(rf"[^\p{{{name}}}]").fullmatch(shadow(character))) != member
    if len(name) == 1:
        assert bool(compiled(rf"\p{name}").fullmatch(shadow(character))) == member


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"\s+|\S+", "a\x85b\x1cc \u3000d", ["a", "\x85", "b\x1cc", " \u3000", "d"]),
        (r"a$|a\s|\s", "a\n", ["a\n"]),
        (r"(?i:ks)|.", "KSkſK\u017fks", ["KS", "kſ", "Kſ", "ks"]),
        (r"(?i:[s])+|S|s", "sſS", ["sſS"]),
        (r"x(?i:a(?:b|c))d|.", "xABdxabD", ["xABd", "x", "a", "b", "D"]),
        (r"[(?i:s)]+|.", "(s)S", ["(s)", "S"]),
        (r"[$]|\$|.", "$a", ["$", "a"]),
        (r"\[\p{L}\]|.", "[é]é", ["[é]", "é"]),
        (r"b", "abba", ["a", "b", "b", "a"]),
        (r"b", "aéba", ["aé", "b", "a"]),
    ],
)
def test_a_pattern_means_what_it_means_elsewhere(pattern, text, expected):
    assert words_by_pattern(text, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"\d+", r"has \\d, which is not read here\."),
        (r"\P{L}", r"has \\P, which is not read here\."),
        (r"[\S]", r"has \\S, which is not read here\."),
        (r"\u4e00", r"has \\u, which is not read here\."),
        ("[一-龥]", "has characters beyond ASCII, which are not read here"),
        (r"\p{Han}", r"has \\p, which is not read here\."),
        (r"(?i)a", r"has \(\?i, which is not read here\."),
        (r"(a)|b", r"has capturing groups; write \(\?: … \) instead"),
        (r"[a", "is not one that Python's re can run"),
        (r"a)", "is not one that Python's re can run"),
        (r"\p{Xx}", r"^'Xx' is not a general category of Unicode\.$"),
    ],
)
def test_a_pattern_that_would_mean_something_else_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        compiled(pattern)


@pytest.mark.parametrize("name", PATTERNS)
@given(data=st.data())
def test_the_words_of_every_pattern_are_the_text(hard_text, name, data):
    text = data.draw(hard_text)
    assert "".join(words_by_pattern(text, PATTERNS[name])) == text


@pytest.mark.oracle
@pytest.mark.parametrize("name", PATTERNS)
@given(data=st.data())
def test_the_words_of_every_pattern_are_those_of_tokenizers(hard_text, name, data):
    text = data.draw(hard_text)
    spans = hugging_face(name).pre_tokenize_str(text)
    assert words_by_pattern(text, PATTERNS[name]) == [text[start:end] for _, (start, end) in spans]


@pytest.mark.oracle
@pytest.mark.parametrize("name", PATTERNS)
@given(text=st.text(st.sampled_from("aA1.'sSſléʰ中\u0301 \t\n\r/"), max_size=16))
def test_the_words_of_the_deciding_characters_are_those_of_tokenizers(name, text):
    spans = hugging_face(name).pre_tokenize_str(text)
    assert words_by_pattern(text, PATTERNS[name]) == [text[start:end] for _, (start, end) in spans]


def hugging_face(name):
    from tokenizers import Regex, pre_tokenizers

    pattern = PATTERNS[name].replace("{1,3}+", "{1,3}")  # in tokenizers {1,3}+ is no possessive, but a repeated group
    return pre_tokenizers.Split(Regex(pattern), "isolated")
