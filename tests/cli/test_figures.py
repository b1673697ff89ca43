"""Numbers read as people say them."""

import pytest

from refllm.cli.figures import count, duration, size, span


@pytest.mark.parametrize(
    ("told", "as_"),
    [
        (duration(0.4), "0 s"),
        (duration(59.4), "59 s"),
        (duration(59.6), "1:00 min"),
        (duration(125), "2:05 min"),
        (duration(3599.7), "1:00 h"),
        (duration(12_060), "3:21 h"),
        (span(0.00079), "0.79 ms"),
        (span(0.0412), "41.2 ms"),
        (span(0.412), "412 ms"),
        (span(1.524), "1.52 s"),
        (count(12_345.4), "12,345"),
        (count(1_967_808), "1.97 million"),
        (count(6_738_415_616), "6.74 billion"),
        (size(692), "692 B"),
        (size(37_900), "37.9 kB"),
        (size(379_072), "379 kB"),
        (size(7_900_000), "7.9 MB"),
        (size(2.5e9), "2.5 GB"),
    ],
)
def test_numbers_are_told_with_three_digits_and_their_unit(told, as_):
    assert told == as_
