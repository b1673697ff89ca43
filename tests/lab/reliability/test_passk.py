"""More attempts."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.reliability import passk
from refllm.lab.reliability.outcomes import Measured


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(1, 50))
def test_exact_pass_at_k_is_its_formula(p, k):
    assert passk.exact(p, k)[0] == pytest.approx(np.mean([1 - (1 - x) ** k for x in p]), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 50))
def test_equal_items_are_solved_at_least_as_often(p, k):
    assert passk.homogeneous(p, k)[0] >= passk.exact(p, k)[0] - 1e-9


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 6), (4, 0, 2), (4, 4, 2)])
def test_the_unbiased_estimate_averages_all_choices_of_k(n, c, k):
    samples = [True] * c + [False] * (n - c)
    every = [any(chosen) for chosen in itertools.combinations(samples, k)]
    assert passk.estimated([c], n, k) == pytest.approx(np.mean(every))


def test_a_majority_finds_the_answer_that_is_commonest_not_the_one_that_is_right():
    rng = np.random.default_rng(0)
    answers = np.where(rng.random((200, 64)) < 0.4, 1, rng.integers(2, 9, (200, 64)))
    single, many = (passk.majority(answers, np.ones(200), k, repeats=20) for k in (1, 31))
    assert single == pytest.approx(0.4, abs=0.03)
    assert many > 0.95
    assert passk.majority(answers, np.full(200, 2), 31, repeats=20) < 0.05


def test_the_best_of_more_samples_is_right_as_far_as_scores_tell():
    rng = np.random.default_rng(1)
    right = rng.random((300, 32)) < 0.1
    assert passk.best_of(right + 0.1 * rng.random(right.shape), right, 16, repeats=10) == pytest.approx(
        passk.estimated(right.sum(axis=1), 32, 16), abs=0.03
    )
    assert passk.best_of(rng.random(right.shape), right, 16, repeats=10) == pytest.approx(0.1, abs=0.03)


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 3))
def test_a_majority_of_all_samples_counts_votes(answers, truth):
    """Where no two are equally common, order does not matter."""
    counts = [sorted(map(row.count, set(row))) for row in answers]
    answers = [row for row, c in zip(answers, counts, strict=True) if len(c) == 1 or c[-1] > c[-2]] or [[0] * 6]
    expected = np.mean([max(set(row), key=row.count) == truth for row in answers])
    assert passk.majority(answers, [truth] * len(answers), 6, repeats=3) == pytest.approx(expected)


def test_a_majority_of_fewer_averages_all_choices():
    """Of three of five, and among three different ones the first drawn: each a third of the time."""
    answers = [1, 1, 2, 3, 4]
    hits = []
    for chosen in itertools.combinations(answers, 3):
        hits.append(1.0 if chosen.count(1) == 2 else chosen.count(1) / 3)
    assert passk.majority([answers], [1], 3, repeats=4000) == pytest.approx(np.mean(hits), abs=0.035)


def test_a_power_law_of_items_gives_one_of_attempts():
    """Density p^(a−1) at 0 gives failures ~ k^−a; here a = 0.4."""
    p, k = (np.arange(1, 20001) / 20001) ** (1 / 0.4), [64, 128, 256, 512]
    found = passk.tail(k, passk.exact(p, k))
    assert found.exponent == pytest.approx(0.4, abs=0.05)
    assert found.power_law
    assert found.error < 0.01


def test_items_that_are_alike_have_no_power_law():
    k = [1, 4, 16, 64]
    assert not passk.tail(k, passk.homogeneous([0.05], k)).power_law


def test_the_tail_is_a_line_through_logarithms():
    """−ln pass@k = 2 k^−0.5, and once off by a factor e: the residuals of a line through (0, 0), (1, 1), (2, 0) are ⅓, ⅔, ⅓."""
    k = np.array([1, 10, 100])
    exact = passk.tail([*k, 1000, 1e4], [*np.exp(-2 * k**-0.5), 1.0, 0.0])
    assert (exact.exponent, exact.error) == pytest.approx((0.5, 0), abs=1e-12)
    off = passk.tail(k, np.exp(-2 * k**-0.5 * np.exp([0, 1, 0])))
    assert off.error == pytest.approx(np.sqrt((1 + 4 + 1) / 27))


def test_two_points_have_no_tail():
    assert passk.tail([1, 2, 3, 4], [0.0, 0.5, 0.6, 1.0]) is None


def test_flops_of_training_and_of_all_attempts_add_up():
    assert passk.total_flops(1000, 2, 10, [1, 5], 3).tolist() == [1060, 1300]


def test_more_attempts_than_samples_are_refused():
    with pytest.raises(ValueError, match="pass@6 cannot be estimated from 5 samples"):
        passk.estimated([1], 5, 6)
    with pytest.raises(ValueError, match="a majority of 4 cannot be taken from 3"):
        passk.majority(np.zeros((2, 3), int), [0, 0], 4)
    with pytest.raises(ValueError, match="the best of 4 cannot be taken from 3"):
        passk.best_of(np.zeros((2, 3)), np.zeros((2, 3)), 4)


def measured(**given):
    return Measured(**{"right": np.ones((2, 1), bool), "attempts": None, "probability": None, "features": None} | given)


def test_what_attempts_reach_is_told_as_far_as_they_go():
    """Five attempts at two items, of which one and three are right, and which are scored and answered."""
    right = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=bool)
    made = {"attempts": right.T[:, :, None], "answers": np.where(right, 7, 8), "answer": np.array([7, 7]), "scores": 1.0 * right}
    rows = passk.rows(measured(**made))
    assert [row["k"] for row in rows] == [1, 4, 5]
    assert [row["pass@k"] for row in rows] == pytest.approx([0.4, (0.8 + 1) / 2, 1])
    assert rows[0]["if alike"] == pytest.approx(0.4)
    assert (rows[2]["majority"], rows[2]["best of k"]) == (0.5, 1)
    assert str(rows[2]["-ln pass@k"]) == "0.0"
    assert "estimated" not in rows[0]
    exactly = passk.rows(measured(**made, probability=np.array([[0.2], [0.6]])), [64, 2])
    assert [row["k"] for row in exactly] == [2, 64]
    assert exactly[0]["pass@k"] == pytest.approx((1 - 0.8**2 + 1 - 0.4**2) / 2)
    assert exactly[0]["estimated"] == pytest.approx((1 - 0.6 + 1 - 0.1) / 2)
    assert [exactly[1][name] for name in ("estimated", "majority", "best of k")] == [None] * 3


def test_items_that_are_never_right_have_no_loss():
    (row,) = passk.rows(measured(probability=np.zeros((2, 1))), [3])
    assert row == {"k": 3, "pass@k": 0, "if alike": 0, "-ln pass@k": None}


def test_attempts_beyond_those_made_are_refused_unless_they_are_exact():
    with pytest.raises(ValueError, match="pass@3 cannot be estimated from 2 samples"):
        passk.rows(measured(attempts=np.ones((2, 4, 1), bool)), [3])
