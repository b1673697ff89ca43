"""Do counting and long chains stay hard? One answer after a row of symbols: how many, or their sum modulo 10, all in the head.

A transformer of fixed depth has the same few steps for any length, and counts by averages that it must tell apart ever finer
(Hahn 2020, arXiv:1906.06755; Dziri 2023, arXiv:2305.18654). So accuracy is taken against length, a model for each length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.evaluation.metrics import Share, wilson
from refllm.lab import tasks
from refllm.lab.experiment import Report, Result
from refllm.lab.pool import each
from refllm.lab.task_models import Recipe, outcomes, train
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding, within

NAME = "chains"
SUMMARY = {"accuracy": ("task", "length", "parameters", "accuracy", "low", "high", "chance")}
TASKS = ("counting", "running sum")
HARD = 0.9  # accuracy below which a length counts as hard


@dataclass(frozen=True)
class Settings:
    """The sizes, the lengths, and how long the models learn. The defaults take a minute and a half on two cores.

    counts: lengths of rows to count in    sums: how many digits to sum    steps: updates of `batch` rows each
    """

    widths: tuple[int, ...] = (12, 24, 48)
    counts: tuple[int, ...] = (4, 16, 64)
    sums: tuple[int, ...] = (1, 2, 3, 4, 8)
    steps: int = 600
    batch: int = 64
    items: int = 1000
    seed: int = 0
    executor: str = "processes"


QUICK = Settings(widths=(12, 24), counts=(4, 32), sums=(1, 2, 4), steps=300)


class Job(NamedTuple):
    """One model."""

    task: str
    length: int
    width: int
    settings: Settings


def task_of(name: str, length: int) -> tasks.Task:
    """The task by name."""
    return tasks.counting(length) if name == "counting" else tasks.running_sum(length, written=False)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train a model for every task, length and width."""
    s = settings
    lengths = [(TASKS[0], n) for n in sorted(s.counts, reverse=True)] + [(TASKS[1], n) for n in sorted(s.sums, reverse=True)]
    order = [(t, n, d) for d in sorted(s.widths, reverse=True) for t, n in lengths]
    jobs = [(f"{t.replace(' ', '-')}-{n}-d{d}", Job(t, n, d, s)) for t, n, d in order]
    rows = []
    for name, row in each(learned, jobs, workers, folder / "models", s.executor):
        report(f"{name}: {100 * row['accuracy']:.1f} % right")
        rows.append(row)
    rows.sort(key=lambda row: (row["task"], row["parameters"], row["length"]))
    return {"tables": {"accuracy": rows}, "numbers": {}}


def learned(job: Job) -> dict[str, Any]:
    """Train one model and ask it."""
    s, task = job.settings, task_of(job.task, job.length)
    trained = train(task, Recipe(job.width, steps=s.steps, batch=s.batch, seed=s.seed))
    found = outcomes(task, trained, s.items)
    share = wilson(int(found.right.sum()), found.right.size)
    answers = np.unique(task.items(s.items).tokens[:, -1], return_counts=True)[1]
    return {
        "task": job.task,
        "length": job.length,
        "width": job.width,
        "parameters": trained.parameters.total,
        "training_flops": trained.training_flops,
        "accuracy": share.value,
        "low": share.low,
        "high": share.high,
        "items": share.n,
        "chance": float(answers.max() / answers.sum()),  # of whoever always gives the commonest answer
        "nats_per_answer": float(-np.log(np.maximum(found.probability, 1e-300)).mean()),
    }


def figures(result: Result) -> dict[str, Any]:
    """Accuracy against length, a line for each size, chance dotted."""
    from refllm.lab import plots

    figure, panels = plots.new_figure("length (symbols)", "share right", panels=len(TASKS))
    for axes, task in zip(panels, TASKS, strict=True):
        rows = [row for row in result["tables"]["accuracy"] if row["task"] == task]
        for i, width in enumerate(sorted({row["width"] for row in rows})):
            mine, color = [row for row in rows if row["width"] == width], plots.COLORS[i % len(plots.COLORS)]
            x = [row["length"] for row in mine]
            axes.fill_between(x, [r["low"] for r in mine], [r["high"] for r in mine], color=color, alpha=0.15, linewidth=0)
            label = f"width {width}, N = {mine[0]['parameters']:,}"
            axes.plot(x, [row["accuracy"] for row in mine], marker="o", color=color, label=label)
        axes.plot(x, [row["chance"] for row in mine], linestyle=":", color=plots.INK, label="commonest answer")
        axes.set_title(task, fontsize=10, color=plots.INK)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
    plots.legend(panels[0])
    return {"accuracy_and_length": figure}


def judge_chains(results: Mapping[str, Any]) -> Finding:
    """Claim 13, of the widest model at the greatest length, by Wilson's interval, and whether it does better at the least one."""
    rows, verdicts, said = results[NAME]["tables"]["accuracy"], [], []
    worst: Share | None = None
    for task in TASKS:
        widest = max(row["width"] for row in rows)
        mine = sorted((r for r in rows if r["task"] == task and r["width"] == widest), key=lambda row: row["length"])
        short, long = mine[0], mine[-1]
        verdict = within(long["accuracy"], long["low"], long["high"], 0, HARD)
        verdicts.append(UNDECIDABLE if verdict == HOLDS and long["high"] >= short["low"] else verdict)
        said.append(f"{task} {short['accuracy']:.2f} at length {short['length']}, {long['accuracy']:.2f} at {long['length']}")
        if worst is None or long["accuracy"] > worst.value:
            worst = Share(long["accuracy"], long["low"], long["high"], long["items"])
    assert worst is not None
    verdict = FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNDECIDABLE
    why = f"With N ≈ {mine[-1]['parameters']:,}: {'; '.join(said)}; the commonest answer is right in {long['chance']:.2f}."
    return Finding(worst.value, worst.low, worst.high, "right at the greatest length", verdict, why)


CLAIMS = (
    Claim(
        13,
        "Precise counting and long chains stay hard.",
        "accuracy of the largest model at the greatest length, the better of two tasks; holds if below .9 and that at the least",
        "",
        (NAME,),
        judge_chains,
    ),
)
