"""The kinds of characters, and what stands beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.tokenizer.words import kinds
from refllm.tokenizer.words.kinds import after, before, kind_table
from refllm.tokenizer.words.unicode_categories import members

NUMPY = load("numpy").xp


@pytest.mark.parametrize(
    ("kind", "characters"),
    [
        ("SIGN", ".€\x00😀_\ufeff\x1c\u0378\ue000’"),
        ("APOSTROPHE", "'"),
        ("SLASH", "/"),
        ("CASELESS", "中ªʰא"),
        ("UPPER", "AÉǅ𝒳"),
        ("LOWER", "aéſß"),
        ("MARK", "\u0301\ufe0f\u20e3ि"),
        ("NUMBER", "0²½Ⅷ٣"),
        ("BLANK", "\t\v\f\x85\xa0\u3000\u2028"),
        ("SPACE", " "),
        ("NEWLINE", "\r\n"),
    ],
)
def test_each_kind_has_its_characters(kind, characters):
    assert {int(kind_table(NUMPY)[ord(character)]) for character in characters} == {getattr(kinds, kind)}


def test_kinds_agree_with_the_categories_they_stand_for():
    table = kind_table(NUMPY)
    np.testing.assert_array_equal(kinds.is_letter(table), members("L"))
    np.testing.assert_array_equal(kinds.is_white(table), members("s"))
    np.testing.assert_array_equal(table == kinds.MARK, members("M"))
    np.testing.assert_array_equal(table == kinds.NUMBER, members("N"))
    assert table.min() > kinds.END


def test_a_backend_has_one_table_of_its_own(backend):
    table = kind_table(backend.xp)
    assert table is kind_table(backend.xp)
    np.testing.assert_array_equal(backend.xp.to_numpy(table), kind_table(NUMPY))


@given(values=st.lists(st.integers(0, 9), max_size=5), count=st.integers(1, 3))
def test_what_stands_before_and_after_is_filled_at_the_ends(backend, values, count):
    x = backend.xp.from_numpy(np.array(values, np.int32))
    assert backend.xp.to_numpy(before(x, count, -1)).tolist() == ([-1] * count + values)[: len(values)]
    assert backend.xp.to_numpy(after(x, count, -1)).tolist() == (values + [-1] * count)[count:]
