"""The doors to words: short and long texts, pieces of texts, sequences of patterns."""

import itertools
import json
import random
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.words.patterns import CL100K, GPT2, GPT2_ENCODER, LLAMA3, NANOCHAT, O200K
from refllm.tokenizer.words.pretokenize import (
    LETTER,
    PUNCTUATION,
    SHORT,
    chunked,
    code_points,
    words,
    words_by_arrays,
    words_by_pattern,
)
from refllm.tokenizer.words.unicode_categories import members


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello world", ["Hello", " world"]),
        ("it's 'tis they'll", ["it", "'s", " '", "tis", " they", "'ll"]),
        ("a  b\n\n c \n", ["a", " ", " b", "\n\n", " c", " \n"]),
        ("3.14é", ["3", ".", "14", "é"]),
        ("'''s'sS", ["'''", "s", "'s", "S"]),
        ("x\u00a0 y", ["x", "\u00a0", " y"]),
    ],
)
def test_worked_examples_split_as_gpt2_splits_them(text, expected):
    assert words_by_pattern(text) == words_by_arrays(text) == expected


@pytest.mark.oracle
@given(data=st.data())
def test_words_are_those_of_tokenizers(hard_text, data):
    from tokenizers import pre_tokenizers

    text = data.draw(hard_text)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert words_by_pattern(text) == [text[start:end] for _, (start, end) in byte_level.pre_tokenize_str(text)]


@pytest.mark.oracle
@given(data=st.data())
def test_words_are_those_of_regex_where_the_character_is_older_than_its_tables(hard_text, data):
    import regex

    text = "".join(character for character in data.draw(hard_text) if unicodedata.ucd_3_2_0.category(character) != "Cn")
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert words_by_pattern(text) == regex.findall(pattern, text)


@pytest.mark.oracle
def test_a_book_of_random_characters_splits_as_in_tokenizers():
    from tokenizers import pre_tokenizers

    draw = random.Random(0)
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(draw.choice([" ", "'s", "\n", chr(draw.choice(points)), chr(draw.randrange(0x2000))]) for _ in range(100_000))
    expected = [text[start:end] for _, (start, end) in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)]
    assert words_by_pattern(text) == expected
    assert words_by_arrays(text) == expected


@pytest.mark.parametrize(
    "pattern",
    [GPT2, GPT2_ENCODER, CL100K, O200K, LLAMA3, NANOCHAT],
    ids=["gpt2", "encoder", "cl100k", "o200k", "llama3", "nanochat"],
)
@given(data=st.data())
def test_a_cut_where_whitespace_follows_something_else_changes_no_word(hard_text, pattern, data):
    between = st.sampled_from([" ", "\n", "a\n", "1\n", "中。", "a、", "か，'", "3！"])
    text = "".join(data.draw(st.lists(st.builds(str.__add__, hard_text, between), max_size=6)))
    pieces = list(chunked(text, pattern, data.draw(st.integers(0, 12)) or 1))
    assert "".join(pieces) == text
    for find in (words_by_pattern, words_by_arrays):
        assert [word for piece in pieces for word in find(piece, pattern)] == words_by_pattern(text, pattern)


def test_what_is_cut_behind_and_before_is_what_every_version_of_unicode_says_it_is():
    letters = re.findall(LETTER, "".join(map(chr, range(0xD7FF))))
    assert len(letters) > 32_000
    assert np.all((members("L") | members("N"))[[ord(letter) for letter in letters]])
    assert np.all(members("P")[[ord(sign) for sign in PUNCTUATION]])


def test_texts_of_few_spaces_are_cut_too():
    assert max(map(len, chunked("中文字。" * 100 + "\n" + "かな\n" * 100, O200K, 10))) < 20
    assert max(map(len, chunked("Übergrößen;\n" * 100, GPT2, 10))) < 30


def test_a_text_is_cut_in_pieces_of_the_size_asked_for_or_a_little_more():
    assert [len(piece) for piece in chunked("abcd " * 100, CL100K, 50)] == [54] + 8 * [55] + [6]
    assert list(chunked("", GPT2)) == []


def in_turn(text, patterns):
    """The pieces of a text, each cut by every pattern in turn, seen alone."""
    for i, pattern in enumerate(patterns):
        spans = [place for match in re.finditer(pattern, text) for place in match.span()]
        bounds = sorted({0, *spans, len(text)})
        if len(bounds) > 2:
            pieces = [text[start:end] for start, end in itertools.pairwise(bounds)]
            return [word for piece in pieces for word in in_turn(piece, patterns[i + 1 :])]
    return [text] * bool(text)


@given(st.text("ab1 \n", max_size=20))
def test_each_pattern_of_a_sequence_cuts_the_pieces_of_the_one_before(text):
    patterns = ("[0-9]", "b(?= )|(?=a)", "^a| $|(?<!b)b")
    assert list(words(text, patterns)) == in_turn(text, [*patterns[:2], patterns[2].replace("$", r"\Z")])
    assert list(words(text, ())) == [text] * bool(text)


@pytest.mark.oracle
@given(data=st.data())
def test_the_words_of_a_sequence_are_those_of_tokenizers(hard_text, packaged, data):
    from tokenizers import Regex, pre_tokenizers

    parts = json.loads(packaged("deepseek").read_text(encoding="utf-8"))["pre_tokenizer"]["pretokenizers"][:-1]
    patterns = tuple(part["pattern"]["Regex"] for part in parts)
    theirs = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns])
    text = data.draw(hard_text)
    assert list(words(text, patterns)) == [text[start:end] for _, (start, end) in theirs.pre_tokenize_str(text)]


def test_a_pattern_without_a_known_cut_sees_the_text_whole():
    assert list(chunked("a b c", r"[a-z ]+", 1)) == ["a b c"]
    assert list(words("a b " * SHORT, r"[a-z ]+")) == ["a b " * SHORT]
    assert list(chunked("a b c", (GPT2, CL100K), 1)) == ["a b c"]


def test_a_long_text_has_the_same_words(topics):
    assert list(words(topics)) == words_by_pattern(topics)
    assert list(words(topics, CL100K)) == words_by_pattern(topics, CL100K)
    assert list(words(topics, (CL100K,))) == words_by_pattern(topics, CL100K)
    assert list(words(topics[:SHORT])) == words_by_pattern(topics[:SHORT])


@pytest.mark.parametrize("text", ["", "ascii", "é中😀"])
def test_code_points_are_those_of_the_string(text):
    assert code_points(text).tolist() == list(map(ord, text))
    assert code_points(text).dtype == "int32"
