"""The ends of contractions."""

import numpy as np
import pytest

from refllm.tokenizer.words.contractions import contraction_letters, cut_behind, folded
from refllm.tokenizer.words.pretokenize import code_points


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a's'd'm't", "0101010101010100"),
        ("'ll've're", "200200200"),
        ("'l'v'r'e'", "000000000"),
        ("'S'LL’s'", "00000000"),
        ("", ""),
    ],
)
def test_letters_of_contractions_are_counted_at_their_apostrophe(backend, text, expected):
    found = backend.xp.to_numpy(contraction_letters(backend.xp.from_numpy(code_points(text)))).tolist()
    assert found == [int(digit) for digit in expected[: len(text)]]


def test_folding_changes_the_capitals_of_ascii_and_the_long_s_alone(backend):
    points = np.arange(0x2200, dtype=np.int32)
    found = backend.xp.to_numpy(folded(backend.xp.from_numpy(points)))
    changed = {chr(point): chr(small) for point, small in zip(points, found, strict=True) if point != small}
    assert changed == {letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"} | {"ſ": "s"}


def test_a_word_is_cut_behind_a_contraction_that_starts_it_and_not_within():
    starts = np.array([True, True, True, False, False, False, True])
    assert cut_behind(starts, np.array([1, 0, 0, 2, 0, 0, 2], np.int32)).tolist() == [
        True,
        False,
        True,
        False,
        False,
        False,
        True,
    ]
    assert cut_behind(starts, np.array([2, 0, 0, 0, 0, 0, 0], np.int32)).tolist() == [True, False, True, True, False, False, True]
