"""The curve of a run: its loss on the training text and on the text held out, over the steps, as loss.png."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refllm.lab.plots import COLORS, frame

INSTALL = "pip install 'refllm[plots]'"
BLUE, RED, GREEN = COLORS[:3]


class Level(NamedTuple):
    """How well something predicts the held-out text."""

    name: str
    loss: float  # nats per token
    bits_per_byte: float


def draw(metrics: Path, picture: Path, level: Level | None = None) -> bool:
    """Draw metrics.jsonl to a PNG. Returns False, and draws nothing, where matplotlib is not installed.

    level: something to compare with, drawn as a dashed line
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return True
    figure = Figure(figsize=(8, 4.8), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    _curves(axes, lines)
    if level is not None:
        _level(axes, level)
    _frame(axes, lines)
    figure.savefig(picture)
    return True


def _curves(axes: Any, lines: Sequence[dict[str, Any]]) -> None:
    steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
    smooth = running_mean(losses)
    axes.plot(steps, losses, color=BLUE, alpha=0.18, linewidth=0.8)
    axes.plot(steps, smooth, color=BLUE, linewidth=1.8)
    ends = [(smooth[-1], f"training text\n{smooth[-1]:.3f} nats/token", BLUE)]
    judged = [line for line in lines if "held_out_loss" in line]
    if judged:
        at, held_out = [line["step"] for line in judged], [line["held_out_loss"] for line in judged]
        axes.plot(at, held_out, color=RED, linewidth=1.8, marker="o", markersize=3.5, clip_on=False)
        best = min(judged, key=lambda line: line["held_out_loss"])
        axes.plot([best["step"]], [best["held_out_loss"]], color=RED, marker="o", markersize=7, clip_on=False)
        told = f"held-out text\nbest {best['held_out_loss']:.3f} nats/token\n= {best['bits_per_byte']:.3f} bits/byte"
        ends.append((held_out[-1], told, RED))
    _label_ends(axes, ends)


def _label_ends(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each curve at its end, right of the frame; labels that would touch are moved apart."""
    low, high = sorted(ends)[0], sorted(ends)[-1]
    touch = len(ends) > 1 and high[0] < low[0] * 1.2
    for end in ends:
        align = "center" if not touch else "bottom" if end is high else "top"
        style = {"color": end[2], "fontsize": 9, "linespacing": 1.4, "va": align, "ha": "left"}
        axes.annotate(end[1], (1, end[0]), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points", **style)


def _level(axes: Any, level: Level) -> None:
    axes.axhline(level.loss, color=GREEN, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        f"{level.name}: {level.loss:.3f} nats/token, {level.bits_per_byte:.3f} bits/byte",
        (0, level.loss),
        xycoords=("axes fraction", "data"),
        xytext=(8, 5),
        textcoords="offset points",
        color=GREEN,
        fontsize=9,
    )


def _frame(axes: Any, lines: Sequence[dict[str, Any]]) -> None:
    """Logarithmic axes where the steps span enough, ticks in plain numbers, no more ink than needed."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    steps = [line["step"] for line in lines]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if steps[-1] >= 100 * steps[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    frame(axes, "step (updates of the weights)", "loss (nats per token)")


def running_mean(values: Sequence[float]) -> list[float]:
    """Each value averaged with its neighbours: an eighth of its place to either side, where there are so many, 20 at most.

    So the steep beginning is hardly smoothed, and the noisy end well.
    """
    means = []
    for i in range(len(values)):
        near = values[i - min(20, i // 8) : i + 1 + min(20, i // 8)]
        means.append(sum(near) / len(near))
    return means
