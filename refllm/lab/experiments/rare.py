"""Which sizes recall rare facts? Models train on facts that follow Zipf's law, and are then asked for all facts equally often:
recall against the frequency of a fact in training, and against N.

A model that learns surface patterns knows the few facts that make up most of its training data and guesses the rest. With Zipf's
exponent s the r-th of K facts has a share r^−s / Σ k^−s of all (Hutter 2021, arXiv:2102.04074, section 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.evaluation.metrics import wilson
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import tasks
from refllm.lab.materials.task_models import Recipe, outcomes, train
from refllm.lab.reliability.trend import trend
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding

NAME = "rare"
SUMMARY = {"sizes": ("width", "parameters", "recall_in_text", "recall_of_all", "rarest_quarter", "half_known_at")}
PER_SEQUENCE = 8
LEAST = 30  # answers in a class of frequencies
GUESS = 1 / 16  # chance level: a fact has one of 16 values


@dataclass(frozen=True)
class Settings:
    """The sizes and their training. The defaults take half a minute on two cores.

    widths: of the models, d_model    zipf: the exponent of the facts' frequencies
    steps: updates, on `batch` sequences of eight facts each    items: such sequences for evaluation
    """

    widths: tuple[int, ...] = (6, 8, 12, 16, 24, 32)
    zipf: float = 1.2
    steps: int = 1500
    batch: int = 64
    items: int = 3000
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, widths=2, seed=0)
        if len(self.widths) < 2:
            raise ValueError(f"widths={self.widths} show no effect of scale; give two at least.")
        if self.zipf <= 0:
            raise ValueError(f"zipf={self.zipf} must be above 0, or no fact is rarer than another.")


QUICK = Settings(widths=(6, 8, 12, 16), steps=600, items=1500)


class Job(NamedTuple):
    """One model."""

    width: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train every size on rare and common facts, and measure its recall of each."""
    s = settings
    jobs = [(f"d{d}", Job(d, s)) for d in sorted(s.widths, reverse=True)]
    rows, sizes = [], []
    for name, found in each(learned, jobs, workers, folder / "models", s.executor):
        sizes.append(found["size"])
        rows += found["rows"]
        in_text, of_all = (100 * found["size"][key] for key in ("recall_in_text", "recall_of_all"))
        report(f"{name}: recall {in_text:.1f} % at the frequencies of training, {of_all:.1f} % of all facts equally")
    sizes.sort(key=lambda row: row["parameters"])
    rows.sort(key=lambda row: (row["parameters"], row["seen"]))
    return {"tables": {"sizes": sizes, "recall": rows}, "numbers": {"guess": GUESS}}


def times_seen(settings: Settings, facts: int) -> np.ndarray:
    """The expected number of times that each fact occurs in training: (facts,) float64."""
    weights = np.arange(1, facts + 1, dtype=float) ** -settings.zipf
    return settings.steps * settings.batch * PER_SEQUENCE * weights / weights.sum()


