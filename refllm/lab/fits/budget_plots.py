"""Plots of how compute is best spent, and of laws judged at what they have not seen. Series differ in line and
marker too, to be told apart without colours."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refllm.lab.fits.extrapolate import Choice
from refllm.lab.fits.fit import Fit, spread
from refllm.lab.fits.frontier import lifetime, published
from refllm.lab.fits.isoflop import IsoFlop
from refllm.lab.fits.runs import Runs
from refllm.lab.plots import COLORS, DASHES, FAINT, INK, LABELS, MARKERS, legend, logarithmic, new_figure


def power_of_ten(value: float) -> str:
    """1.5·10¹¹ as matplotlib sets it."""
    power = math.floor(math.log10(value))
    leading = f"{value / 10**power:.3g}"
    return rf"${'' if leading == '1' else leading + chr(92) + 'cdot'}10^{{{power}}}$"


def valleys(found: IsoFlop, unit: str) -> Any:
    """The losses of every budget with their parabola and its minimum; beside them the law of the minima. A hollow star
    is a minimum outside the range of sizes, which the law leaves out."""
    figure, (curves, line) = new_figure(LABELS["parameters"], f"loss ({unit})", panels=2)
    for i, valley in enumerate(found.valleys):
        color, N = COLORS[i % len(COLORS)], valley.runs.parameters
        x = np.geomspace(N.min(), N.max(), 60)
        y = np.polyval(valley.curve, np.log(x))
        curves.plot(x, y, color=color, linewidth=1.2)
        curves.plot(N, valley.runs.loss, linestyle="", marker=MARKERS[i % len(MARKERS)], markersize=4, color=color)
        curves.annotate(power_of_ten(valley.flops), (x[-1], y[-1]), (3, 3), textcoords="offset points", fontsize=8, color=INK)
        star = {"linestyle": "", "marker": "*", "markersize": 11, "color": INK}
        if valley.inside:
            curves.plot([valley.parameters], [valley.loss], markerfacecolor=color, **star)
        line.plot([valley.flops], [valley.parameters], markerfacecolor=color if valley.inside else "none", **star)
    C = np.array([valley.flops for valley in found.valleys])
    line.plot(C, [found.best(c) for c in C], color=INK, linewidth=1.2, label=f"N* ~ C$^{{{found.exponent:.3f}}}$")
    line.set_xlabel(LABELS["flops"], color=INK)
    line.set_ylabel("best parameters N*", color=INK)
    curves.set_title("one curve per budget C (FLOPs)", fontsize=10, color=INK)
    curves.margins(0.12)
    logarithmic(curves)
    logarithmic(line)
    legend(line)
    return figure


def frontier(fitted: Fit, runs: Runs, budgets: Sequence[float]) -> Any:
    """The best N and D of every budget with their bands, beside the published laws and the runs themselves."""
    figure, panels = new_figure("training compute C = 6·N·D (FLOPs)", "", panels=2)
    mine = 6 * runs.parameters * runs.tokens
    C = np.geomspace(mine.min(), max(*budgets, mine.max()), 40)
    law, *others = fitted.loss_laws()
    theirs = published(C.tolist())
    for axes, which, own in zip(panels, ("parameters", "tokens"), (runs.parameters, runs.tokens), strict=True):
        i = ("parameters", "tokens").index(which)
        axes.plot(mine, own, linestyle="", marker=".", markersize=3, color=FAINT, label="losses measured")
        usable = [other.optimum(C)[i] for other in others if other.alpha > 0 and other.beta > 0]
        if usable:
            axes.fill_between(C, *spread(np.stack(usable), fitted.beyond), color=COLORS[0], alpha=0.2, linewidth=0)
        axes.plot(C, law.optimum(C)[i], color=COLORS[0], linewidth=4, alpha=0.45, label="the law of these runs")
        for k, name in enumerate(dict.fromkeys(split.law for split in theirs)):
            values = [getattr(split, which) for split in theirs if split.law == name]
            dash = (*DASHES[1:], (0, (6, 1, 1, 1, 1, 1)))[k]
            axes.plot(C, values, color=(INK, *COLORS[1:])[k], linestyle=dash, linewidth=1.3, label=name)
        axes.set_ylabel(f"best {LABELS[which]}", color=INK)
        axes.set_xscale("log")
        axes.set_yscale("log")
    legend(panels[0])
    return figure


def lifetimes(fitted: Fit, budgets: Sequence[float], inference_tokens: float, unit: str) -> Any:
    """The loss against all operations, with the split that is best for training and the one that is best in all; and the best N
    as inference grows, for each budget."""
    figure, (loss, size) = new_figure("FLOPs of training and inference", f"loss ({unit})", panels=2)
    law = fitted.loss_laws()[0]
    C = np.geomspace(min(budgets) / 10, max(budgets), 60)
    found = [lifetime(law, c, inference_tokens, "") for c in C]
    losses = [one.loss for one in found]
    served = f"{power_of_ten(inference_tokens)} tokens of inference"
    loss.plot(C, losses, color=FAINT, linewidth=1.2, linestyle=":", label="training alone")
    for totals, label, color, dash in (
        ([one.total_of_best_training for one in found], f"best for training, {served}", COLORS[1], "--"),
        ([one.total for one in found], f"best overall, {served}", COLORS[0], "-"),
    ):
        loss.plot(totals, losses, color=color, linestyle=dash, linewidth=1.6, label=label)
    tokens = inference_tokens * np.geomspace(1e-3, 1e3, 60)
    for i, budget in enumerate(budgets):
        N = [lifetime(law, budget, s, "").parameters for s in tokens]
        label = f"loss {law.loss(*law.optimum(budget)):.3f}"
        size.plot(tokens, N, color=COLORS[i % len(COLORS)], linestyle=DASHES[i % len(DASHES)], linewidth=1.6, label=label)
    size.axvline(inference_tokens, color=FAINT, linewidth=1)
    size.set_xlabel("tokens of inference S", color=INK)
    size.set_ylabel("best parameters N", color=INK)
    logarithmic(loss)
    size.set_xscale("log")
    size.set_yscale("log")
    legend(loss, loc="lower left")
    legend(size)
    return figure


def extrapolation(found: Choice, runs: Runs, variables: Sequence[str]) -> Any:
    """Each law's predictions of the held-out losses, and their errors. A law in one variable is drawn with the losses that it
    was fitted to."""
    held_out, alone = found.without.held_out, len(variables) == 1
    x = variables[0] if alone else "tokens" if len(np.unique(held_out.tokens)) > 1 else "parameters"
    figure, (losses, errors) = new_figure(LABELS[x], f"loss ({runs.unit})", panels=2)
    at = held_out.column(x)
    order = np.argsort(at, kind="stable")
    if alone:
        losses.plot(runs.column(x), runs.loss, linestyle="", marker="o", markersize=4, color=INK, label="fitted")
    losses.plot(at, held_out.loss, linestyle="", marker="o", markersize=7, color=INK, markerfacecolor="w", label="held out")
    errors.axhline(0, color=FAINT, linewidth=1)
    grid = np.geomspace(runs.column(x).min(), runs.column(x).max(), 80)
    for i, (name, one) in enumerate(found.laws.items()):
        style = {"color": COLORS[i], "linestyle": DASHES[i + 1], "linewidth": 1.3}
        marked = {"marker": MARKERS[i + 1], "markersize": 5} | style
        if alone:
            losses.plot(grid, one.fitted.loss(grid), label=f"law, {name}", **style)
        else:
            losses.plot(at[order], one.predicted[order], label=f"predicted, {name}", **marked)
        errors.plot(at[order], 100 * one.errors[order], label=f"{name}: rms {100 * one.rms:.2f} %", **marked)
    errors.set_ylabel("predicted − measured (% of the loss)", color=INK)
    logarithmic(losses)
    logarithmic(errors, y=False)
    for axes in (losses, errors):
        legend(axes)
    return figure


def factors(rows: Sequence[Mapping[str, Any]], share: float) -> Any:
    """The factor of compute that each law asks for, on one logarithmic axis. share: of the reducible loss, which it leaves"""
    figure, axes = new_figure(f"how many times the compute leaves {share:g} of the reducible loss", "")
    for i, row in enumerate(reversed(rows)):
        own = row["law"] == "these runs"
        style = {"marker": "D" if own else "o", "markersize": 7, "color": COLORS[1] if own else INK, "linestyle": ""}
        reach = [[row["compute"] - row["low"]], [row["high"] - row["compute"]]] if row.get("low") is not None else None
        axes.errorbar([row["compute"]], [i], xerr=None if reach is None else np.maximum(reach, 0), capsize=4, **style)
        axes.annotate(f"{row['compute']:.3g}", (row["compute"], i), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["law"] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xscale("log")
    return figure
