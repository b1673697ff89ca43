"""The frozen table of what BERT makes of characters."""

import string
import unicodedata

import numpy as np

from refllm.tokenizer.words.bert_characters import (
    DECOMPOSED,
    DROPPED,
    MARK,
    ORDERED,
    PUNCTUATION,
    flags,
    is_ideograph,
    lower_case,
)
from refllm.tokenizer.words.unicode_categories import N_CODE_POINTS, members

OLD = [point for point in range(0x3000) if unicodedata.ucd_3_2_0.category(chr(point)) not in ("Cn", "Cs")]


def characters(flag):
    return set(np.flatnonzero(flags() & flag).tolist())


def test_every_sign_of_ascii_is_punctuation():
    assert flags().shape == (N_CODE_POINTS,)
    assert {chr(point) for point in characters(PUNCTUATION) if point < 0x80} == set(string.punctuation)


def test_what_is_dropped_are_controls_formats_private_use_and_two_more():
    dropped = characters(DROPPED)
    assert {0, 0xFFFD, 0x0B, 0x0C, 0x85, 0xAD, 0x200D, 0xFEFF, 0xE000, 0x10FFFD} <= dropped
    assert not {0x09, 0x0A, 0x0D, 0x20, 0x0378} & dropped
    assert all(unicodedata.category(chr(point)) in ("Cc", "Cf", "Co") for point in dropped - {0xFFFD})


def test_marks_and_decompositions_are_pythons_for_old_characters():
    """Those of Unicode 3.2 all versions know; they never change a decomposition, and seldom a category."""
    for flag, python in (
        (DECOMPOSED, lambda character: unicodedata.normalize("NFD", character) != character),
        (
            ORDERED,
            lambda character: unicodedata.combining(character) > 0 and unicodedata.normalize("NFD", character) == character,
        ),
    ):
        assert [point for point in OLD if bool(flags()[point] & flag) != python(chr(point))] == []
    marks = [point for point in OLD if bool(flags()[point] & MARK) != (unicodedata.category(chr(point)) == "Mn")]
    assert [point for point in marks if not flags()[point] & DECOMPOSED] == [0x1734, 0x1885, 0x1886]  # moved since


def test_what_has_a_decomposition_has_one_in_python():
    assert all(unicodedata.normalize("NFD", chr(point)) != chr(point) for point in characters(DECOMPOSED))


def test_lower_case_is_pythons_for_old_characters():
    assert [point for point in OLD if lower_case().get(point, chr(point)) != chr(point).lower()] == []


def test_ideographs_are_letters_of_no_case_or_not_yet_known():
    ideographs = np.array([is_ideograph(point) for point in range(0x30000)])
    known = ideographs & (members("L") | members("So"))[:0x30000]
    assert 80_000 < known.sum() <= ideographs.sum() < 91_000
    assert not any(map(is_ideograph, map(ord, "あア한a。々")))
