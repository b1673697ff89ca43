"""How the laboratory's plots look: logarithmic axes with plain numbers, little ink, labels with units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

INK, FAINT = "#1f2933", "#9aa5b1"
COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#975a16", "#2c7a7b", "#4a5568")
MARKERS = "os^DvPX*"  # beside the colors, for print without them
DASHES = ("-", "--", "-.", ":")  # likewise, of lines
LABELS = {
    "parameters": "parameters N",
    "tokens": "training tokens D",
    "flops": "training compute C (FLOPs)",
}


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401 -- asked for once, here
    except ImportError:
        return False
    return True


def new_figure(x: str, y: str, *, wide: bool = False, panels: int = 1) -> tuple[Any, Any]:
    """A figure and its axes with labels; several panels side by side give an array of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if wide or panels > 1 else 7, 4.6), dpi=160, layout="constrained")
    axes = figure.subplots(1, panels)
    for a in np.atleast_1d(axes):
        frame(a, x, y)
    return figure, axes


def frame(axes: Any, x: str, y: str) -> None:
    """Labels, a faint grid behind the data, and no more of a frame than its two axes."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(True, color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, color=FAINT)


def logarithmic(axes: Any, *, x: bool = True, y: bool = True) -> None:
    """Logarithmic axes; the vertical one with ticks at round numbers even where it spans less than a power of ten."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter, NullLocator

    if x:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_minor_formatter(NullFormatter())  # between powers of ten labels would meet
        if high < 100 * low:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False))
    if y:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 30 * low:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend(axes: Any, **options: Any) -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


def curves(rows: Sequence[Mapping[str, Any]], x: str, unit: str) -> Any:
    """The loss of every run along a column, a colour for each number of parameters."""
    figure, axes = new_figure(LABELS.get(x, x), f"held-out loss ({unit})")
    sizes = sorted({row["parameters"] for row in rows})
    for i, size in enumerate(sizes):
        mine = [row for row in rows if row["parameters"] == size]
        for j, run in enumerate(sorted({row["run"] for row in mine})):
            line = [row for row in mine if row["run"] == run]
            style = {"color": COLORS[i % len(COLORS)], "linewidth": 1.4, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axes.plot([r[x] for r in line], [r["loss"] for r in line], label=f"N = {size:,}" if j == 0 else None, **style)
    logarithmic(axes)
    legend(axes)
    return figure


def ends(rows: Sequence[Mapping[str, Any]], x: str, unit: str) -> Any:
    """The loss at the end of every run against a column."""
    figure, axes = new_figure(LABELS.get(x, x), f"held-out loss ({unit})")
    last = {row["run"]: row for row in sorted(rows, key=lambda row: row["tokens"])}.values()
    axes.plot([r[x] for r in last], [r["loss"] for r in last], linestyle="", marker="o", color=COLORS[0])
    logarithmic(axes)
    return figure


def fitted(fit: Any, runs: Any, variable: str) -> Any:
    """Runs and a law in one variable with its band, and beside them the reducible loss, which is a straight line."""
    figure, axes = new_figure(LABELS[variable], f"loss ({runs.unit})", panels=2)
    x = runs.column(variable)
    line = np.geomspace(x.min(), x.max() * 2, 100)
    floor = fit.constants.get("E", 0.0)
    for a, minus in zip(axes, (0.0, floor), strict=True):
        if len(fit.samples):
            low, high = fit.band(line)
            a.fill_between(
                line, np.maximum(low - minus, 1e-9), high - minus, color=COLORS[0], alpha=0.15, linewidth=0, label="95 %"
            )
        a.plot(line, fit.loss(line) - minus, color=COLORS[0], linewidth=1.6, label="fitted law")
        above = runs.loss - minus > 0
        a.plot(x[above], runs.loss[above] - minus, linestyle="", marker="o", markersize=4, color=INK, label="measured")
    axes[1].set_ylabel(f"reducible loss, L − {floor:.3g} ({runs.unit})", color=INK)
    for a, minus in zip(axes, (0.0, floor), strict=True):
        rest = (runs.loss - minus)[runs.loss > minus]
        a.set_ylim(0.9 * rest.min(), 1.1 * rest.max())
        logarithmic(a)
    legend(axes[0])
    return figure


def residuals(fit: Any, runs: Any) -> Any:
    """What the law leaves over, against N, D and C."""
    figure, axes = new_figure("", "ln measured − ln fitted", panels=3)
    for a in axes[1:]:
        a.set_ylabel("")
    for a, name in zip(axes, ("parameters", "tokens", "flops"), strict=True):
        a.axhline(0, color=FAINT, linewidth=1)
        a.plot(runs.column(name), fit.residuals, linestyle="", marker="o", markersize=3.5, color=COLORS[0])
        a.set_xlabel(LABELS[name], color=INK)
        logarithmic(a, y=False)
    return figure


def contours(fit: Any, runs: Any) -> Any:
    """L(N, D) with the runs on it, and where each budget is best spent."""
    figure, axes = new_figure("training compute C = 6·N·D (FLOPs)", LABELS["parameters"])
    law, spent = fit.loss_laws()[0], 6 * runs.parameters * runs.tokens
    C = np.geomspace(spent.min() / 2, spent.max() * 2, 80)
    N = np.geomspace(runs.parameters.min() / 2, runs.parameters.max() * 2, 80)
    loss = law.loss(N[:, None], C[None, :] / (6 * N[:, None]))
    levels = np.quantile(runs.loss, np.linspace(0, 1, 9))
    lines = axes.contour(C, N, loss, levels=np.unique(levels), colors=FAINT, linewidths=1)
    axes.clabel(lines, fontsize=8, fmt="%.3g", inline_spacing=1)
    best = law.optimum(C)[0]
    axes.plot(C, best, color=COLORS[1], linewidth=1.8, label="the best split")
    axes.plot(spent, runs.parameters, linestyle="", marker="o", markersize=3.5, color=COLORS[0], label="losses measured")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(N[0], N[-1])
    axes.set_title(f"contours: the fitted loss ({runs.unit})", fontsize=10, color=INK)
    legend(axes)
    return figure
