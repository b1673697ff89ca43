"""Valleys of equal compute."""

import numpy as np
import pytest

from refllm.lab.isoflop import budgets, isoflop, parabola_bias
from refllm.lab.laws import BESIROGLU, HOFFMANN
from refllm.lab.runs import Runs


def valleys(law, width, shift=1.0, noise=0.0, points=9):
    """Runs at five budgets, sizes from N*/width to N*·width, or around another centre."""
    rows = [
        (N, C / (6 * N), C)
        for C in np.geomspace(1e18, 1e21, 5)
        for N in law.optimum(C)[0] * shift * np.geomspace(1 / width, width, points)
    ]
    N, D, C = np.array(rows).T
    loss = law.loss(N, D) * np.exp(noise * np.random.default_rng(0).standard_normal(len(N)))
    return Runs(N, D, C, loss, np.arange(len(N)).astype(str), "nats/token")


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU])
def test_a_centred_grid_gives_the_exponent_exactly(law):
    found = isoflop(valleys(law, 4))
    assert found.exponent == pytest.approx(law.parameter_exponent, abs=1e-6)
    assert all(valley.inside for valley in found.valleys)


@pytest.mark.parametrize(("width", "bias"), [(2, 1.003), (4, 1.013), (8, 1.030), (16, 1.054)])
def test_the_parabola_is_biased_by_what_is_told(width, bias):
    """For Hoffmann's rounded constants, 15 sizes evenly spaced in ln N; measured once by another program."""
    law = HOFFMANN._replace(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    valley = isoflop(valleys(law, width, points=15)).valleys[0]
    assert valley.parameters / law.optimum(valley.flops)[0] == pytest.approx(bias, abs=1.5e-3)
    assert parabola_bias(law, valley) == pytest.approx(valley.parameters / law.optimum(valley.flops)[0], rel=1e-9)


def test_a_valleys_curve_passes_through_its_minimum_and_its_runs():
    for valley in isoflop(valleys(BESIROGLU, 2)).valleys:
        x = np.log(valley.parameters)
        assert np.polyval(valley.curve, x) == pytest.approx(valley.loss, rel=1e-9)
        assert valley.loss < np.polyval(valley.curve, x + 0.3)
        np.testing.assert_allclose(np.polyval(valley.curve, np.log(valley.runs.parameters)), valley.runs.loss, rtol=1e-3)


def test_a_minimum_outside_the_sizes_is_marked():
    found = isoflop(valleys(BESIROGLU, 3, shift=6.0))
    assert not any(valley.inside for valley in found.valleys)


def test_budgets_are_told_apart_and_too_few_are_refused():
    runs = valleys(BESIROGLU, 4)
    assert [len(part.loss) for part in budgets(runs)] == [9] * 5
    with pytest.raises(ValueError, match="1 budgets have three sizes or more and a minimum"):
        isoflop(runs.chosen(runs.flops < 2e18))
