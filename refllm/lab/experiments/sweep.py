"""Models of many sizes trained on one text: the table of losses that scaling laws are fitted to.

All models train on batches of the same shape at a constant learning rate. Held-out losses are measured at several snapshots of
each run, on the same windows for all: of the running mean of the weights, or of a cooldown branch (see `learn`). The best
learning rate is searched at two widths in short runs; a power law of the width through both gives the others.

Tokens and FLOPs are those of one run up to the loss. The whole experiment costs more: the search for the rates, and, where each
of n snapshots has a cooldown branch of a share c of its steps, 1 + c·(1 − 2^(−n/2)) / (1 − 1/√2) times the steps, which is 1.66
for c = 0.2 and n = 10.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.lab.experiment import Report, Result
from refllm.lab.materials import corpus, text_models
from refllm.lab.materials.text_models import ARCHITECTURE, UNIT, config_of, loss_of
from refllm.lab.running.learn import learn
from refllm.lab.running.pool import each
from refllm.models import accounting, architecture
from refllm.training.config import TrainingConfig

NAME = "sweep"
SUMMARY = {"ends": ("width", "seed", "parameters", "tokens", "flops", "learning_rate", "loss")}
OVERHEAD = 8e7  # of a step, as FLOPs: 1.3 ms at 60 GFLOP/s (measured on one core of an AMD EPYC)


@dataclass(frozen=True)
class Settings:
    """The grid of models. The defaults take four to nine minutes on two cores, depending on their speed.

    widths: of the models, d_model    seeds: models of each width up to `reseeded`; wider ones have one
    steps: updates of each model, on batch · context characters    snapshots: losses of each run, √2 apart in steps
    windows: of held-out text, `context` characters each, on which all losses are measured    executor: see `pool.each`
    rates: learning rates tried at each of the two `tuned` widths, for tuning_steps
    gain: of the initial weights, see `learn.spread`; half of LeCun's gives narrow models lower losses, and less spread of seeds
    cooldown: the share of each snapshot's steps over which a branch lowers the learning rate to zero, for example 0.2; its loss
    then replaces that of the running mean. 0: no branches
    text: a file or a folder; "" for Python's standard library
    """

    widths: tuple[int, ...] = (12, 16, 24, 32, 48, 64, 96)
    seeds: int = 3
    reseeded: int = 64
    steps: int = 8192
    batch: int = 4
    context: int = 64
    tuned: tuple[int, int] = (24, 64)
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3)
    tuning_steps: int = 768
    snapshots: int = 10
    windows: int = 384
    gain: float = text_models.GAIN
    cooldown: float = 0.0
    text: str = ""
    executor: str = "processes"


QUICK = Settings(widths=(12, 16, 24, 32), seeds=1, steps=1024, rates=(4e-3, 8e-3), tuned=(12, 32), tuning_steps=256, snapshots=6)


class Task(NamedTuple):
    """One model to train."""

    width: int
    seed: int
    rate: float
    steps: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Search the learning rates, then train every model of the grid."""
    costs = [cost(task) for _, task in tasks_of(settings)]
    tuning = tune(settings, folder, workers, report, later=sum(costs))
    rows = []
    for name, found in each(train, tasks_of(settings, tuning.rate), workers, folder / "models", settings.executor, costs=costs):
        last = found["rows"][-1]
        report(f"{name}: {last['parameters']:,} parameters, {last['tokens']:,} characters, loss {last['loss']:.4f} {UNIT}")
        rows += found["rows"]
    rows.sort(key=lambda row: (row["parameters"], row["seed"], row["tokens"]))
    numbers = {
        "unit_of_loss": UNIT,
        "rates": dict(zip(map(str, settings.tuned), tuning.best, strict=True)),
        "rate_exponent": tuning.exponent,
    }
    ends = [row for row in rows if row["tokens"] == settings.steps * settings.batch * settings.context]
    return {"tables": {"runs": rows, "ends": ends, "tuning": tuning.rows}, "numbers": numbers}


def grid(settings: Settings) -> list[tuple[int, int]]:
    """The width and seed of every model."""
    return [(d, s) for d in settings.widths for s in range(settings.seeds if d <= settings.reseeded else 1)]


def tasks_of(settings: Settings, rate: Callable[[int], float] = float) -> list[tuple[str, Task]]:
    """Every model of the grid by name, with its width's learning rate; `cost` does not depend on the rate."""
    return largest_first([(f"d{d}-seed{s}", Task(d, s, rate(d), settings.steps, settings)) for d, s in grid(settings)])


def largest_first(tasks: list[tuple[str, Task]]) -> list[tuple[str, Task]]:
    """Tasks by falling width: the longest start first, so that no worker is idle while a long one ends."""
    return sorted(tasks, key=lambda task: -task[1].width)


def cost(task: Task) -> float:
    """About how long a task takes, in FLOPs: its arithmetic, and the overhead of each step."""
    flops = accounting.forward_flops(architecture(ARCHITECTURE), config_of(task.width, 100, task.settings.context), 1).training
    return task.steps * (OVERHEAD + flops * task.settings.batch * task.settings.context)


