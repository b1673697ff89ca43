"""Do counting and long chains stay hard? One answer after a row of symbols, without intermediate steps: how many, or
their sum modulo 10.

A transformer of fixed depth has the same few steps for any length, and counts by averages whose differences shrink with it
(Hahn 2020, arXiv:1906.06755; Dziri 2023, arXiv:2305.18654). So accuracy is measured against length, with models of several sizes
and seeds trained on each length for equally many updates. A length counts as hard where accuracy is nearer to chance level, that
of always giving the most common answer, than to 1.
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
from refllm.lab.running.pool import each
from refllm.lab.seeds import over_seeds
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import HOLDS, UNDECIDABLE, Claim, Finding, together, within

NAME = "chains"
SUMMARY = {"lengths": ("task", "parameters", "length", "accuracy", "least", "greatest", "chance")}
TASKS = ("counting", "running sum")


@dataclass(frozen=True)
class Settings:
    """The sizes, the lengths and the training. The defaults take four to five minutes on two cores.

    widths: of the models, d_model    seeds: models of each size and length
    counts, sums: lengths of the rows to count in and of those to sum, up to where accuracy has fallen
    steps: updates, on `batch` rows each    items: rows for evaluation
    """

    widths: tuple[int, ...] = (8, 16, 32)
    counts: tuple[int, ...] = (4, 16, 64, 256)
    sums: tuple[int, ...] = (1, 2, 3, 4, 8)
    seeds: int = 3
    steps: int = 600
    batch: int = 32
    items: int = 1000
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, widths=2)
        for name, lengths in (("counts", self.counts), ("sums", self.sums)):
            if len(lengths) < 2:
                raise ValueError(f"{name}={lengths} cannot show a fall with length; give two lengths or more.")


QUICK = Settings(widths=(8, 16), counts=(4, 64), sums=(1, 4), seeds=1)


class Job(NamedTuple):
    """One model."""

    task: str
    length: int
    width: int
    seed: int
    settings: Settings


def task_of(job: Job) -> tasks.Task:
    """The task by name; numbers are the same tokens at all lengths."""
    if job.task == "counting":
        return tasks.counting(job.length, most=max(job.settings.counts))
    return tasks.running_sum(job.length, written=False)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train models for every task, length and width."""
    s = settings
    lengths = [(TASKS[0], n) for n in sorted(s.counts, reverse=True)] + [(TASKS[1], n) for n in sorted(s.sums, reverse=True)]
    order = [(t, n, d, seed) for d in sorted(s.widths, reverse=True) for t, n in lengths for seed in range(s.seeds)]
    jobs = [(f"{t.replace(' ', '-')}-{n}-d{d}-seed{seed}", Job(t, n, d, seed, s)) for t, n, d, seed in order]
    rows = []
    for name, row in each(learned, jobs, workers, folder / "models", s.executor):
        report(f"{name}: {100 * row['accuracy']:.1f} % right")
        rows.append(row)
    rows.sort(key=lambda row: (row["task"], row["width"], row["length"], row["seed"]))
    means = over_seeds(rows, ("task", "width", "parameters", "length", "chance"), "accuracy")
    return {"tables": {"lengths": means, "accuracy": rows}, "numbers": {}}


def learned(job: Job) -> dict[str, Any]:
    """Train one model and measure its accuracy."""
    s, task = job.settings, task_of(job)
    trained = train(task, Recipe(job.width, steps=s.steps, batch=s.batch, seed=job.seed))
    found = outcomes(task, trained, s.items)
    share = wilson(int(found.right.sum()), found.right.size)
    answers = np.unique(task.items(s.items).tokens[:, -1], return_counts=True)[1]
    return {
        "task": job.task,
        "length": job.length,
        "width": job.width,
        "seed": job.seed,
        "parameters": trained.parameters.total,
        "training_flops": trained.training_flops,
        "accuracy": share.value,
        "low": share.low,
        "high": share.high,
        "items": share.n,
        "chance": float(answers.max() / answers.sum()),  # of always giving the most common answer
        "nats_per_answer": float(-np.log(np.maximum(found.probability, 1e-300)).mean()),
    }


