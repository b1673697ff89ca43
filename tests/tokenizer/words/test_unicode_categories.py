"""The frozen table of Unicode's categories."""

import unicodedata

import numpy as np
import pytest

from refllm.tokenizer.words.unicode_categories import CATEGORIES, N_CODE_POINTS, members, unicode_categories


def test_every_code_point_has_one_category():
    assert unicode_categories().shape == (N_CODE_POINTS,)
    assert set(np.unique(unicode_categories())) == set(range(len(CATEGORIES)))
    assert sum(members(name).astype(int) for name in "LMNPSZC").tolist() == [1] * N_CODE_POINTS


def test_the_categories_are_pythons_for_old_characters():
    """Pythons differ in the newest characters; those of Unicode 3.2 they all know, and almost never move one."""
    old = [point for point in range(N_CODE_POINTS) if unicodedata.ucd_3_2_0.category(chr(point)) != "Cn"]
    moved = [point for point in old if unicodedata.category(chr(point)) != CATEGORIES[unicode_categories()[point]]]
    assert len(old) > 200_000
    assert len(moved) <= 4, moved


def test_whitespace_is_the_separators_and_six_controls():
    white = "".join(chr(point) for point in np.flatnonzero(members("s")))
    spaces = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    assert white == f"\t\n\v\f\r \x85\xa0\u1680{spaces}\u2028\u2029\u202f\u205f\u3000"
    assert "\x1c\x1d\x1e\x1f".isspace()  # though Python says so


def test_a_name_that_is_no_category_is_refused():
    with pytest.raises(ValueError, match=r"^'Han' is not a general category of Unicode\.$"):
        members("Han")
