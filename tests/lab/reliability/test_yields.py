"""How errors compound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.reliability.yields import (
    beta_binomial,
    curve,
    exact_match,
    largest,
    length_at,
    power,
    reliability_needed,
    standard_errors,
)


def test_three_and_four_nines_over_a_thousand_tokens():
    assert power(0.999, 1000) == pytest.approx(0.367695, abs=1e-6)
    assert power(0.9999, 1000) == pytest.approx(0.904833, abs=1e-6)
    assert reliability_needed(0.5, 1000) == pytest.approx(0.999307, abs=1e-6)
    assert reliability_needed(0.9, 1000) == pytest.approx(0.9998946, abs=1e-7)


@given(st.floats(0.01, 0.99), st.integers(1, 5000))
def test_reliability_length_and_yield_are_one_law(share, n):
    p = reliability_needed(share, n)
    assert power(p, n) == pytest.approx(share, rel=1e-9)
    assert length_at(share, p) == pytest.approx(n, rel=1e-6)


def test_perfect_steps_last_forever_and_hopeless_ones_not_at_all():
    assert length_at(0.5, 1.0) == float("inf")
    assert length_at(0.5, 0.0) == 0


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 8))
def test_exact_match_counts_items_without_an_error_so_far(seed, items, steps):
    right = np.random.default_rng(seed).random((items, steps)) < 0.7
    expected = [np.mean([all(row[: n + 1]) for row in right]) for n in range(steps)]
    np.testing.assert_allclose(exact_match(right), expected)


def test_positions_that_differ_break_the_power_of_the_mean_and_not_the_product():
    rng = np.random.default_rng(0)
    q = np.array([1.0, 0.96, 0.12, 0.94, 0.98, 0.99, 1.0])
    found = curve(rng.random((2000, 7)) < q)
    assert found.power[-1] > 3 * found.measured[-1]
    assert found.low[-1] <= found.measured[-1] <= found.high[-1]
    assert found.product[-1] == pytest.approx(found.measured[-1], abs=0.02)
    assert found.p_value > 0.05


def test_items_that_differ_lie_above_the_product_and_on_the_beta_law():
    rng = np.random.default_rng(1)
    p = rng.beta(2.0, 0.5, size=3000)
    found = curve(rng.random((3000, 12)) < p[:, None], permutations=100)
    n = np.arange(1, 13)
    exact = np.cumprod((2.0 + n - 1) / (2.5 + n - 1))  # E[p^n] of Beta(2, 0.5)
    np.testing.assert_allclose(found.measured, exact, atol=0.03)
    np.testing.assert_allclose(found.spread, exact, atol=0.03)
    assert found.measured[-1] > found.high[-1]
    assert found.p_value < 0.02


def test_the_beta_binomials_constants_are_found():
    rng = np.random.default_rng(2)
    mean, theta = beta_binomial(rng.binomial(20, rng.beta(3.0, 1.0, 4000)), 20)
    assert mean == pytest.approx(0.75, abs=0.01)
    assert theta == pytest.approx(0.25, abs=0.02)  # 1 / (a + b)
    mean, theta = beta_binomial(rng.binomial(20, 0.9, 4000), 20)
    assert mean == pytest.approx(0.9, abs=0.005)
    assert theta < 2e-3


@pytest.mark.parametrize("successes", [[5, 5, 5], [0, 0, 0]])
def test_items_without_any_spread_have_none(successes):
    assert beta_binomial(successes, 5)[1] == 0


def test_outcomes_of_one_item_are_refused():
    with pytest.raises(ValueError, match=r"outcomes have shape \(1, 5\)"):
        curve([[True] * 5])


def yields_of(right):
    q, n = right.mean(axis=0), np.arange(1, right.shape[1] + 1)
    return exact_match(right) - right.mean() ** n, exact_match(right) - np.cumprod(q)


def test_standard_errors_are_how_far_resampled_items_spread():
    """Within five standard errors of a spread over 400 resamples, 1/√800 of it."""
    rng = np.random.default_rng(3)
    right = rng.random((3000, 6)) < rng.beta(6, 1, 3000)[:, None] * np.array([1.0, 0.9, 0.95, 0.6, 1.0, 0.8])
    drawn = np.array([yields_of(right[rng.integers(0, 3000, 3000)]) for _ in range(400)])  # (400, 2, 6)
    for found, resampled in zip(standard_errors(right), drawn.std(axis=0), strict=True):
        np.testing.assert_allclose(found, resampled, rtol=5 / np.sqrt(800), atol=1e-15)


def test_standard_errors_by_hand():
    """Of lengths 1 and 2, where p = 5/8 and q = 3/4, 1/2, so that the others' products are 1, and then 1/2 and 3/4."""
    powers, products = standard_errors(np.array([[1, 1], [1, 1], [1, 0], [0, 0]], dtype=bool))
    own, whole = np.array([1, 1, 0.5, 0]), np.array([1, 1, 0, 0])
    assert powers[0] == pytest.approx(np.std([0, 0, 0.5, 0]) / 2)
    assert powers[1] == pytest.approx(np.std(whole - 2 * 0.625 * own) / 2)
    assert products[0] == pytest.approx(0)
    assert products[1] == pytest.approx(np.std(whole - [1.25, 1.25, 0.5, 0]) / 2)


def test_steps_that_are_never_right_have_errors_too():
    right = np.random.default_rng(4).random((200, 5)) < np.array([0.9, 0.0, 0.8, 0.0, 0.5])
    power_error, product_error = standard_errors(right)
    assert product_error[1:].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-15)
    assert np.all(power_error > 0)


def test_the_largest_of_many_true_differences_lies_in_its_interval():
    """In 95 of 100 at least, within five standard errors of that. Of p^n there is a difference, of the product there is none."""
    q, n, missed = np.array([0.95, 0.9, 0.99, 0.8, 0.97]), np.arange(1, 6), np.zeros(2)
    real = np.abs(np.cumprod(q) - q.mean() ** n).max()
    for seed in range(100):
        right = np.random.default_rng(seed).random((500, 5)) < q
        for i, (true, found, errors) in enumerate(zip((real, 0), yields_of(right), standard_errors(right), strict=True)):
            value, low, high = largest(found, errors)
            assert low <= value <= high
            missed[i] += not low <= true <= high
    assert np.all(missed <= 16)


def test_the_largest_difference_by_hand():
    """Two at once: each at 97.5 %, 2.2414 standard errors. A smaller one that is less sure may reach farther."""
    assert largest([0.5, -0.4], [0.01, 0.1]) == pytest.approx((0.5, 0.5 - 0.022414, 0.4 + 0.22414), abs=1e-5)
    assert largest([0.1], [0.1]) == pytest.approx((0.1, 0, 0.1 + 0.19600), abs=1e-5)
