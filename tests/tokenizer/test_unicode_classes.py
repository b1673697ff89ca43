"""The frozen table of character classes."""

import unicodedata

import numpy as np

from refllm.tokenizer.unicode_classes import LETTER, LOWER, MARK, N_CODE_POINTS, NUMBER, OTHER, SPACE, UPPER, unicode_classes

CATEGORIES = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER, "Lo": LETTER, "M": MARK, "N": NUMBER}


def test_every_code_point_has_one_class():
    assert unicode_classes().shape == (N_CODE_POINTS,)
    assert set(np.unique(unicode_classes())) == {OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, SPACE}


def test_the_classes_agree_with_pythons_database_on_old_characters():
    """Pythons differ in the newest characters; those of Unicode 3.2 they all know, and almost never move one to another class."""
    moved = []
    for point in range(N_CODE_POINTS):
        if unicodedata.ucd_3_2_0.category(chr(point)) not in ("Cn", "Co", "Cs"):
            category = unicodedata.category(chr(point))
            expected = CATEGORIES.get(category, CATEGORIES.get(category[0], OTHER))
            if category in ("Zs", "Zl", "Zp") or chr(point) in "\t\n\v\f\r\x85":
                expected = SPACE
            if unicode_classes()[point] != expected:
                moved.append(f"U+{point:04X}")
    assert len(moved) <= 4, moved


def test_the_information_separators_are_no_whitespace():
    assert all(unicode_classes()[0x1C:0x20] == OTHER)
    assert all("\x1c\x1d\x1e\x1f"[i].isspace() for i in range(4))  # though Python says they are
