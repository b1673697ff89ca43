"""The patterns, as Python's re runs them on shadows."""

import itertools
import sys
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.words.patterns import (
    CL100K,
    GPT2,
    GPT2_ENCODER,
    LLAMA3,
    O200K,
    QWEN2,
    runner,
    shadow,
)
from refllm.tokenizer.words.pretokenize import check, words_by_pattern
from refllm.tokenizer.words.unicode_categories import members

PATTERNS = {"gpt2": GPT2, "encoder": GPT2_ENCODER, "cl100k": CL100K, "o200k": O200K, "llama3": LLAMA3, "qwen2": QWEN2}
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@pytest.fixture(autouse=True)
def _forget_patterns():
    yield
    runner.cache_clear()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_shadow_is_as_long_as_its_text_and_keeps_its_ascii(text):
    assert len(shadow(text)) == len(text)
    assert all(ord(s) < 0x100 and (s == c or (ord(c) > 0x7F and ord(s) > 0x7F)) for s, c in zip(shadow(text), text, strict=True))


@pytest.mark.parametrize("name", ["L", "Lu", "Ll", "M", "N", "P", "Sm", "Z", "C"])
@given(character=st.characters(exclude_categories=["Cs"]))
def test_a_category_in_a_pattern_holds_its_members(name, character):
    member = bool(members(name)[ord(character)])
    assert bool(runner(rf"\p{{{name}}}").pattern.fullmatch(shadow(character))) == member
    assert bool(runner(rf"[^\p{{{name}}}]").pattern.fullmatch(shadow(character))) != member
    for none in (rf"\P{{{name}}}", rf"\p{{^{name}}}", rf"[\P{{{name}}}]", rf"[^\P{{^{name}}}]"):
        assert bool(runner(none).pattern.fullmatch(shadow(character))) != member
    if len(name) == 1:
        assert bool(runner(rf"\p{name}").pattern.fullmatch(shadow(character))) == member


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
        (r"\d+|[\D]", "1٣é½", ["1٣", "é", "½"]),
        (r"[\S]+|.", "a\x85é ", ["a", "\x85", "é", " "]),
        (r"(a)(?:b)|c", "abc", ["ab", "c"]),
        (r"(?=a)", "baa", ["b", "a", "a"]),
        (r"(ab)|(c)", "abc", ["ab", "c"]),
        (r"a*", "aab", ["aa", "b"]),
        (r"a*|b", "aab", ["aa", "b"]),
        (r"(?<=[^a])a+|(?<!a)b+", "éaabb", ["é", "aa", "b", "b"]),
        (r"b", "abba", ["a", "b", "b", "a"]),
        (r"b", "aéba", ["aé", "b", "a"]),
    ],
)
def test_a_pattern_means_what_it_means_elsewhere(pattern, text, expected):
    assert words_by_pattern(text, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("[一-龥]+", "é一二 三a", ["é", "一二", " ", "三", "a"]),
        ("é$|.", "éé", ["é", "é"]),
        ("[^é(?i:]+", "ab(?é", ["ab", "(?é"]),
    ],
)
def test_a_pattern_beyond_ascii_that_names_no_kinds_runs_on_the_text_itself(pattern, text, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    runner.cache_clear()
    assert words_by_pattern(text, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"\p{Han}+", "é一二 三a", ["é", "一二", " ", "三", "a"]),
        (r"\p{Yi}+", "ꀀꀁa", ["ꀀꀁ", "a"]),
        (r"[一-龥\p{Nd}]+", "一1٣é", ["一1٣", "é"]),
        (r"(?i)straße|.", "STRAßEa", ["STRAßE", "a"]),
        (r"(?i:[k-m])+|.", "KlMn", ["KlM", "n"]),
        (r"(?i:\p{Lu})+|.", "aÉ1", ["aÉ", "1"]),
        (r"(?i:é)+|a", "éÉa", ["éÉ", "a"]),
        (r"\bé\w*|.", "éa é", ["éa", " ", "é"]),
        (r"(?<=a+)b|.", "aabb", ["a", "a", "b", "b"]),
        (r"[[:alpha:]&&[^é]]+|.", "aéb1", ["a", "é", "b", "1"]),
        (r"[\p{L}&&[^é]]+|.", "aéb1", ["a", "é", "b", "1"]),
        (r"(a|é)\1|.", "aaéé", ["aa", "éé"]),
        (r"\u00e9|a", "éa", ["é", "a"]),
    ],
)
def test_a_pattern_that_asks_for_more_is_run_by_the_package_regex(pattern, text, expected):
    assert words_by_pattern(text, pattern) == expected
    assert isinstance(runner(pattern).pattern, regex.Pattern)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        (r"\p{Han}+", r"\p{Han}"),
        (r"\w", r"\w"),
        (r"(?i)a", "(?i"),
        (r"[一-龥]|\p{N}", r"\p{N} beside characters beyond ASCII"),
        (r"(?<=a+)b", "a look-behind of no fixed width"),
    ],
)
def test_without_that_package_an_error_names_the_part_and_the_remedy(pattern, part, monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    runner.cache_clear()
    message = f"the pattern {pattern!r} has {part}, which only the package regex runs; pip install 'refllm[regex]'."
    with pytest.raises(ImportError) as raised:
        check(("a", pattern))
    assert str(raised.value) == message


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), r"\P{L}+|[\S\D]", r"(?<!a)b+|(?<=[^b])a", DEEPSEEK])
def test_what_shadows_can_express_never_takes_the_package_regex(pattern, monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    runner.cache_clear()
    check(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("[a", "is not one that Python's re can run"),
        ("a)", "is not one that Python's re can run"),
        ("[一", "is not one that Python's re can run"),
        (r"\p{Xx}", "is not one that the package regex can run"),
        (r"\w(", "is not one that the package regex can run"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        check(pattern)


@given(data=st.data())
def test_the_package_regex_finds_the_words_that_shadows_find(hard_text, data):
    """In characters that its tables, which grow, have always had."""
    text = "".join(character for character in data.draw(hard_text) if unicodedata.ucd_3_2_0.category(character) != "Cn")
    for pattern in (*PATTERNS.values(), *DEEPSEEK):
        run = regex.compile(pattern.replace("++$", r"++\Z"))
        spans = [place for match in run.finditer(text) for place in match.span()]
        bounds = sorted({0, *spans, len(text)})
        assert words_by_pattern(text, pattern) == [text[start:end] for start, end in itertools.pairwise(bounds)]


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
