"""Words: the array form, the pattern, the definition and the reference tokenizers agree."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K
from refllm.tokenizer.words.pretokenize import SHORT, chunked, words, words_by_arrays, words_by_pattern
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


def kinds(text):
    """L, N, S or O for each character: what the definition is told of Unicode."""
    return "".join(next((name for name in "LNS" if members(name.replace("S", "s"))[ord(c)]), "O") for c in text)


@given(data=st.data())
def test_words_equal_their_definition(hard_text, data):
    text = data.draw(hard_text)
    expected = definitions()["gpt2_words"](text, kinds(text))
    assert words_by_pattern(text) == expected
    assert words_by_arrays(text) == expected


@pytest.mark.parametrize("pattern", [GPT2, CL100K, O200K, LLAMA3], ids=["gpt2", "cl100k", "o200k", "llama3"])
@given(data=st.data())
def test_a_cut_where_whitespace_follows_something_else_changes_no_word(hard_text, pattern, data):
    text = " ".join(data.draw(st.lists(hard_text, min_size=2, max_size=4)))
    pieces = list(chunked(text, pattern, data.draw(st.integers(1, 20))))
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in words_by_pattern(piece, pattern)] == words_by_pattern(text, pattern)


def test_a_pattern_without_a_known_cut_sees_the_text_whole():
    assert list(chunked("a b c", r"[a-z ]+", 1)) == ["a b c"]
    assert list(words("a b " * 500, r"[a-z ]+")) == ["a b " * 500]


def test_a_long_text_has_the_same_words(topics):
    assert list(words(topics)) == words_by_pattern(topics)
    assert list(words(topics, CL100K)) == words_by_pattern(topics, CL100K)
    assert list(words(topics[:SHORT])) == words_by_pattern(topics[:SHORT])
