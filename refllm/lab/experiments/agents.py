"""Do agents compound small errors over steps? A model that calls a calculator, alone, with retries and with checks.

A step is a call that the model samples and the tool answers. With p the probability that a call is right, n in a row are right
with p^n. Models of one size, trained for more and more updates, make ever fewer errors per step; each works alone, and with every
help of `tool_loop`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refllm.evaluation.metrics import wilson
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import calculator
from refllm.lab.materials.calculator import CALL
from refllm.lab.materials.task_models import ARCHITECTURE, Recipe, outcomes, train
from refllm.lab.materials.tool_loop import AGAIN, ALONE, CHECK, HELPS, RETRY, ModelWriter, Run, loop, predictions, start_again
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding, within
from refllm.models import architecture
from refllm.models.model import Model

NAME = "agents"
SUMMARY = {"ends": ("step_success", "help", "success", "low", "high", "predicted", "calls_a_step")}
MARGIN = 0.05  # success and the product of its steps count as equal within this


@dataclass(frozen=True)
class Settings:
    """The defaults take three quarters of a minute on two cores.

    updates: of each model, from often wrong to rarely    width: of the models, d_model    batch: sequences in an update
    steps: of a task    items: tasks for evaluation    tries: calls per step, or runs per task, at most
    """

    updates: tuple[int, ...] = (200, 240, 300, 400, 600)
    width: int = 16
    batch: int = 32
    steps: int = 12
    items: int = 2000
    tries: int = 3
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, width=2, steps=2, seed=0)


QUICK = Settings(updates=(260, 400), steps=8, items=500)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train the models, and let each work with every help."""
    s = settings
    jobs = [(f"{updates}-updates", (updates, s)) for updates in sorted(s.updates, reverse=True)]
    ends, rows = [], []
    for name, found in each(judged, jobs, workers, folder / "models", s.executor):
        told = ", ".join(f"{row['help']} {100 * row['success']:.1f} %" for row in found["ends"])
        report(f"{name}: p of a step {found['ends'][0]['step_success']:.4f}; success after {s.steps} steps: {told}")
        ends += found["ends"]
        rows += found["rows"]
    ends.sort(key=lambda row: row["updates"])
    rows.sort(key=lambda row: row["updates"])
    return {"tables": {"ends": ends, "steps": rows}, "numbers": {"steps": s.steps}}


def judged(job: tuple[int, Settings]) -> Result:
    """Train one model and measure the success of its loops."""
    updates, s = job
    task = calculator.task(s.steps)
    trained = train(task, Recipe(s.width, steps=updates, batch=s.batch, seed=s.seed))
    model = Model(architecture(ARCHITECTURE), trained.config, trained.params)
    prompts = task.items(s.items).tokens[:, : calculator.prompt_length(s.steps)]
    q = outcomes(task, trained, s.items).probability.reshape(s.items, s.steps, CALL).prod(axis=2)
    runs, predicted = helped(model, prompts, s), predictions(q, s.tries)
    rows, ends = [], []
    for help, found in runs.items():
        about = {"updates": updates, "step_success": float(q.mean()), "help": help}
        mine = [about | row for row in by_step(found, predicted.get(help), float(q.mean()))]
        rows += mine
        ends.append(mine[-1] | {"calls_a_step": found.calls / s.items / s.steps})
    return {"rows": rows, "ends": ends}


def helped(model: Model, prompts: np.ndarray, s: Settings) -> dict[str, Run]:
    """The model's runs over the tasks (R, prompt_length), by help; each samples its own calls."""
    runs = {help: loop(ModelWriter(model, prompts, s.seed + i), prompts, HELPS[help], s.tries) for i, help in enumerate(HELPS)}
    seeds = range(s.seed + len(HELPS), s.seed + len(HELPS) + s.tries - 1)
    others = [loop(ModelWriter(model, prompts, seed), prompts, HELPS[ALONE], 1) for seed in seeds]
    return runs | {AGAIN: start_again([runs[ALONE], *others])}


def by_step(found: Run, predicted: np.ndarray | None, p: float) -> list[dict[str, Any]]:
    """The success rate after each step, the product of the steps that predicts it, where one does, and p^n."""
    rows = []
    for n, right in enumerate(found.right.T, start=1):
        share = wilson(int(right.sum()), len(right))
        row = {"steps": n, "success": share.value, "low": share.low, "high": share.high, "power": p**n}
        rows.append(row if predicted is None else row | {"predicted": float(predicted[n - 1])})
    return rows


