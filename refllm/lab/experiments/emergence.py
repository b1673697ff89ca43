"""Do abilities emerge? Two tasks, several sizes and seeds: the loss per answer, and whether all answers of an item are right.

Exact match of n answers is about p^n: it stays near 0 while p rises smoothly, and then rises sharply (Schaeffer 2023,
arXiv:2304.15004). Where the loss itself jumps, this is no artefact of the score. So both are measured on the same models, and
each is tested for being a straight line in ln N, or a step.

Whether a small model learns a task at all may depend on the seed (Zhao 2025, arXiv:2502.17356). So both shapes are those of means
over seeds, the expected loss and score at a size. As the mean of seeds that jump at different sizes is smooth, each seed is also
tested by itself.

There are enough items of facts that the standard error of exact match less the product of its positions is about 0.002.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.lab.experiment import Report, Result
from refllm.lab.experiments import inference
from refllm.lab.materials import tasks
from refllm.lab.materials.task_models import Recipe, outcomes, train
from refllm.lab.reliability import passk, reliability_plots, yields
from refllm.lab.reliability.battery import battery, persistent_share_exact
from refllm.lab.reliability.line_or_step import FEWEST, line_or_step
from refllm.lab.running.pool import each
from refllm.lab.seeds import over_seeds
from refllm.lab.settings import require_whole_numbers

NAME = "emergence"
ATTEMPTS = (1, 4, 16, 64, 256)
DRAWN = (1, 4, 16, 64)  # attempts that are sampled, for majorities
TASKS = ("addition", "facts")
SUMMARY = {"means": ("task", "parameters", "nats_per_answer", "exact_match", "least", "greatest")}
AVERAGED = ("nats_per_answer", "accuracy", "product", "sampled_exact_match", "error_rate", "noise", "hard", "missing")


@dataclass(frozen=True)
class Settings:
    """The sizes and their training. The defaults take three minutes on two cores.

    facts, sums: updates of the models that learn 2,304 facts, and of those that learn to add numbers of `digits` digits
    facts_batch, sums_batch: sequences in an update    fact_items, items: of eight facts, and sums, for evaluation
    seeds: models of each task and size, seeded with `seed`, `seed` + 1 …
    """

    widths: tuple[int, ...] = (6, 8, 10, 12, 16, 20, 24, 32)
    facts: int = 1500
    facts_batch: int = 64
    sums: int = 800
    sums_batch: int = 128
    digits: int = 6
    fact_items: int = 40_000
    items: int = 2000
    seed: int = 0
    seeds: int = 3
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, widths=2, fact_items=2, items=2, seed=0)


QUICK = Settings(widths=(6, 8, 12, 16, 24), facts=800, sums=400, fact_items=10_000, items=1000, seeds=1)


class Job(NamedTuple):
    """One model on one task."""

    task: str
    width: int
    seed: int
    settings: Settings
    folder: str

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.task}-d{self.width}" + (f"-seed{self.seed}" if self.seed else "")


def task_of(name: str, settings: Settings) -> tasks.Task:
    """The task by name."""
    return tasks.facts() if name == "facts" else tasks.addition(settings.digits)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train models of every size and seed on both tasks and evaluate them."""
    s = settings
    order = [(task, d, s.seed + i) for d in reversed(s.widths) for task in ("facts", "addition") for i in range(s.seeds)]
    jobs = [Job(*model, s, str(folder)) for model in order]
    rows, curves, bought = [], [], []
    noises: dict[str, dict[tuple[int, int], Any]] = {task: {} for task in TASKS}
    for name, found in each(learned, [(job.name, job) for job in jobs], workers, folder / "models", s.executor):
        row = found["row"]
        report(f"{name}: {row['nats_per_answer']:.3f} nats per answer, exact match {100 * row['exact_match']:.1f} %")
        rows.append(row)
        curves += found["curve"]
        bought += found["inference"]
        noises[row["task"]][row["parameters"], row["seed"]] = found["noise"]
    for entries in (rows, curves, bought):
        entries.sort(key=lambda row: (row["task"], row["parameters"], row["seed"]))
    cure = inference.cure([[mine[model] for model in sorted(mine)] for mine in noises.values()])
    numbers = {"laws": laws(curves), "shapes": shapes(rows), "cure": cure and cure._asdict()}
    return {"tables": {"means": means(rows), "sizes": rows, "yields": curves, "inference": bought}, "numbers": numbers}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The means over seeds at every size, with the least and the greatest exact match."""
    return over_seeds(rows, ("task", "width", "parameters"), "exact_match", AVERAGED)


def laws(curves: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How far p^n and the product by position are off each task's yields at most, over all lengths, sizes and seeds."""
    found = {}
    for task in TASKS:
        mine = [row for row in curves if row["task"] == task]
        for law in ("p^n", "product"):
            found[f"{task}: {law}"] = dict(zip(("value", "low", "high"), largest_error(mine, law), strict=True))
    return found


def largest_error(curves: list[dict[str, Any]], law: str) -> tuple[float, float, float]:
    """By how much a law, "p^n" or "product", is off the measured yields at most, with its 95 % interval."""
    return yields.largest([row["measured"] - row[law] for row in curves], [row[f"{law} error"] for row in curves])


