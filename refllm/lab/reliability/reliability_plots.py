"""Plots of yields, of why models err and of what more attempts buy. Sizes differ in marker too, for readers without colours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refllm.lab import plots
from refllm.lab.reliability.battery import Battery, Concentration
from refllm.lab.reliability.passk import Tail
from refllm.lab.seeds import over_seeds

Rows = Sequence[Mapping[str, Any]]


def style(i: int) -> dict[str, Any]:
    """The colour and the mark of the i-th of several lines."""
    return {"color": plots.COLORS[i % len(plots.COLORS)], "marker": plots.MARKERS[i % len(plots.MARKERS)], "markersize": 5}


def models(axes: Any, rows: Rows, x: str, y: str, least: float = -np.inf, **look: Any) -> None:
    """A line through the means over the models that share x, and, where there are several, a faint point for each of them.

    least: values up to it are left out, means and models alike
    """
    means = over_seeds([dict(row) for row in rows], (x,), y)
    faint = {"linestyle": "", "label": None, "markersize": 3.5, "alpha": 0.45}
    for part, marks in ((means, look), (rows, look | faint)) if len(means) < len(rows) else ((means, look),):
        shown = [(row[x], row[y]) for row in part if row[y] > least]
        axes.plot([point[0] for point in shown], [point[1] for point in shown], **marks)


def yield_curves(curves: Sequence[tuple[str, Rows]]) -> Any:
    """Exact match against length with the band of independent steps, p^n dotted with open marks, where items differ dashed.

    Lines are the means of a curve's models, and its band the mean of theirs, which is wider than that of the mean.
    """
    figure, axes = plots.new_figure("length (steps)", "share of items right so far", wide=len(curves) > 1)
    for i, (label, rows) in enumerate(curves):
        means = over_seeds([dict(row) for row in rows], ("length",), "measured", ("p^n", "items differ", "low", "high"))
        n, look = [row["length"] for row in means], style(i)
        color = look["color"]
        axes.fill_between(n, [row["low"] for row in means], [row["high"] for row in means], color=color, alpha=0.15, linewidth=0)
        models(axes, rows, "length", "measured", label=label, **look)
        axes.plot(n, [row["p^n"] for row in means], linestyle=":", **look | {"markerfacecolor": "white", "markersize": 4})
        axes.plot(n, [row["items differ"] for row in means], linestyle="--", linewidth=0.9, color=color)
    axes.plot(
        [], [], linestyle=":", label="$p^n$", **style(0) | {"color": plots.INK, "markerfacecolor": "white", "markersize": 4}
    )
    axes.plot([], [], linestyle="--", color=plots.INK, label="if items differ")
    axes.fill_between([], [], color=plots.FAINT, alpha=0.4, linewidth=0, label="independent steps, 95 %")
    axes.set_ylim(0, None)
    axes.xaxis.get_major_locator().set_params(integer=True)
    plots.legend(axes, loc="center left", bbox_to_anchor=(1, 0.5))  # beside it: curves may run anywhere
    return figure


def attempts(rows: Rows, found: Tail | None) -> Any:
    """What k attempts reach, beside what they would if items were alike; and −ln pass@k, straight where it is a power law."""
    figure, (reached, rest) = plots.new_figure("attempts k", "share of items", panels=2)
    lines = (("pass@k", "one of k right (pass@k)"), ("majority", "majority right"), ("best of k", "best scored right"))
    for i, (column, label) in enumerate(lines):
        points = [(row["k"], row[column]) for row in rows if row.get(column)]
        if points:
            reached.plot(*zip(*points, strict=True), label=label, **style(i))
    first, k = rows[0], np.geomspace(rows[0]["k"], rows[-1]["k"], 50)
    alike = 1 - (1 - first["if alike"]) ** (k / first["k"])
    if first["if alike"] > 0:
        reached.plot(k, alike, linestyle="--", color=plots.INK, label="one of k, if all items were alike")
    left = [(row["k"], row["-ln pass@k"]) for row in rows if row["-ln pass@k"]]
    if left:
        rest.plot(*zip(*left, strict=True), label="measured", **style(0))
    if found is not None:
        x, y = np.array(left).T
        middle = np.exp(np.log(y).mean() + found.exponent * np.log(x).mean())
        rest.plot(x, middle * x**-found.exponent, linestyle=":", color=plots.INK, label=f"$k^{{-{found.exponent:.2f}}}$")
    rest.set_ylabel("−ln pass@k", color=plots.INK)
    for axes in (reached, rest):
        if axes.lines:
            plots.logarithmic(axes)
            plots.legend(axes)
    return figure


def causes(tests: Battery, found: Concentration | None) -> Any:
    """The shares of A, B and C in the errors; and how many of the errors lie in the features that are worst."""
    figure, panels = plots.new_figure("share of the errors", "", panels=2 if found else 1)
    shares = np.atleast_1d(panels)[0]
    names = ("A  random noise", "B  hard steps", "C  missing skills")
    values = (tests.noise, tests.hard, tests.missing)
    bars = shares.barh(names, values, color=plots.COLORS[:3], height=0.6)
    shares.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=4, color=plots.INK)
    shares.invert_yaxis()
    shares.set_xlim(0, 1.1)
    if found:
        axes = panels[1]
        axes.plot([0, *found.steps], [0, *found.errors], color=plots.COLORS[0], linewidth=1.8, label="measured")
        axes.plot([0, *found.steps], [0, *found.by_chance], linestyle="--", color=plots.INK, label="errors shuffled over steps")
        axes.set_xlabel("share of the steps, worst features first", color=plots.INK)
        axes.set_ylabel("share of the errors", color=plots.INK)
        plots.legend(axes, loc="lower right")
    return figure


def loss_and_score(rows: Rows, shapes: Sequence[str] = ("", "")) -> Any:
    """The loss of every answer, and beside it the share right of every answer and of all of an item's, against N: a point for
    each model, and lines through the means over seeds. shapes: of the loss and of exact match, to stand above them
    """
    figure, (loss, share) = plots.new_figure(plots.LABELS["parameters"], "nats per answer", panels=2)
    models(loss, rows, "parameters", "nats_per_answer", **style(0))
    models(share, rows, "parameters", "accuracy", label="each answer", **style(0))
    models(share, rows, "parameters", "exact_match", label="all answers of an item", **style(1))
    product = over_seeds([dict(row) for row in rows], ("parameters",), "product")
    N, values = [row["parameters"] for row in product], [row["product"] for row in product]
    share.plot(N, values, linestyle="--", color=plots.INK, label="product by position")
    share.set_ylabel("share right", color=plots.INK)
    loss.set_ylim(0, None)
    for axes, title in zip((loss, share), shapes, strict=True):
        plots.logarithmic(axes, y=False)
        axes.set_title(title, fontsize=10, color=plots.INK)
    plots.legend(share)
    return figure


def bought(rows: Rows, label: str) -> Any:
    """What attempts buy against all FLOPs: one right of k, and the majority of k; a line for each size, a mark for each k.

    Lines are the means over seeds, and faint points the models.
    """
    figure, panels = plots.new_figure(label, "share of questions right", panels=2)
    for axes, column, title in zip(panels, ("pass", "majority"), ("one of k attempts", "majority of k attempts"), strict=True):
        _lines(axes, rows, column)
        axes.set_title(f"{title}, k = {', '.join(str(k) for k in sorted({row['attempts'] for row in rows}))}", fontsize=10)
        axes.set_ylim(-0.03, 1.03)
        plots.logarithmic(axes, y=False)
    plots.legend(panels[0])
    return figure


def cost(rows: Rows, label: str) -> Any:
    """The loss of whole answers, −ln pass@k, against all FLOPs: a line for each size, a mark for each k."""
    figure, axes = plots.new_figure(label, "−ln pass@k (nats per item)")
    _lines(axes, rows, "nats")
    plots.logarithmic(axes)
    plots.legend(axes)
    return figure


def _lines(axes: Any, rows: Rows, column: str) -> None:
    """A column against total FLOPs, a line for each size. Losses that are too small to be known by so many items are left out."""
    for i, size in enumerate(sorted({row["parameters"] for row in rows})):
        mine = [row for row in rows if row["parameters"] == size]
        lost = {row["total_flops"] for row in mine if row[column] is None}  # infinite, and so is their mean
        mine = [row for row in mine if row["total_flops"] not in lost]
        models(axes, mine, "total_flops", column, 1e-5 if column == "nats" else -np.inf, label=f"N = {size:,}", **style(i))
