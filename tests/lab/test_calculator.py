"""The calculator: its task, the tool, and what a call must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab import calculator
from refllm.lab.calculator import MINUS, PLUS, START


@given(st.integers(0, 99), st.booleans(), st.integers(0, 99))
def test_the_tool_adds_and_subtracts_modulo_100(a, plus, b):
    call = np.array([[a // 10, a % 10, PLUS if plus else MINUS, b // 10, b % 10]])
    assert calculator.calculate(call) == (np.array([(a + b if plus else a - b) % 100]), np.array([True]))


@pytest.mark.parametrize("place", range(5))
def test_the_tool_knows_no_call_with_a_wrong_token(place):
    call = np.array([[1, 2, PLUS, 3, 4]])
    call[0, place] = START if place != 2 else 7
    assert calculator.calculate(call) == (np.array([0]), np.array([False]))


def test_a_transcript_shows_the_task_and_every_call_with_its_result():
    items = calculator.task(2).items(50)
    for row in items.tokens.tolist():
        a, first, second = 10 * row[0] + row[1], row[2:5], row[5:8]
        assert row[8] == START
        assert row[9:14] == [*row[:2], *first]
        b = (a + (1 if first[0] == PLUS else -1) * (10 * first[1] + first[2])) % 100
        assert row[14:21] == [b // 10, b % 10, b // 10, b % 10, *second]
        c = (b + (1 if second[0] == PLUS else -1) * (10 * second[1] + second[2])) % 100
        assert row[21:] == [c // 10, c % 10]
    assert calculator.task(2).answers == (9, 10, 11, 12, 13, 16, 17, 18, 19, 20)
    assert {row[2] for row in items.tokens.tolist()} == {PLUS, MINUS}
