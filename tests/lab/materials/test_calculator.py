"""The calculator: its task, the tool, and what a call must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.materials import calculator
from refllm.lab.materials.calculator import MINUS, PLUS, START


@given(st.integers(0, 99), st.booleans(), st.integers(0, 99))
def test_the_tool_adds_and_subtracts_modulo_100(a, plus, b):
    call = np.array([[a // 10, a % 10, PLUS if plus else MINUS, b // 10, b % 10]])
    assert calculator.calculate(call) == (np.array([(a + b if plus else a - b) % 100]), np.array([True]))


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("token", [-1, 7, PLUS, START])  # −1: what is drawn where logits are no numbers
def test_the_tool_knows_no_call_with_a_wrong_token(place, token):
    call = np.array([[1, 2, PLUS, 3, 4]])
    call[0, place] = token
    _, is_call = calculator.calculate(call)
    assert is_call.tolist() == [token == 7 if place != 2 else token == PLUS]
    assert is_call.all() or calculator.calculate(call)[0].tolist() == [0]


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
    assert items.features.tolist() == [[0] * 5 + [1] * 5] * 50


def test_tasks_hold_every_digit_at_every_place():
    tokens = calculator.task(2).items(400).tokens
    assert all(set(tokens[:, place].tolist()) == set(range(10)) for place in (0, 1, 3, 4, 6, 7))
