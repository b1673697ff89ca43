"""Do abilities emerge? Two tasks at eight sizes: the loss of every answer, and whether all of an item's answers are right.

Exact match of n answers is about p^n: it stays near nothing while p rises smoothly, and then rises at once (Schaeffer 2023,
arXiv:2304.15004). Where the loss itself jumps, something else happened. So both are taken from the same models, and the loss is
asked whether a straight line in ln N or a step describes it better.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.lab import inference, passk, tasks, yields
from refllm.lab.battery import battery, persistent_share_exact
from refllm.lab.experiment import Report, Result
from refllm.lab.pool import each
from refllm.lab.task_models import Recipe, outcomes, train

NAME = "emergence"
ATTEMPTS = (1, 4, 16, 64, 256)
DRAWN = (1, 4, 16, 64)  # attempts that are drawn, for majorities
SUMMARY = {"sizes": ("task", "parameters", "nats_per_answer", "accuracy", "exact_match", "product", "causes")}


@dataclass(frozen=True)
class Settings:
    """The sizes and how long they learn. The defaults take three minutes on two cores.

    facts and sums: updates of the models that learn 2,304 facts, and to add numbers of so many digits
    """

    widths: tuple[int, ...] = (6, 8, 10, 12, 16, 20, 24, 32)
    facts: int = 1500
    facts_batch: int = 64
    sums: int = 800
    sums_batch: int = 128
    digits: int = 6
    items: int = 2000
    seed: int = 0
    executor: str = "processes"


QUICK = Settings(widths=(6, 8, 12, 16), facts=800, sums=400, items=1000)


class Job(NamedTuple):
    """One model on one task."""

    task: str
    width: int
    settings: Settings
    folder: str


def task_of(name: str, settings: Settings) -> tasks.Task:
    """The task by name."""
    return tasks.facts() if name == "facts" else tasks.addition(settings.digits)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train every size on both tasks and judge it."""
    s = settings
    jobs = [(f"{task}-d{d}", Job(task, d, s, str(folder))) for d in reversed(s.widths) for task in ("facts", "addition")]
    rows, curves, bought = [], [], []
    for name, found in each(learned, jobs, workers, folder / "models", s.executor):
        row = found["row"]
        report(f"{name}: {row['nats_per_answer']:.3f} nats an answer, all right in {100 * row['exact_match']:.1f} % of the items")
        rows.append(row)
        curves += found["curve"]
        bought += found["inference"]
    for entries in (rows, curves, bought):
        entries.sort(key=lambda row: (row["task"], row["parameters"]))
    shapes = {}
    for task in ("addition", "facts"):
        mine = [row for row in rows if row["task"] == task]
        N = [row["parameters"] for row in mine]
        for metric in ("nats_per_answer", "exact_match"):
            shapes[f"{task}: {metric}"] = smooth_or_sharp(N, [row[metric] for row in mine])
    return {"tables": {"sizes": rows, "yields": curves, "inference": bought}, "numbers": {"shapes": shapes}}


def learned(job: Job) -> Result:
    """Train one model, keep its outcomes beside the results, and judge them."""
    s, task = job.settings, task_of(job.task, job.settings)
    steps, batch = (s.facts, s.facts_batch) if job.task == "facts" else (s.sums, s.sums_batch)
    trained = train(task, Recipe(job.width, steps=steps, batch=batch, seed=s.seed))
    found = outcomes(task, trained, s.items)
    place = Path(job.folder) / "outcomes"
    place.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(place / f"{job.task}-d{job.width}.npz", **found._asdict())
    about = {
        "task": job.task,
        "width": job.width,
        "parameters": trained.parameters.total,
        "training_flops": trained.training_flops,
    }
    row = about | {"flops_per_token": trained.flops_per_token, "items": s.items} | judged(found)
    several = inference.samples(task, trained, min(300, s.items), max(DRAWN), s.seed)
    bought = inference.rows(several, trained, task.length, DRAWN)
    return {
        "row": row,
        "curve": [about | entry for entry in curve_rows(found)],
        "inference": [about | entry for entry in bought],
    }