def shapes(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Whether loss and exact match of each task are a line or a step in ln N, where there are at least FEWEST sizes: the p-values
    and the shape of their means over seeds, and how many single seeds can only be a step.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        mine = sorted((row for row in rows if row["task"] == task), key=lambda row: row["parameters"])
        alone = [[row for row in mine if row["seed"] == seed] for seed in sorted({row["seed"] for row in mine})]
        for metric in ("nats_per_answer", "exact_match") if alone and len(alone[0]) >= FEWEST else ():
            shape, *seeds = (
                line_or_step(np.log([row["parameters"] for row in part]), [row[metric] for row in part])
                for part in (over_seeds(mine, ("parameters",), metric), *alone)
            )
            told = {"line": shape.line, "step": shape.step, "shape": shape.name}
            found[f"{task}: {metric}"] = told | {"seeds": len(seeds), "jumps": sum(seed.name == "a step" for seed in seeds)}
    return found


def learned(job: Job) -> Result:
    """Train one model, save its outcomes beside the results, and evaluate them."""
    s, task, facts = job.settings, task_of(job.task, job.settings), job.task == "facts"
    steps, batch, items = (s.facts, s.facts_batch, s.fact_items) if facts else (s.sums, s.sums_batch, s.items)
    trained = train(task, Recipe(job.width, steps=steps, batch=batch, seed=job.seed))
    found = outcomes(task, trained, items)
    place = Path(job.folder) / "outcomes"
    place.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(place / f"{job.name}.npz", **found._asdict())
    about = {
        "task": job.task,
        "width": job.width,
        "seed": job.seed,
        "parameters": trained.parameters.total,
        "training_flops": trained.training_flops,
    }
    curve, p = yields.curve(found.right, permutations=200), found.item_probability()
    row = about | {"flops_per_token": trained.flops_per_token, "items": items} | judged(found, curve)
    asked = inference.samples(task, trained, inference.ASKED, max(DRAWN), s.seed)  # the same questions for all
    return {
        "row": row,
        "curve": [about | entry for entry in curve_rows(curve)],
        "inference": [about | entry for entry in inference.rows(asked, p, trained, task.length, DRAWN)],
        "noise": inference.noise(asked),
    }


def judged(found: tasks.Outcomes, curve: yields.YieldCurve) -> dict[str, Any]:
    """The columns of a model's row: its loss and scores, the causes of its errors, and pass@k."""
    tests = battery(found.attempts(16), found.features, permutations=50)
    wrong = float((1 - found.probability).sum())
    p = found.item_probability()
    return {
        "nats_per_answer": float(-np.log(np.maximum(found.probability, 1e-300)).mean()),
        "accuracy": float(found.right.mean()),
        "exact_match": float(curve.measured[-1]),
        "power": float(curve.power[-1]),
        "product": float(curve.product[-1]),
        "product_p": curve.p_value,
        "sampled_exact_match": float(p.mean()),
        "error_rate": float((1 - found.probability).mean()),
        "causes": tests.causes,
        "noise": tests.noise,
        "hard": tests.hard,
        "missing": tests.missing,
        "persistent_share": persistent_share_exact(found.probability),
        "cured_by_greedy": float(((1 - found.probability) * found.right).sum() / wrong) if wrong else 0.0,
        **{f"pass_at_{k}": float(v) for k, v in zip(ATTEMPTS, passk.exact(p, ATTEMPTS), strict=True)},
        **{f"pass_at_{k}_if_equal": float(v) for k, v in zip(ATTEMPTS, passk.homogeneous(p, ATTEMPTS), strict=True)},
    }


def curve_rows(curve: yields.YieldCurve) -> list[dict[str, Any]]:
    """The yield at every length."""
    columns = {"measured": curve.measured, "p^n": curve.power, "product": curve.product, "items differ": curve.spread}
    columns |= {"low": curve.low, "high": curve.high, "p^n error": curve.power_error, "product error": curve.product_error}
    return [{"length": n + 1} | {name: float(column[n]) for name, column in columns.items()} for n in range(len(curve.measured))]


def figures(result: Result) -> dict[str, Any]:
    """Loss, accuracy and exact match against N for each task; yields against length; success of several attempts against FLOPs.
    Lines go through the means over seeds.
    """
    found, judged_shapes = {}, result["numbers"]["shapes"]
    for task in TASKS:
        sizes, curves, bought = (
            [row for row in result["tables"][name] if row["task"] == task] for name in ("sizes", "yields", "inference")
        )
        titles = []
        for name, metric in (("loss", "nats_per_answer"), ("exact match", "exact_match")):
            shape = judged_shapes.get(f"{task}: {metric}")
            titles.append(f"{name}: {shape['shape']} over ln N" if shape else "")
        found[task] = reliability_plots.loss_and_score(sizes, titles)
        by_size = {n: [row for row in curves if row["parameters"] == n] for n in sorted({row["parameters"] for row in curves})}
        found[f"{task}_yield"] = reliability_plots.yield_curves([(f"N = {n:,}", mine) for n, mine in by_size.items()])
        label = f"FLOPs of training and {inference.QUESTIONS:,} questions"
        found[f"{task}_inference"] = reliability_plots.bought(bought, label)
        found[f"{task}_cost"] = reliability_plots.cost(bought, label)
    return found
