"""A line or a step."""

import numpy as np
import pytest

from refllm.lab.reliability.line_or_step import line_or_step

X = np.log([1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 64e3, 128e3])


@pytest.mark.parametrize(
    ("y", "name"),
    [
        ([2.4, 2.1, 1.8, 1.45, 1.2, 0.9, 0.6, 0.32], "a line"),
        ([0, 0.01, 0, 0, 1, 0.99, 1, 1], "a step"),
        ([1, 1, 0.99, 0, 0, 0, 0.01, 0], "a step"),
        ([0, 0.01, 0, 0, 0, 0, 0, 1], "a step"),
        ([0, 1, 1, 0.99, 1, 1, 1.01, 1], "a step"),
        ([0, 1, 0, 0, 0.4, 1, 0, 1], "a line or a step"),
        ([0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.1], "neither"),  # a line with a jump in it
        ([1.0, 2, 3, 4, 5, 6, 7, 8], "a line"),
        ([2.0] * 8, "a line or a step"),
    ],
)
def test_a_line_and_a_step_are_told_apart(y, name):
    assert line_or_step(X, y).name == name


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_what_is_true_is_seldom_rejected(noise):
    """In 5 % of 100 cases, within three standard errors of that."""
    rng = np.random.default_rng(0)
    line, step = (X - X[0]) / (X[-1] - X[0]), (np.arange(8) >= 3).astype(float)
    lines, steps = ([line_or_step(X, true + noise * rng.standard_normal(8), 300) for _ in range(100)] for true in (line, step))
    assert sum(found.is_no_line for found in lines) <= 11
    assert sum(found.is_no_step for found in steps) <= 11
    assert sum(found.is_no_step for found in lines) > 30
    assert sum(found.is_no_line for found in steps) > 30


def squared_errors(y):
    """Of y (8, n): the squared errors of the best line and of the best step, each by least squares on its own columns."""
    one, n = np.ones(len(X)), np.arange(len(X))
    steps = [np.column_stack([one, n >= i]) for i in range(1, len(X))]
    line, *rest = (np.linalg.lstsq(columns, y)[1] for columns in [np.column_stack([one, X]), *steps])
    return line, np.min(rest, axis=0), steps[int(np.argmin(rest, axis=0)[0])]


@pytest.mark.parametrize(
    "y",
    [
        [2.4, 1.5, 2.4, 1.2, 1.5, 0.1, 0.9, 0.0],
        [2.4, 2.0, 2.5, 1.9, 0.8, 0.0, 0.6, 0.1],
        [0.2, 2.0, 1.2, 1.9, 1.1, 2.3, 1.6, 2.2],
    ],
)
def test_the_chances_are_those_of_simulated_lines_and_steps(y):
    """Within five standard errors of the difference of two shares of 20,000."""
    rng, y = np.random.default_rng(0), np.array(y)[:, None]
    line, step, columns = squared_errors(y)
    steady, jump = np.polyval(np.polyfit(X, y[:, 0], 1), X)[:, None], columns @ np.linalg.lstsq(columns, y)[0]
    one, other, _ = squared_errors(
        steady + rng.standard_normal((8, 20_000)) * np.sqrt(line / 6)
    )  # eight points less two constants
    lower = np.mean(other / one <= step / line)
    one, other, _ = squared_errors(jump + rng.standard_normal((8, 20_000)) * np.sqrt(step / 5))  # less three
    higher = np.mean(other / one >= step / line)
    found = line_or_step(X, y[:, 0], simulations=20_000)
    for share, chance in ((found.line, lower), (found.step, higher)):
        assert share == pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / 10_000) + 1e-4)
    assert 0.01 < min(lower, higher) < 0.9


def test_neither_scale_nor_direction_matters():
    y = np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.9, 0.8, 1.0])
    first = line_or_step(X, y)
    assert line_or_step(3 * X + 1, 5 - 100 * y) == pytest.approx(first, abs=0.04)


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3, 4], [1, 2, 3, 4]), ([1, 2, 3, 5, 4], [1, 2, 3, 4, 5]), (range(6), range(5))])
def test_too_few_points_or_unordered_ones_are_refused(x, y):
    with pytest.raises(ValueError, match="needs 5 points or more in rising order"):
        line_or_step(x, y)
