"""GPT-2's words found by arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.words.patterns import GPT2
from refllm.tokenizer.words.pretokenize import code_points, words_by_arrays, words_by_pattern
from refllm.tokenizer.words.starts import word_starts


@given(data=st.data())
def test_words_found_by_arrays_equal_those_of_the_pattern(hard_text, data):
    text = data.draw(hard_text)
    assert words_by_arrays(text) == words_by_pattern(text)
    assert "".join(words_by_pattern(text)) == text


@given(st.text(st.sampled_from("a'sldtmrve1 \n\t.é"), max_size=12))
def test_short_strings_of_the_deciding_characters_split_alike(text):
    assert words_by_arrays(text) == words_by_pattern(text)


def test_every_string_of_four_deciding_characters_splits_alike():
    """Whether a word starts depends on two neighbours: four characters hold all of these, the ends of the text among them."""
    atoms = ["a", "1", ".", "'", " ", "\n", "s", "l"]
    texts = [a + b + c + d for a in atoms for b in atoms for c in atoms for d in atoms]
    assert [words_by_arrays(text) for text in texts] == [words_by_pattern(text) for text in texts]


@given(data=st.data())
def test_a_word_starts_where_the_text_does_and_starts_increase(hard_text, data):
    text = data.draw(hard_text)
    starts = np.flatnonzero(word_starts(code_points(text), GPT2))
    assert starts[:1].tolist() == ([0] if text else [])
    assert np.all(np.diff(starts) > 0)
    assert np.all(starts < len(text))


@pytest.mark.parametrize("text", ["", "ascii", "é中😀", "\ud800"])
def test_code_points_are_those_of_the_string(text):
    assert code_points(text).tolist() == list(map(ord, text))
