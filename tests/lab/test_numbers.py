"""Numbers as tables have them."""

import pytest

from refllm.lab.numbers import number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1234567, "1,234,567"),
        (-12, "-12"),
        (10**9, "1e+09"),
        (0.123456, "0.1235"),
        (-2.5e-7, "-2.5e-07"),
        (1e-13, "0"),
        (0.0, "0"),
        (None, ""),
        (True, "True"),
        ("A+B", "A+B"),
        ([1, 0.5], "1 0.5"),
        ({"a": 2000, "b": (0.25,)}, "a 2,000, b 0.25"),
    ],
)
def test_a_value_is_said_in_four_digits(value, said):
    assert number(value) == said
