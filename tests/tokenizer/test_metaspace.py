"""Hugging Face's Metaspace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.metaspace import Metaspace

texts = st.text(st.sampled_from("ab \u2581\n\x1c\u3000"), max_size=12)
every = st.builds(Metaspace, st.sampled_from(["always", "first", "never"]), st.booleans(), st.booleans())


@pytest.mark.parametrize(
    ("metaspace", "words"),
    [
        (Metaspace("always"), [" a", " ", " b\n", " c"]),
        (Metaspace("never"), ["a", " ", " b\n", " c"]),
        (Metaspace("always", split=False), [" a  b\n c"]),
        (Metaspace("always", at_whitespace=True), [" a", " b", " c"]),
        (Metaspace("first", at_whitespace=True), [" a", "b", " c"]),
        (Metaspace("never", at_whitespace=True), ["a", "b", " c"]),
    ],
)
def test_words_are_made_by_spaces(metaspace, words):
    assert metaspace.words("a  b\n\u2581c") == words


def test_no_text_has_no_words():
    assert Metaspace("always").words("") == Metaspace("always", at_whitespace=True).words(" \n") == []
    assert Metaspace("always").sources("") == []


def test_a_separator_of_old_is_no_whitespace():
    assert Metaspace("never", at_whitespace=True).words("a\x1cb\x85c") == ["a\x1cb", "c"]


@given(every, texts)
def test_every_character_of_a_word_has_its_source(metaspace, text):
    sources = metaspace.sources(text)
    characters = "".join(metaspace.words(text))
    assert len(sources) == len(characters)
    for i, (start, end) in enumerate(sources):
        assert end == start + 1
        before = i + 1 < len(sources) and sources[i + 1] == sources[i]  # a space put before its neighbour
        assert characters[i] == (" " if before else text[start].replace("\u2581", " "))


@pytest.mark.oracle
@given(every, texts)
def test_words_are_those_of_tokenizers(metaspace, text):
    from tokenizers import pre_tokenizers

    theirs = pre_tokenizers.Metaspace(prepend_scheme=metaspace.scheme, split=metaspace.split)
    if metaspace.at_whitespace:
        theirs = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), theirs])
    assert metaspace.words(text) == [word.replace("\u2581", " ") for word, _ in theirs.pre_tokenize_str(text) if word]
