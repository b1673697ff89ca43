"""BERT's basic tokenizer: its definition, its arrays, and Hugging Face's tokenizers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.text import repaired
from refllm.tokenizer.words.bert import (
    CASED,
    UNCASED,
    BertRules,
    _written_table,
    bert_words,
    bert_words_with_offsets,
    ordered,
    write_out,
    write_out_points,
    written_out,
    written_table,
)
from refllm.tokenizer.words.bert_characters import DROPPED, IDEOGRAPHS, PUNCTUATION, flags, is_ideograph
from refllm.tokenizer.words.unicode_categories import members

ALL_RULES = [BertRules(*choice) for choice in product([True, False], [True, False], [None, True, False], [True, False])]
all_rules = st.sampled_from(ALL_RULES)
few_rules = st.sampled_from([UNCASED, CASED, BertRules(False, False, False, True)])  # whose tables are kept
# Marks of several classes: some are stripped, some stay, and one of class 0 stands between; a precomposed letter.
marked = st.text(st.sampled_from("aé\u0301\u0327\u302e\u302f\U0001d165\u08d4\u08e0\u0903\u0b3f \u00ad"), max_size=8)


def kind(character):
    point = ord(character)
    if flags()[point] & DROPPED:
        return "D"
    if members("s")[point]:
        return "S"
    return "P" if flags()[point] & PUNCTUATION or is_ideograph(point) else "L"


@given(data=st.data())
def test_words_of_bert_equal_their_definition(hard_text, data):
    text = data.draw(hard_text)
    assert bert_words(text, CASED) == definitions()["bert_words"](text, [kind(character) for character in text])


# After tokenization_test.py of google-research/bert
@pytest.mark.parametrize(
    ("text", "rules", "words"),
    [
        (" \tHeLLo!how  \n Are yoU?  ", UNCASED, ["hello", "!", "how", "are", "you", "?"]),
        (" \tHeLLo!how  \n Are yoU?  ", CASED, ["HeLLo", "!", "how", "Are", "yoU", "?"]),
        ("H\u00e9llo", UNCASED, ["hello"]),
        ("H\u00e9llo", CASED, ["H\u00e9llo"]),
        ("H\u00e9llo", BertRules(strip_accents=False), ["h\u00e9llo"]),
        ("H\u00e9llo", BertRules(strip_accents=True, lowercase=False), ["Hello"]),
        ("ah\u535a\u63a8zz", UNCASED, ["ah", "\u535a", "\u63a8", "zz"]),
        ("ah\u535a\u63a8zz", BertRules(handle_chinese_chars=False), ["ah\u535a\u63a8zz"]),
        ("\uf900", UNCASED, ["\u8c48"]),
        ("a\x00b\ufffdc\x85d\x0be\u00adf", UNCASED, ["abcdef"]),
        ("a\x00b\x85c", BertRules(clean_text=False), ["a\x00b", "c"]),
        ("ΟΔΟΣ İI", UNCASED, ["οδοσ", "ii"]),
        ("İ", BertRules(strip_accents=False), ["i\u0307"]),
        ("2^3+$4`~|<=>", UNCASED, list("2^3+$4`~|<=>")),
        ("U+2E43 is new: a\u2e43b", UNCASED, ["u", "+", "2e43", "is", "new", ":", "a\u2e43b"]),
        ("\u302f\u302e a\u302e\U0001d165", UNCASED, ["\u302f\u302e", "a\U0001d165\u302e"]),
        ("", UNCASED, []),
    ],
)
def test_these_texts_have_these_words(text, rules, words):
    assert bert_words(text, rules) == words


@pytest.mark.parametrize("rules", [rules for rules in ALL_RULES if rules.strip_accents is not None], ids=str)
def test_writing_out_twice_changes_nothing(rules):
    """For every code point and every choice of the four steps, but for the number of spaces."""
    places, characters = _written_table(rules)
    once = np.concatenate([[ord(" ")], characters, [ord(" ")]]).astype(np.int32)  # of every code point
    twice = write_out_points.reference(once, places, characters)
    np.testing.assert_array_equal(one_space(twice), one_space(once))


def one_space(points):
    """The same with one space where there are several."""
    space = points == ord(" ")
    return points[~(space & np.append(False, space[:-1]))]


@given(rules=few_rules, points=st.lists(st.integers(0, 0x10FFFF), min_size=1))
def test_the_table_of_arrays_is_the_one_of_strings(rules, points):
    places, characters = _written_table(rules)
    assert places.dtype == characters.dtype == np.int32
    for point in [*points, *(end + beyond for ends in IDEOGRAPHS for end in ends for beyond in (-1, 0, 1))]:
        expected = write_out(point, rules)
        assert "".join(map(chr, characters[places[point] : places[point + 1]].tolist())) == expected


@given(rules=few_rules, data=st.data())
def test_points_written_out_equal_their_definition(backend, hard_text, rules, data):
    text, table = data.draw(hard_text), written_out(rules)
    points = list(map(ord, text))
    written = definitions()["write_out_points"](points, {point: list(map(ord, table[point])) for point in points})
    found = write_out_points(backend.xp.from_numpy(np.array(points, np.int32)), *written_table(rules, backend.xp))
    assert found.dtype == backend.xp.int32
    assert backend.xp.to_numpy(found).tolist() == written


@given(rules=all_rules, data=st.data())
def test_the_words_with_offsets_are_the_words(hard_text, rules, data):
    text = data.draw(hard_text | marked)
    words = list(bert_words_with_offsets(text, rules))
    assert [word for word, _ in words] == bert_words(text, rules)
    for word, spans in words:
        assert [written_out(rules)[ord(c)].strip(" ") for c in word] == list(word)
        assert len(spans) == len(word)
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert spans == sorted(spans)


@given(rules=all_rules, data=st.data())
def test_a_character_of_a_word_comes_from_its_span(hard_text, rules, data):
    text = data.draw(hard_text)
    if ordered(text, rules) is text:
        for word, spans in bert_words_with_offsets(text, rules):
            assert all(c in written_out(rules)[ord(text[start])] for c, (start, _) in zip(word, spans, strict=True))


def test_only_text_with_marks_that_stay_is_put_in_order():
    text = "n\u0303 e\u0301 中 \U0001f600"
    assert ordered(text, UNCASED) is text
    assert ordered("\u302f\u302e", CASED) == "\u302f\u302e"
    assert ordered("a\u302e\U0001d165", UNCASED) == "a\U0001d165\u302e"
    assert ordered("a\u302e\u00ad\U0001d165", UNCASED) == "a\U0001d165\u302e"  # what is dropped stands between no marks
    assert ordered("a\u302e\u00ad\U0001d165", BertRules(clean_text=False)) == "a\u302e\u00ad\U0001d165"


def test_marks_in_another_order_have_the_places_of_those_they_displace():
    words = list(bert_words_with_offsets("\u00ada\u302e\U0001d165 \u00e9\u302e\U0001d165", UNCASED))
    assert words == [("a\U0001d165\u302e", [(1, 2), (2, 3), (3, 4)]), ("e\U0001d165\u302e", [(5, 6), (6, 7), (7, 8)])]


# Against Hugging Face's tokenizers


def reference(rules):
    from tokenizers import normalizers, pre_tokenizers

    normalize = normalizers.BertNormalizer(**rules._asdict()).normalize_str
    return lambda text: [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalize(text))]


@pytest.mark.oracle
@given(rules=all_rules, data=st.data())
def test_words_equal_those_of_tokenizers(hard_text, broken_text, rules, data):
    text = repaired(data.draw(hard_text | broken_text | marked))
    assert bert_words(text, rules) == reference(rules)(text)


@pytest.mark.oracle
@pytest.mark.parametrize("rules", [UNCASED, BertRules(False, False, False, True)], ids=["uncased", "only lower case"])
def test_words_around_every_code_point_equal_those_of_tokenizers(rules):
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 1 << 16):
        text = " ".join(f"A{chr(point)}b" for point in points[start : start + (1 << 16)])
        found, expected = bert_words(text, rules), reference(rules)(text)
        assert found == expected, next(pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1])