def figures(result: Result) -> dict[str, Any]:
    """Accuracy against length, a line for each size with the range of its seeds; chance level and the middle dotted."""
    from refllm.lab import plots

    figure, panels = plots.new_figure("length (symbols)", "accuracy", panels=len(TASKS))
    for axes, task in zip(panels, TASKS, strict=True):
        rows = [row for row in result["tables"]["lengths"] if row["task"] == task]
        for i, width in enumerate(sorted({row["width"] for row in rows})):
            mine, color = [row for row in rows if row["width"] == width], plots.COLORS[i % len(plots.COLORS)]
            x, y = [row["length"] for row in mine], [row["accuracy"] for row in mine]
            reach = [[row["accuracy"] - row["least"] for row in mine], [row["greatest"] - row["accuracy"] for row in mine]]
            marker, label = plots.MARKERS[i % len(plots.MARKERS)], f"width {width}, N = {mine[0]['parameters']:,}"
            axes.errorbar(x, y, reach, marker=marker, capsize=4, color=color, label=label)
        axes.plot(x, [middle(row) for row in mine], linestyle="-.", linewidth=1, color=plots.INK, label="hard below this")
        axes.plot(x, [row["chance"] for row in mine], linestyle=":", color=plots.INK, label="chance level")
        axes.set_title(task, fontsize=10, color=plots.INK)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]), frameon=False, fontsize=9, labelcolor=plots.INK)
    return {"accuracy_and_length": figure}


def middle(row: Mapping[str, Any]) -> float:
    """The accuracy half-way between chance level and 1."""
    return (1 + row["chance"]) / 2


def verdict_of(short: Mapping[str, Any], long: Mapping[str, Any]) -> str:
    """Whether length is hard for a model, by the rows of its shortest and its longest inputs: HOLDS, FAILS or UNDECIDABLE."""
    hard = within(long["accuracy"], long["low"], long["high"], 0, middle(long))
    return UNDECIDABLE if hard == HOLDS and short["low"] <= middle(short) else hard


def judge_chains(results: Mapping[str, Any]) -> Finding:
    """Claim 13, of the widest models, by Wilson's 95 % interval of the accuracy.

    A task stays hard where, for every seed, the interval lies below the middle between chance level and 1 at the greatest length,
    and above it at the least: so it is the length that is hard. The claim holds where both tasks stay hard, and fails where, for
    every seed of a task, it lies above the middle at the greatest length. Otherwise it is undecidable.
    """
    rows, verdicts, said, ends = results[NAME]["tables"]["accuracy"], [], [], []
    widest = [row for row in rows if row["width"] == max(row["width"] for row in rows)]
    for task in TASKS:
        mine = sorted((row for row in widest if row["task"] == task), key=lambda row: (row["length"], row["seed"]))
        short, long = ([row for row in mine if row["length"] == mine[i]["length"]] for i in (0, -1))
        found = {verdict_of(*pair) for pair in zip(short, long, strict=True)}
        verdicts.append(found.pop() if len(found) == 1 else UNDECIDABLE)
        least, most = (float(np.mean([row["accuracy"] for row in part])) for part in (short, long))
        said.append(
            f"{task} {least:.2f} at {mine[0]['length']}, {most:.2f} at {mine[-1]['length']} (hard below {middle(long[0]):.2f})"
        )
        ends.append((most, min(row["low"] for row in long), max(row["high"] for row in long)))
    why = f"Accuracy at N ≈ {widest[0]['parameters']:,} by length: {'; '.join(said)}."
    return Finding(*max(ends), "accuracy at the greatest length", together(verdicts), why)


CLAIMS = (
    Claim(
        13,
        "Precise counting and long chains stay hard.",
        "accuracy of the largest models; holds if nearer chance than 1 at the greatest length, not at the least, in both tasks",
        "",
        (NAME,),
        judge_chains,
    ),
)