def learned(job: Job) -> dict[str, Any]:
    """Train one model on facts that follow Zipf's law, and measure recall: at these frequencies, and of all facts equally."""
    s = job.settings
    zipf, alike = tasks.facts(zipf=s.zipf, seed=s.seed), tasks.facts(zipf=0.0, seed=s.seed)
    trained = train(zipf, Recipe(job.width, steps=s.steps, batch=s.batch, seed=s.seed))
    asked, as_they_come = outcomes(alike, trained, s.items), outcomes(zipf, trained, s.items)
    facts = (zipf.vocab_size - 16) ** 2 // 4
    seen = times_seen(s, facts)
    about = {"width": job.width, "parameters": trained.parameters.total, "training_flops": trained.training_flops}
    rare = asked.features >= facts * 3 // 4
    share = wilson(int(asked.right[rare].sum()), int(rare.sum()))
    rows = by_frequency(asked.right.ravel(), seen[asked.features].ravel())
    size = {
        "recall_in_text": float(as_they_come.right.mean()),
        "recall_of_all": float(asked.right.mean()),
        "rarest_quarter": share.value,
        "rarest_low": share.low,
        "rarest_high": share.high,
        "rarest_seen": float(seen[facts * 3 // 4 :].mean()),
        "half_known_at": half_known(rows),
    }
    return {"size": about | size, "rows": [about | row for row in rows]}


def by_frequency(right: np.ndarray, seen: np.ndarray, least: int = LEAST) -> list[dict[str, Any]]:
    """Recall by the frequency of the fact in training: answers (n,) bool, in classes that begin at powers of two of `seen` (n,).

    The last class has no upper end, and begins low enough that `least` answers are in it, if any class has so many.
    """
    classes = np.floor(np.log2(seen)).astype(int)
    names, asked = np.unique(classes, return_counts=True)
    classes = np.minimum(classes, names[asked >= min(least, asked.max())].max())
    rows = []
    for c in np.unique(classes):
        mine = right[classes == c]
        share = wilson(int(mine.sum()), len(mine))
        middle = float(np.exp(np.log(seen[classes == c]).mean()))
        rows.append({"seen": middle, "recall": share.value, "low": share.low, "high": share.high, "asked": share.n})
    return rows


def half_known(rows: list[dict[str, Any]]) -> float | None:
    """How often a fact must occur in training to be known with probability 1/2, guesses apart: where recall last rises through
    the middle between chance level and 1, interpolated over the ln of the frequency. None where it does not.
    """
    middle = (1 + GUESS) / 2
    for one, following in reversed(list(zip(rows, rows[1:], strict=False))):
        if one["recall"] < middle <= following["recall"]:
            part = (middle - one["recall"]) / (following["recall"] - one["recall"])
            return float(np.exp(np.log(one["seen"]) + part * np.log(following["seen"] / one["seen"])))
    return None


def figures(result: Result) -> dict[str, Any]:
    """Recall against a fact's frequency, a line for each size; recalls of all, weighted or not, and of the rarest against N."""
    from refllm.lab import plots

    figure, (left, right) = plots.new_figure("occurrences of a fact in training", "recall", panels=2)
    for i, size in enumerate(result["tables"]["sizes"]):
        rows, color = [r for r in result["tables"]["recall"] if r["width"] == size["width"]], plots.COLORS[i % len(plots.COLORS)]
        x = [row["seen"] for row in rows]
        left.fill_between(x, [r["low"] for r in rows], [r["high"] for r in rows], color=color, alpha=0.1, linewidth=0)
        marker, label = plots.MARKERS[i % len(plots.MARKERS)], f"N = {size['parameters']:,}"
        left.plot(x, [r["recall"] for r in rows], marker=marker, markersize=4, color=color, label=label)
    left.axhline(result["numbers"]["guess"], linestyle=":", color=plots.INK, label="chance level")
    N = [size["parameters"] for size in result["tables"]["sizes"]]
    lines = (("recall_in_text", "weighted as in training"), ("recall_of_all", "all facts"), ("rarest_quarter", "rarest quarter"))
    for i, (column, label) in enumerate(lines):
        shares = [size[column] for size in result["tables"]["sizes"]]
        right.plot(N, shares, marker=plots.MARKERS[i], color=plots.COLORS[i], label=label)
    right.set_xlabel(plots.LABELS["parameters"], color=plots.INK)
    for axes in (left, right):
        axes.set_ylim(-0.03, 1.03)
        plots.logarithmic(axes, y=False)
        plots.legend(axes, loc="center right" if axes is left else "center left")
    return {"recall": figure}


def judge_rare(results: Mapping[str, Any]) -> Finding:
    """Claim 10, of the rarest quarter of the facts. It holds where their recall rises with N, by a rank correlation, and the 95 %
    interval of the largest model lies above that of the smallest. It fails where it lies below, or recall falls with N.
    Otherwise it is undecidable.
    """
    sizes = results[NAME]["tables"]["sizes"]
    small, large = sizes[0], sizes[-1]
    found = trend([s["parameters"] for s in sizes], [s["rarest_quarter"] for s in sizes]).verdict(rising=True)
    apart = large["rarest_low"] > small["rarest_high"]
    fails = found == FAILS or large["rarest_high"] < small["rarest_low"]
    verdict = FAILS if fails else HOLDS if found == HOLDS and apart else UNDECIDABLE
    why = (
        f"Recall of facts seen about {large['rarest_seen']:.0f} times: {small['rarest_quarter']:.2f} at "
        f"N = {small['parameters']:,}, {large['rarest_quarter']:.2f} at {large['parameters']:,} (chance level {GUESS:.2f}); "
        f"at the frequencies of training {small['recall_in_text']:.2f} and {large['recall_in_text']:.2f}."
    )
    interval = large["rarest_quarter"], large["rarest_low"], large["rarest_high"]
    return Finding(*interval, "recall of rare facts, largest N", verdict, why)


CLAIMS = (
    Claim(
        10,
        "Small models learn surface patterns, larger ones the pattern of recall: rare facts too.",
        "recall of the rarest quarter of Zipf's facts; holds if it rises with N (Kendall, 5 %), to above the smallest's interval",
        "what N facts of memory leave out ~ N^−(s−1): Michaud 2023, arXiv:2303.13506",
        (NAME,),
        judge_rare,
    ),
)
