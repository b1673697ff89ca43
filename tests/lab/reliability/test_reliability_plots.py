"""Plots of yields, causes and attempts."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra `plots`")

from refllm.lab.reliability import reliability_plots
from refllm.lab.reliability.battery import battery, concentration
from refllm.lab.reliability.passk import tail


def row(k, reached, **more):
    return {"k": k, "pass@k": reached, "if alike": 1 - 0.8**k, "-ln pass@k": -np.log(reached) + 0.0 if reached else None} | more


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_attempts_are_drawn_on_logarithmic_axes_with_the_law_that_fits():
    ks = (1, 4, 16, 64)
    rows = [row(k, float(np.exp(-1.6 * k**-0.5)), majority=0.2 + k / 200) for k in ks]
    later = reliability_plots.attempts(rows[1:], None).axes[0].lines[-1]
    assert later.get_ydata()[[0, -1]] == pytest.approx([1 - 0.8**4, 1 - 0.8**64])
    left, right = reliability_plots.attempts(rows, tail(ks, [r["pass@k"] for r in rows])).axes
    assert labels(left) == ["one of k right (pass@k)", "majority right", "one of k, if all items were alike"]
    assert {axes.get_xscale() for axes in (left, right)} == {axes.get_yscale() for axes in (left, right)} == {"log"}
    alike = left.lines[-1]
    assert alike.get_ydata()[[0, -1]] == pytest.approx([0.2, 1 - 0.8**64])
    measured, law = right.lines
    np.testing.assert_allclose(law.get_ydata(), measured.get_ydata())
    assert labels(right)[1] == "$k^{-0.50}$"
    assert right.get_ylabel() == "−ln pass@k"


def test_attempts_that_are_never_or_always_right_can_be_drawn():
    for reached in (0.0, 1.0):
        rows = [row(k, reached) | {"if alike": reached} for k in (1, 4)]
        figure = reliability_plots.attempts(rows, None)
        figure.canvas.draw()
        assert not figure.axes[1].lines


def test_causes_are_bars_and_concentration_a_curve_beside_what_chance_gives():
    errors = np.zeros((50, 10), dtype=int)
    features = np.arange(500).reshape(50, 10) % 25
    errors[features == 3] = 4
    tests = battery(errors[None] < np.arange(1, 5)[:, None, None], features, permutations=5)
    bars, curve = reliability_plots.causes(tests, concentration(errors, features)).axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([tests.noise, tests.hard, tests.missing])
    assert curve.lines[0].get_ydata()[:2].tolist() == [0, 1]
    assert curve.lines[0].get_xdata()[1] == pytest.approx(1 / 25)
    assert curve.lines[1].get_ydata()[1] < 0.3
    assert len(reliability_plots.causes(tests, None).axes) == 1


def test_every_size_has_its_own_mark():
    line = {"length": 1, "measured": 0.5, "p^n": 0.5, "items differ": 0.5, "low": 0.4, "high": 0.6}
    curves = [(f"N = {n}", [line, line | {"length": 2}]) for n in range(8)]
    (axes,) = reliability_plots.yield_curves(curves).axes
    marks = [line.get_marker() for line in axes.lines if line.get_marker() != "None"]
    assert len(set(marks)) == 8
    assert labels(axes)[-3:] == ["$p^n$", "if items differ", "independent steps, 95 %"]


def test_a_yield_of_several_models_is_their_mean_with_a_point_for_each():
    line = {"p^n": 0.5, "items differ": 0.5, "low": 0.4, "high": 0.6}
    rows = [line | {"length": n, "measured": value, "p^n": value} for value in (0.2, 0.6) for n in (1, 2)]
    (axes,) = reliability_plots.yield_curves([("N = 7", rows)]).axes
    mean, points, power, differ, *_ = axes.lines
    assert mean.get_xdata().tolist() == power.get_xdata().tolist() == differ.get_xdata().tolist() == [1, 2]
    assert mean.get_ydata() == pytest.approx([0.4, 0.4])
    assert power.get_ydata() == pytest.approx([0.4, 0.4])
    assert points.get_ydata().tolist() == [0.2, 0.2, 0.6, 0.6]
    assert (points.get_linestyle(), points.get_marker()) == ("None", mean.get_marker())
    assert labels(axes)[0] == "N = 7"
    assert len(labels(axes)) == 4


def bought(size, attempts, nats):
    return {
        "parameters": size,
        "attempts": attempts,
        "total_flops": 1e9 * size * attempts,
        "nats": nats,
        "pass": 0.5,
        "majority": 0.4,
    }


def test_what_attempts_cost_is_a_line_for_each_size_without_losses_that_are_too_small_to_tell():
    rows = [bought(10, 1, 2.0), bought(10, 4, 0.5), bought(20, 1, 1e-3), bought(20, 4, 1e-9), bought(30, 1, None)]
    (axes,) = reliability_plots.cost(rows, "FLOPs of 7 questions").axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2.0, 0.5], [1e-3], []]
    assert axes.lines[0].get_xdata().tolist() == [1e10, 4e10]
    assert axes.get_xlabel() == "FLOPs of 7 questions"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    left, right = reliability_plots.bought(rows, "FLOPs of 7 questions").axes
    assert left.lines[0].get_ydata().tolist() == [0.5, 0.5]
    assert right.lines[0].get_ydata().tolist() == [0.4, 0.4]
    assert left.get_title() == "one of k attempts, k = 1, 4"


def test_a_mean_of_costs_is_drawn_where_every_model_has_one():
    rows = [bought(10, 1, 2.0), bought(10, 4, 1e-9), bought(10, 16, None), bought(10, 1, 4.0), bought(10, 4, 1e-2)]
    rows.append(bought(10, 16, 1.0))
    line, points = reliability_plots.cost(rows, "FLOPs").axes[0].lines
    assert line.get_ydata() == pytest.approx([3.0, 5e-3])
    assert points.get_ydata().tolist() == [2.0, 4.0, 1e-2]


def test_each_model_has_a_point_beside_the_line_of_means():
    rows = [
        {"parameters": n, "nats_per_answer": loss, "accuracy": 0.9, "exact_match": 0.5 * loss, "product": loss}
        for n in (10, 100)
        for loss in (0.2, 0.8)
    ]
    loss, share = reliability_plots.loss_and_score(rows).axes
    line, points = loss.lines
    assert line.get_ydata() == pytest.approx([0.5, 0.5])
    assert (points.get_xdata().tolist(), points.get_ydata().tolist()) == ([10, 10, 100, 100], [0.2, 0.8, 0.2, 0.8])
    assert line.get_linestyle() == "-"
    assert points.get_linestyle() == "None"
    assert share.lines[-1].get_ydata() == pytest.approx([0.5, 0.5])  # the product's
    assert len(share.lines) == 5
    assert len(labels(share)) == 3


def test_loss_and_score_stand_side_by_side_over_the_same_sizes():
    rows = [{"parameters": n, "nats_per_answer": 1 / n, "accuracy": 0.9, "exact_match": 0.5, "product": 0.4} for n in (10, 100)]
    loss, share = reliability_plots.loss_and_score(rows, ["loss: a line", "exact match: a step"]).axes
    assert (loss.get_title(), share.get_title()) == ("loss: a line", "exact match: a step")
    assert loss.lines[0].get_ydata().tolist() == [0.1, 0.01]
    assert [line.get_ydata()[0] for line in share.lines] == [0.9, 0.5, 0.4]
    assert {axes.get_xscale() for axes in (loss, share)} == {"log"}
    assert labels(share) == ["each answer", "all answers of an item", "product by position"]