def judged(found: tasks.Outcomes) -> dict[str, Any]:
    """What the yield, the battery and more attempts say of outcomes."""
    curve = yields.curve(found.right, permutations=200)
    tests = battery(found.attempts(16), found.features, permutations=50)
    greedy_wrong = float((1 - found.probability).sum())
    p = found.item_probability()
    return {
        "nats_per_answer": float(-np.log(np.maximum(found.probability, 1e-300)).mean()),
        "accuracy": float(found.right.mean()),
        "exact_match": float(curve.measured[-1]),
        "power": float(curve.power[-1]),
        "product": float(curve.product[-1]),
        "product_p": curve.p_value,
        "sampled_exact_match": float(p.mean()),
        "causes": tests.causes,
        "noise": tests.noise,
        "hard": tests.hard,
        "missing": tests.missing,
        "persistent_share": persistent_share_exact(found.probability),
        "cured_by_greedy": float(((1 - found.probability) * found.right).sum() / greedy_wrong) if greedy_wrong else 0.0,
        **{f"pass_at_{k}": float(v) for k, v in zip(ATTEMPTS, passk.exact(p, ATTEMPTS), strict=True)},
        **{f"pass_at_{k}_if_equal": float(v) for k, v in zip(ATTEMPTS, passk.homogeneous(p, ATTEMPTS), strict=True)},
    }


def curve_rows(found: tasks.Outcomes) -> list[dict[str, Any]]:
    """The yield at every length."""
    curve = yields.curve(found.right, permutations=200)
    columns = {"measured": curve.measured, "p^n": curve.power, "product": curve.product, "items differ": curve.spread}
    columns |= {"low": curve.low, "high": curve.high}
    return [{"length": n + 1} | {name: float(column[n]) for name, column in columns.items()} for n in range(len(curve.measured))]


def smooth_or_sharp(N: Any, y: Any) -> dict[str, Any]:
    """Whether a straight line in ln N or one step between two levels leaves less of y (n,) unexplained: their squared errors."""
    x, y = np.log(np.asarray(N, dtype=float)), np.asarray(y, dtype=float)
    line = float(np.sum((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2))
    step = min(float(y[:i].var() * i + y[i:].var() * (len(y) - i)) for i in range(1, len(y)))
    return {"line": line, "step": step, "shape": "smooth" if line < step else "sharp"}


def figures(result: Result) -> dict[str, Any]:
    """Loss, accuracy and exact match against N for each task; yields against length; what attempts buy against FLOPs."""
    from refllm.lab import plots

    found = {}
    for task in ("facts", "addition"):
        rows = [row for row in result["tables"]["sizes"] if row["task"] == task]
        N = [row["parameters"] for row in rows]
        figure, (loss, share) = plots.new_figure(plots.LABELS["parameters"], "nats per answer", panels=2)
        loss.plot(N, [row["nats_per_answer"] for row in rows], marker="o", color=plots.COLORS[0])
        for name, label, color in (
            ("accuracy", "each answer", 0),
            ("exact_match", "all answers of an item", 1),
            ("product", "product by position", 2),
        ):
            style = {"linestyle": "--"} if name == "product" else {"marker": "o"}
            share.plot(N, [row[name] for row in rows], color=plots.COLORS[color], label=label, **style)
        share.set_ylabel("share right", color=plots.INK)
        plots.logarithmic(loss, y=False)
        plots.logarithmic(share, y=False)
        plots.legend(share)
        found[task] = figure
        curves = [row for row in result["tables"]["yields"] if row["task"] == task]
        by_size = {n: [row for row in curves if row["parameters"] == n] for n in sorted({row["parameters"] for row in curves})}
        found[f"{task}_yield"] = plots.yield_curves([(f"N = {n:,}", mine) for n, mine in by_size.items()])
        found[f"{task}_inference"] = bought([row for row in result["tables"]["inference"] if row["task"] == task])
    return found


def bought(rows: list[dict[str, Any]]) -> Any:
    """What attempts buy against all FLOPs: one right of k, and the majority of k; a line for each size."""
    from refllm.lab import plots

    label = f"FLOPs of training and {inference.QUESTIONS:,} questions"
    figure, panels = plots.new_figure(label, "share of questions right", panels=2)
    sizes = sorted({row["parameters"] for row in rows})
    for axes, column, title in zip(panels, ("pass", "majority"), ("one of k attempts", "majority of k attempts"), strict=True):
        for i, size in enumerate(sizes):
            mine = [row for row in rows if row["parameters"] == size]
            x, y = [row["total_flops"] for row in mine], [row[column] for row in mine]
            axes.plot(x, y, marker="o", markersize=3.5, color=plots.COLORS[i % len(plots.COLORS)], label=f"N = {size:,}")
        axes.set_title(title, fontsize=10, color=plots.INK)
        axes.set_ylim(-0.03, 1.03)
        plots.logarithmic(axes, y=False)
    plots.legend(panels[0])
    return figure
