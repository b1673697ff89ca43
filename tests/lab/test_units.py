"""Bits, and what they are counted over."""

import math

import pytest

from refllm.lab.units import surprise


def test_a_text_costs_bits_over_its_bytes_characters_and_words():
    found = surprise("zwölf  kühe\n", 12 * math.log(2))
    assert (found.n_bytes, found.n_characters, found.n_words) == (14, 12, 2)
    assert (found.bits, found.per_byte, found.per_character, found.per_word) == pytest.approx((12, 12 / 14, 1, 6))


def test_a_word_of_so_many_bits_is_one_of_as_many_powers_of_two():
    assert surprise("one", math.log(1000)).choices_per_word == pytest.approx(1000)


def test_a_text_without_words_is_an_error():
    with pytest.raises(ValueError, match="no word"):
        surprise("  \n", 1.0)
