"""Where two kinds of model are equally good."""

import numpy as np
import pytest

from refllm.lab.crossing import Line, common, crossing, zero


def test_lines_are_compared_only_where_both_are():
    np.testing.assert_allclose(common(np.array([0.0, 2.0, 5.0]), np.array([1.0, 3.0, 9.0])), [1, 2, 3, 5])
    assert len(common(np.array([0.0, 1.0]), np.array([2.0, 3.0]))) == 0


def test_the_first_change_of_sign_is_interpolated():
    assert zero(np.array([0.0, 1.0, 3.0, 4.0]), np.array([5.0, 1.0, -3.0, 1.0])) == pytest.approx(1.5)
    assert zero(np.array([0.0, 1.0]), np.array([1.0, 2.0])) is None
    assert zero(np.array([2.0]), np.array([0.0])) is None


def test_lines_without_a_size_in_common_cross_nowhere():
    first, second = Line(np.array([1.0, 2.0]), np.ones((2, 3))), Line(np.array([4.0, 8.0]), np.zeros((2, 3)))
    assert crossing(first, second, 5, 0) == (None, None, None, None, None)


@pytest.mark.parametrize(("losses", "reached"), [((2.0, 1.5), 0.0), ((2.0, 0.5), 1.0), ((0.5, 0.6), 1.0)])
def test_the_first_reaches_the_second_where_it_is_somewhere_as_good(losses, reached):
    first, second = (Line(np.array([1.0, 9.0]), np.outer(line, np.ones(8))) for line in (losses, (1.0, 1.0)))
    found = crossing(first, second, 10, 0)
    assert found.reached == reached
    assert found.range == pytest.approx((1, 9))
    assert (found.size is not None) == (losses == (2.0, 0.5))


def test_the_interval_of_a_crossing_covers_the_true_one_about_as_often_as_it_says():
    draw, covered = np.random.default_rng(0), 0
    for trial in range(100):  # at size e^x the true losses are 2 − x and 1; every window adds noise of its own to each
        shared, x = draw.normal(size=60), np.array([0.0, 2.0])
        first = (2 - x)[:, None] + 0.5 * draw.normal(size=(1, 60)) + shared
        found = crossing(Line(np.exp(x), first), Line(np.exp(x), np.ones((2, 60)) + shared), 100, trial)
        covered += found.low <= np.e <= found.high
    assert 86 <= covered <= 99  # 95 less three standard errors
