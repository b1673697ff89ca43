"""What is the kernels' own in finding words; tests/tokenizer/words/test_starts.py holds them to the patterns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.backends.kernels import numpy_words
from refllm.tokenizer.words import contractions, kinds, o200k
from refllm.tokenizer.words.cl100k import cl100k_word_starts
from refllm.tokenizer.words.pretokenize import code_points

TABLE = kinds.kind_table(load("numpy").xp)
NAMES = ["END", "SIGN", "APOSTROPHE", "SLASH", "CASELESS", "UPPER", "LOWER", "MARK", "NUMBER", "BLANK", "SPACE", "NEWLINE"]


def test_the_kernels_number_kinds_and_states_as_the_bodies_do():
    for theirs, names in ((kinds, NAMES), (o200k, ["FREE", "JOINED", "EATEN"]), (contractions, ["LONG_S"])):
        assert [getattr(numpy_words, name) for name in names] == [getattr(theirs, name) for name in names]
    assert len(NAMES) == kinds.N_KINDS


def states(text):
    _, p, x, n = numpy_words.neighbours(code_points(text), TABLE)
    return numpy_words.sign_states(p, x, n)


@given(st.text(st.sampled_from("a.'/\n \u0301"), max_size=24))
def test_the_states_put_right_from_a_guess_are_those_of_the_automaton(text):
    expected = o200k.sign_states(TABLE[code_points(text)]).tolist()
    assert states(text).tolist() == expected


def test_where_too_many_rounds_would_be_needed_the_readable_body_takes_over():
    text = "." + "\n" * 600 + "/a"
    assert states(text) is None
    starts = numpy_words.o200k_word_starts(code_points(text), TABLE, 3)
    assert np.flatnonzero(starts).tolist() == [0, 602]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 511, 512, 513, 5000])
def test_whitespace_that_ends_a_text_is_one_word_of_cl100k_however_long(size):
    for text in (" \n" * size, "a." + "\n " * size, "a " + "\t \n" * size + " ", "." + "\n" * size + " \n "):
        starts = numpy_words.cl100k_word_starts(code_points(text), TABLE, 3)
        np.testing.assert_array_equal(starts, cl100k_word_starts.reference(code_points(text), TABLE, 3))
