"""Cutting an axis: every position once, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.layers.blocks import blocks


@given(st.integers(0, 50), st.integers(1, 60))
def test_every_position_lies_in_one_block(n, block):
    parts = blocks(n, block)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n))
    assert all(stop - start == block for start, stop in parts[:-1])


def test_a_block_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        blocks(3, 0)
