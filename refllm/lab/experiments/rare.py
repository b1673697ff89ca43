"""Who remembers what is rare? Facts that come by Zipf's law, asked all alike: recall against how often each was learned, and N.

A model that learns surface patterns knows the few facts that make up most of its text and guesses at the rest. With Zipf's
exponent s the r-th of K facts comes with a share r^−s / Σ k^−s of all (Hutter 2021, arXiv:2102.04074, section 3).
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
LEAST = 30  # answers of a class
GUESS = 1 / 16  # facts have one of 16 values


@dataclass(frozen=True)
class Settings:
    """The sizes and how long they learn. The defaults take half a minute on two cores.

    zipf: the exponent of how often facts come    steps: updates of `batch` sequences of eight facts each
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
            raise ValueError(f"widths={self.widths} tell nothing of scale; ask for two at least.")
        if self.zipf <= 0:
            raise ValueError(f"zipf={self.zipf} must lie above 0, or no fact is rarer than another.")


QUICK = Settings(widths=(6, 8, 12, 16), steps=600, items=1500)


class Job(NamedTuple):
    """One model."""

    width: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train every size on rare and common facts, and ask for all of them alike."""
    s = settings
    jobs = [(f"d{d}", Job(d, s)) for d in sorted(s.widths, reverse=True)]
    rows, sizes = [], []
    for name, found in each(learned, jobs, workers, folder / "models", s.executor):
        sizes.append(found["size"])
        rows += found["rows"]
        in_text, of_all = (100 * found["size"][key] for key in ("recall_in_text", "recall_of_all"))
        report(f"{name}: {in_text:.1f} % right as they come, {of_all:.1f} % of all")
    sizes.sort(key=lambda row: row["parameters"])
    rows.sort(key=lambda row: (row["parameters"], row["seen"]))
    return {"tables": {"sizes": sizes, "recall": rows}, "numbers": {"guess": GUESS}}


def times_seen(settings: Settings, facts: int) -> np.ndarray:
    """How often each fact is expected to come in training: (facts,)."""
    weights = np.arange(1, facts + 1, dtype=float) ** -settings.zipf
    return settings.steps * settings.batch * PER_SEQUENCE * weights / weights.sum()


def learned(job: Job) -> dict[str, Any]:
    """Train one model on facts by Zipf's law, and ask for all facts alike."""
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
    """Recall of answers (n,) in classes of how often their facts came, each up to twice as often as the one before.

    The last is open: it begins so early that `least` answers fall into it, if so many do into any.
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
    """How often a fact must come for an even chance to be known, guesses aside: where recall last crosses the middle between
    a guess and 1, between classes by ln of how often. None where all or no classes lie above.
    """
    middle = (1 + GUESS) / 2
    for one, following in reversed(list(zip(rows, rows[1:], strict=False))):
        if one["recall"] < middle <= following["recall"]:
            part = (middle - one["recall"]) / (following["recall"] - one["recall"])
            return float(np.exp(np.log(one["seen"]) + part * np.log(following["seen"] / one["seen"])))
    return None


def figures(result: Result) -> dict[str, Any]:
    """Recall against how often a fact came, a line for each size; recall of all, as they come and of the rarest against N."""
    from refllm.lab import plots

    figure, (left, right) = plots.new_figure("times a fact came in training", "share recalled", panels=2)
    for i, size in enumerate(result["tables"]["sizes"]):
        rows, color = [r for r in result["tables"]["recall"] if r["width"] == size["width"]], plots.COLORS[i % len(plots.COLORS)]
        x = [row["seen"] for row in rows]
        left.fill_between(x, [r["low"] for r in rows], [r["high"] for r in rows], color=color, alpha=0.1, linewidth=0)
        marker, label = plots.MARKERS[i % len(plots.MARKERS)], f"N = {size['parameters']:,}"
        left.plot(x, [r["recall"] for r in rows], marker=marker, markersize=4, color=color, label=label)
    left.axhline(result["numbers"]["guess"], linestyle=":", color=plots.INK, label="a guess")
    N = [size["parameters"] for size in result["tables"]["sizes"]]
    lines = (("recall_in_text", "as they come"), ("recall_of_all", "all alike"), ("rarest_quarter", "the rarest quarter"))
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
    """Claim 10, of the quarter of facts that came least: it holds where their recall rises with N by a rank correlation and the
    largest model's interval lies above the smallest's; it fails where the largest's lies below, or where recall falls.
    """
    sizes = results[NAME]["tables"]["sizes"]
    small, large = sizes[0], sizes[-1]
    found = trend([s["parameters"] for s in sizes], [s["rarest_quarter"] for s in sizes]).verdict(rising=True)
    apart = large["rarest_low"] > small["rarest_high"]
    fails = found == FAILS or large["rarest_high"] < small["rarest_low"]
    verdict = FAILS if fails else HOLDS if found == HOLDS and apart else UNDECIDABLE
    why = (
        f"Facts that came some {large['rarest_seen']:.0f} times: {small['rarest_quarter']:.2f} at N = {small['parameters']:,}, "
        f"{large['rarest_quarter']:.2f} at {large['parameters']:,} (a guess: {GUESS:.2f}); "
        f"as they come {small['recall_in_text']:.2f} and {large['recall_in_text']:.2f}."
    )
    interval = large["rarest_quarter"], large["rarest_low"], large["rarest_high"]
    return Finding(*interval, "of rare facts, largest N", verdict, why)


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