def figures(result: Result) -> dict[str, Any]:
    """Success alone against steps, a line for each model; success after all steps against 1 − p, a line for each help."""
    from refllm.lab import plots

    steps, ends = result["tables"]["steps"], result["tables"]["ends"]
    figure, (left, right) = plots.new_figure("steps of a task", "success rate", panels=2)
    for i, updates in enumerate(sorted({row["updates"] for row in steps}, reverse=True)):
        mine, color = (
            [row for row in steps if row["updates"] == updates and row["help"] == ALONE],
            plots.COLORS[i % len(plots.COLORS)],
        )
        n, style = (
            [row["steps"] for row in mine],
            {"linestyle": "", "marker": plots.MARKERS[i % len(plots.MARKERS)], "markersize": 4.5},
        )
        left.plot(n, [row["success"] for row in mine], color=color, label=f"p = {mine[0]['step_success']:.4f}", **style)
        left.plot(n, [row["predicted"] for row in mine], linewidth=1, color=color)
        left.plot(n, [row["power"] for row in mine], linestyle=":", linewidth=1.2, color=color)
    for i, help in enumerate((*HELPS, AGAIN)):
        mine, color = [row for row in ends if row["help"] == help], plots.COLORS[i]
        errors = [1 - row["step_success"] for row in mine]
        right.fill_between(errors, [r["low"] for r in mine], [r["high"] for r in mine], color=color, alpha=0.12, linewidth=0)
        right.plot(errors, [row["success"] for row in mine], marker=plots.MARKERS[i], markersize=5, color=color, label=help)
    right.set_xlabel("error rate of a step, 1 − p", color=plots.INK)
    right.set_ylabel(f"success rate after {result['numbers']['steps']} steps", color=plots.INK)
    plots.logarithmic(right, y=False)
    left.set_title("alone; lines: product of the steps, dotted: p^n", fontsize=10, color=plots.INK)
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.02)
        plots.legend(axes)
    return {"success": figure}


def judge_compounding(results: Mapping[str, Any]) -> Finding:
    """Claim 20, of every model alone after the last step.

    It fails where the 95 % interval of a model's success lies wholly further than MARGIN from the product of its steps'
    probabilities, or at or above the probability p of one step. It holds where every interval lies within MARGIN of the product,
    and at least one below p; otherwise, for example with too few errors or tasks, it is undecidable.
    """
    n, ends = results[NAME]["numbers"]["steps"], results[NAME]["tables"]["ends"]
    alone = [row for row in ends if row["help"] == ALONE]
    product = [within(r["success"], r["low"], r["high"], r["predicted"] - MARGIN, r["predicted"] + MARGIN) for r in alone]
    compound = [row["high"] < row["step_success"] for row in alone]
    if FAILS in product or any(row["low"] >= row["step_success"] for row in alone):
        verdict = FAILS
    else:
        verdict = HOLDS if set(product) == {HOLDS} and any(compound) else UNDECIDABLE
    shown = min(alone, key=lambda row: abs(row["success"] - 0.5))  # errors compound most visibly where half the tasks survive
    also = {row["help"]: row["success"] for row in ends if row["updates"] == shown["updates"]}
    told = ", ".join(f"{r['step_success']:.3f} → {r['success']:.3f} ({r['predicted']:.3f})" for r in alone)
    helped = ", ".join(f"{help} {100 * also[help]:.0f} %" for help in (RETRY, CHECK, AGAIN))
    why = f"Success of a step → of {n} (product of the steps): {told}; at {shown['step_success']:.3f} with {helped}."
    unit = f"success after {n} steps at p = {shown['step_success']:.3f}"
    return Finding(shown["success"], shown["low"], shown["high"], unit, verdict, why)


CLAIMS = (
    Claim(
        number=20,
        statement="Agents compound small errors over steps.",
        formula=f"success after n steps = mean over tasks of Π p_t, within {MARGIN:g} at every reliability, and below p",
        published="",
        needs=(NAME,),
        judge=judge_compounding,
    ),
)
