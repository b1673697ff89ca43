"""Whether something rises."""

import itertools

import numpy as np
import pytest

from refllm.lab.reliability.trend import trend
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE


def test_the_shares_of_orders_are_those_of_all_permutations():
    found = trend([1, 2, 3, 4], [1, 2, 4, 3])
    assert found.tau == pytest.approx(4 / 6)
    assert found.p_rising == pytest.approx(4 / 24)  # the order itself and the three that are one exchange or none away
    assert found.p_falling == pytest.approx(23 / 24)


@pytest.mark.parametrize(
    ("y", "rising", "verdict"),
    [
        ([1, 2, 3, 4, 5], True, HOLDS),
        ([1, 2, 3, 4, 5], False, FAILS),
        ([5, 4, 3, 2, 1], False, HOLDS),
        ([1, 3, 2, 5, 1], True, UNDECIDABLE),
        ([2, 2, 2, 2, 2], True, UNDECIDABLE),
        ([1, 2], True, UNDECIDABLE),
        (list(range(9)), True, HOLDS),
        (list(range(9)), False, FAILS),
    ],
)
def test_a_trend_is_told_where_chance_seldom_gives_it(y, rising, verdict):
    assert trend(range(len(y)), y).verdict(rising) == verdict


@pytest.mark.oracle
def test_tau_and_its_chances_are_scipys():
    from scipy import stats

    rng = np.random.default_rng(0)
    for n in (5, 7, 12):
        x, y = rng.random(n), rng.random(n)
        found, theirs = trend(x, y), stats.kendalltau(x, y, alternative="greater", method="exact")
        assert found.tau == pytest.approx(theirs.statistic)
        assert found.p_rising == pytest.approx(theirs.pvalue, abs=1e-9 if n <= 7 else 0.03)
    tied = [1, 1, 2, 3, 3, 4], [1, 2, 2, 2, 5, 4]
    assert trend(*tied).tau == pytest.approx(stats.kendalltau(*tied).statistic)


def test_equal_values_count_as_neither():
    orders = list(itertools.permutations([1, 1, 2]))
    assert trend([1, 2, 3], [1, 1, 2]).p_rising == pytest.approx(sum(o == (1, 1, 2) for o in orders) / len(orders))


def test_points_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="3 values of x go with 2 of y"):
        trend([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="two points or more"):
        trend([1], [2])