class Tuning(NamedTuple):
    """Learning rates as a power of the width."""

    widths: tuple[int, int]
    best: tuple[float, float]
    rows: list[dict[str, Any]]

    @property
    def exponent(self) -> float:
        (a, b), (x, y) = self.widths, self.best
        return math.log(y / x) / math.log(b / a)

    def rate(self, width: int) -> float:
        """The learning rate of a width."""
        return self.best[0] * (width / self.widths[0]) ** self.exponent


def tune(settings: Settings, folder: Path, workers: int, report: Report, later: float = 0.0) -> Tuning:
    """Try every rate at both widths for tuning_steps; the best is the minimum of a parabola of the loss over ln rate.

    later: the cost of the tasks that follow, as `cost` counts it, for the progress display
    """
    once = replace(settings, snapshots=1)  # only the last loss counts
    pairs = itertools.product(settings.tuned, settings.rates)
    tasks = largest_first([(f"d{d}-rate{r:g}", Task(d, 0, r, settings.tuning_steps, once)) for d, r in pairs])
    costs = [cost(task) for _, task in tasks]
    losses: dict[tuple[int, float], float] = {}
    for _, found in each(train, tasks, workers, folder / "tuning", settings.executor, costs=costs, later=later):
        losses[found["width"], found["rate"]] = found["rows"][-1]["loss"]
    best = tuple(lowest(settings.rates, [losses[d, r] for r in settings.rates]) for d in settings.tuned)
    rows = [{"width": d, "learning_rate": r, "loss": loss} for (d, r), loss in sorted(losses.items())]
    tuning = Tuning(settings.tuned, (best[0], best[1]), rows)
    report(f"learning rates: {best[0]:.2g} at width {settings.tuned[0]}, {best[1]:.2g} at {settings.tuned[1]}")
    return tuning


def lowest(rates: tuple[float, ...], losses: list[float]) -> float:
    """The rate at the minimum of a parabola of the losses over ln rate, within the range of the rates that were tried; the best
    of these where they are fewer than three or the parabola has no minimum.
    """
    x = np.log(rates)
    if len(rates) < 3:
        return float(rates[int(np.argmin(losses))])
    c2, c1, _ = np.polyfit(x, losses, 2)
    if c2 <= 0:
        return float(rates[int(np.argmin(losses))])
    return float(np.exp(np.clip(-c1 / (2 * c2), x.min(), x.max())))


def training_of(task: Task) -> TrainingConfig:
    """The training configuration of a task's model."""
    s = task.settings
    return text_models.training_of(task.rate, task.steps, s.batch, s.context, task.seed)


def snapshot_steps(steps: int, count: int) -> list[int]:
    """`count` steps up to the last, each √2 times the one before."""
    return sorted({max(1, round(steps / 2 ** (i / 2))) for i in range(count)})


def train(task: Task) -> Result:
    """Train one model: a row with its held-out losses for every snapshot."""
    s, began = task.settings, time.perf_counter()
    text = corpus.load(s.text or None)
    config = config_of(task.width, text.vocab_size, s.context)
    llama = architecture(ARCHITECTURE)
    N, flops = accounting.parameters(llama, config), accounting.forward_flops(llama, config, (s.context + 1) // 2)
    judged = corpus.evaluation(text.held_out, count=s.windows, context=s.context)

    def batch_at(step: int) -> Any:
        return corpus.batch(text.train, task.seed, step, batch=s.batch, context=s.context)

    about = {"width": task.width, "seed": task.seed, "run": f"d{task.width}-seed{task.seed}"}
    about |= {"parameters": N.total, "non_embedding": N.non_embedding}
    rows, steps = [], snapshot_steps(task.steps, s.snapshots)
    for model in learn(ARCHITECTURE, config, training_of(task), batch_at, steps, gain=s.gain, cooldown=s.cooldown):
        D = model.tokens
        weights = {"loss": model.averaged} if model.cooled is None else {"loss": model.cooled, "averaged_loss": model.averaged}
        weights["last_weights_loss"] = model.raw
        rows.append(
            about
            | {"tokens": D, "flops": flops.training * D}
            | {"flops_attention": 3 * flops.attention * D, "flops_head": 3 * flops.head * D}
            | {name: loss_of(params, config, judged) for name, params in weights.items()}
            | {"unit": UNIT, "learning_rate": task.rate}
        )
    return {"width": task.width, "rate": task.rate, "rows": rows, "seconds": time.perf_counter() - began}


def figures(result: Result) -> dict[str, Any]:
    """The loss against compute, a line for each width, and against the number of parameters at the end."""
    from refllm.lab import plots

    rows = result["tables"]["runs"]
    return {"loss_and_compute": plots.curves(rows, "flops", UNIT), "loss_and_parameters": plots.ends(rows, "parameters", UNIT)}
