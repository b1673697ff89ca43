"""Plots of how compute is best spent."""

import numpy as np
import pytest

from refllm.lab import plots
from refllm.lab.fits import budget_plots
from refllm.lab.fits.extrapolate import choose
from refllm.lab.fits.fit import fit
from refllm.lab.fits.isoflop import isoflop
from refllm.lab.fits.laws import BESIROGLU, compute_factors
from refllm.lab.fits.runs import Runs

pytest.importorskip("matplotlib", reason="the extra `plots`")


@pytest.fixture(scope="module")
def figures(planted):
    runs = planted(noise=2e-3, sizes=6)
    both = fit(runs, ("parameters", "tokens"), resamples=20)
    small, alone = runs.chosen(runs.tokens == runs.tokens.max()), fit(runs, ("parameters",), False)
    rows = [{"law": name, "compute": factor} for name, factor in compute_factors().items()]
    rows.append({"law": "these runs", "compute": 40.0, "low": 30.0, "high": 60.0})
    return {
        "valleys": budget_plots.valleys(isoflop(valleys()), runs.unit),
        "frontier": budget_plots.frontier(both, runs, [1e20, 1e21]),
        "lifetimes": budget_plots.lifetimes(both, [1e20, 1e21], 1e11, runs.unit),
        "extrapolation in N": budget_plots.extrapolation(choose(small, ("parameters",)), small, ("parameters",)),
        "extrapolation in N and D": budget_plots.extrapolation(
            choose(runs, ("parameters", "tokens")), runs, ("parameters", "tokens")
        ),
        "factors": budget_plots.factors(rows, 0.5),
        "law": plots.fitted(alone, runs, "parameters"),
        "contours": plots.contours(both, runs),
        "residuals": plots.residuals(both, runs),
    }


def valleys():
    """Three budgets, the first of which has its minimum beyond its sizes."""
    rows = []
    for C, shift in ((1e18, 8.0), (1e19, 1.0), (1e20, 1.0)):
        rows += [(N, C / (6 * N), C) for N in BESIROGLU.optimum(C)[0] * shift * np.geomspace(0.4, 2.5, 5)]
    N, D, C = np.array(rows).T
    return Runs(N, D, C, BESIROGLU.loss(N, D), np.arange(len(N)).astype(str), "nats/token")


def test_every_axis_says_what_it_is_and_in_what_unit(figures):
    for name, figure in figures.items():
        labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
        if name not in ("factors", "residuals"):  # names of laws; one label for a row
            assert all(labels), name
        for label in labels:
            assert "loss" not in label or any(unit in label for unit in ("nats/token", "%", "share", "of the reducible")), label
            assert "compute" not in label or "FLOPs" in label or "times" in label, label


def test_series_are_told_apart_without_colours(figures):
    for name, figure in figures.items():
        for axes in figure.axes:
            named = [one for one in axes.get_lines() if not one.get_label().startswith("_")]
            looks = [
                (str(one.get_linestyle()), one.get_marker(), one.get_markerfacecolor(), one.get_linewidth()) for one in named
            ]
            looks = [
                (dash, mark, face == "w" if mark not in ("None", "") else None, width > 2) for dash, mark, face, width in looks
            ]
            dashes = [str(one._dash_pattern) for one in named]  # `linestyle` calls every dash of one's own "--"
            assert len(set(zip(looks, dashes, strict=True))) == len(named), (name, looks)


def test_numbers_are_written_as_in_print():
    assert budget_plots.power_of_ten(1e11) == "$10^{11}$"
    assert budget_plots.power_of_ten(2.5e9) == r"$2.5\cdot10^{9}$"


def test_a_minimum_beyond_the_sizes_is_hollow_and_only_in_the_law(figures):
    curves, line = figures["valleys"].axes
    stars = [[one for one in axes.get_lines() if one.get_marker() == "*"] for axes in (curves, line)]
    assert [len(found) for found in stars] == [2, 3]
    assert [one.get_markerfacecolor() == "none" for one in stars[1]] == [True, False, False]


def test_a_law_of_the_smaller_runs_is_drawn_to_the_held_out_ones(figures):
    losses = figures["extrapolation in N"].axes[0]
    fitted, held_out, *laws = losses.get_lines()
    assert len(laws) == 2
    assert all(law.get_xdata()[-1] == pytest.approx(held_out.get_xdata()[0]) for law in laws)
    assert len(fitted.get_xdata()) == 6
