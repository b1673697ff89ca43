"""Bits, and what they are counted over."""

import math

import pytest

from refllm.lab.materials.units import surprise, together


def test_a_text_costs_bits_over_its_bytes_characters_and_words():
    found = surprise("zwölf  kühe\n", 12 * math.log(2))
    assert (found.n_bytes, found.n_characters, found.n_words) == (14, 12, 2)
    assert (found.bits, found.per_byte, found.per_character, found.per_word) == pytest.approx((12, 12 / 14, 1, 6))


def test_texts_together_cost_the_sum_over_the_sums_of_their_lengths():
    found = together([surprise("a b c", 3 * math.log(2)), surprise("ü", 5 * math.log(2))])
    assert tuple(found) == pytest.approx((8, 7, 6, 4))
    assert (found.per_byte, found.per_character, found.per_word) == pytest.approx((8 / 7, 8 / 6, 2))


def test_a_text_without_words_is_an_error():
    with pytest.raises(ValueError, match="no word"):
        surprise("  \n", 1.0)
