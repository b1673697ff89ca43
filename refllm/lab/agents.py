"""Small errors over many steps: a model that calls a calculator, alone, and with others to look after it.

A step is a call that the model writes and the tool answers. With p the chance that a call is right, n in a row are with p^n.
Three helps are compared, each with the same number of tries:

    retry        another call where the tool knows none in what was written
    check        another call where the call is not what the task and the last result ask for
    start again  the whole task anew where its end is wrong: 1 − (1 − p^n)^tries; a check of each step has (1 − (1 − p)^tries)^n

Calls are drawn at temperature one, so the chance of each is known exactly from one pass over right transcripts; the products of
these chances are what the loops are compared with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from refllm.array_api import generator, load
from refllm.decoding import Sampler, new_cache, prefill
from refllm.decoding.generate import decode
from refllm.decoding.sampling import sample
from refllm.evaluation.metrics import wilson
from refllm.lab import calculator
from refllm.lab.calculator import CALL
from refllm.lab.experiment import Report, Result
from refllm.lab.pool import each
from refllm.lab.task_models import ARCHITECTURE, Recipe, outcomes, train
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.layers.kv_cache import rewind
from refllm.models import architecture
from refllm.models.model import Model

NAME = "agents"
SUMMARY = {"ends": ("help", "steps", "success", "low", "high", "predicted", "calls_a_step")}
ALONE, RETRY, CHECK, AGAIN = "alone", "retry", "check", "start again"


@dataclass(frozen=True)
class Settings:
    """The defaults take a quarter of a minute. They stop training early: a model that makes no errors has none to compound.

    steps: of a task    items: tasks    tries: calls of one step, or runs of one task, at most
    width, updates, batch: of the model and its training
    """

    steps: int = 12
    items: int = 1000
    tries: int = 3
    width: int = 16
    updates: int = 290
    batch: int = 32
    seed: int = 0
    executor: str = "processes"


QUICK = Settings(steps=8, items=300, updates=260)


class Writer(Protocol):
    """What writes calls, for many tasks side by side."""

    def propose(self) -> np.ndarray:
        """A call for the present step of each task, (R, 5); another at every request."""

    def go_on(self, calls: np.ndarray, results: np.ndarray) -> None:
        """These calls (R, 5) were made, and the tool answered (R, 2): the next step begins."""


class ModelWriter:
    """A model that has read the tasks, and then each call and its result."""

    def __init__(self, model: Model, prompts: np.ndarray, seed: int):
        self._model, self._rows = model, len(prompts)
        self._draws = generator(seed, "agent")
        self._logits, self._cache = self._read(prompts, new_cache(model, len(prompts), model.config.max_positions))

    def propose(self) -> np.ndarray:
        """Draw a call at temperature one."""
        xp, begin = load().xp, self._cache.length
        logits, cache, columns = self._logits, self._cache, []
        for i in range(CALL):
            token, _ = sample(logits, xp.from_numpy(self._draws.random(self._rows)), Sampler(1.0))
            columns.append(xp.to_numpy(token))
            if i < CALL - 1:
                logits, cache = decode(self._model, token[:, None], cache)
        self._cache = rewind(cache, begin)
        return np.stack(columns, axis=1)

    def go_on(self, calls: np.ndarray, results: np.ndarray) -> None:
        """Read what was called and answered."""
        self._logits, self._cache = self._read(np.concatenate([calls, results], axis=1), self._cache)

    def _read(self, tokens: np.ndarray, cache: Any) -> tuple[Any, Any]:
        return prefill(self._model, load().xp.from_numpy(np.ascontiguousarray(tokens.astype(np.int32))), cache)


class Run(NamedTuple):
    """What came of a loop."""

    right: np.ndarray  # (R, steps) bool: whether the value after each step is the right one
    calls: int  # that were written in all


Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]  # calls (R, 5) and those asked for (R, 5) -> which will do, (R,) bool

HELPS: Mapping[str, Accept] = {
    ALONE: lambda calls, asked: np.ones(len(calls), dtype=bool),
    RETRY: lambda calls, asked: calculator.calculate(calls)[1],
    CHECK: lambda calls, asked: (calls == asked).all(axis=1),
}


def loop(writer: Writer, prompts: np.ndarray, accept: Accept, tries: int) -> Run:
    """Let the writer work through tasks: in every step at most so many tries until a call will do, and then the tool.

    prompts: (R, prompt_length). The last try is made whether it will do or not.
    """
    operations, values, n_calls, right = calculator.operations_of(prompts), calculator.value_of(prompts), 0, []
    truth = calculator.truth(prompts)
    for step in range(operations.shape[1]):
        asked = calculator.expected_call(values, operations, step)
        calls = writer.propose()
        n_calls += len(prompts)
        for _ in range(tries - 1):
            waiting = ~accept(calls, asked)
            if not waiting.any():
                break
            calls = np.where(waiting[:, None], writer.propose(), calls)
            n_calls += int(waiting.sum())
        values, _ = calculator.calculate(calls)
        right.append(values == truth[:, step])
        if step + 1 < operations.shape[1]:
            writer.go_on(calls, calculator.two_digits(values))
    return Run(np.stack(right, axis=1), n_calls)


def start_again(runs: list[Run]) -> Run:
    """The best of several whole runs: right where any is; a task whose end is right is not run again."""
    right = np.logical_or.reduce([run.right for run in runs])
    done, calls = np.zeros(len(right), dtype=bool), 0
    for run in runs:
        calls += int((~done).sum()) * right.shape[1]
        done = done | run.right[:, -1]
    return Run(right, calls)


def predictions(q: np.ndarray, tries: int) -> dict[str, np.ndarray]:
    """Success after each step, (steps,), from the chance q (R, steps) that a call is right behind right ones."""
    whole = np.cumprod(q, axis=1)
    return {
        ALONE: whole.mean(axis=0),
        CHECK: np.cumprod(1 - (1 - q) ** tries, axis=1).mean(axis=0),
        AGAIN: (1 - (1 - whole) ** tries).mean(axis=0),
    }


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train the model, and let it work with every help."""
    ((_, found),) = each(judged, [("agent", settings)], workers, folder / "models", settings.executor)
    numbers = found["numbers"]
    report(
        f"a call is right with {numbers['step_success']:.4f}, {numbers['steps']} in a row with {numbers['power']:.3f} if alike"
    )
    for row in found["ends"]:
        report(f"{row['help']}: {100 * row['success']:.1f} % of the tasks end right")
    return {"tables": {"ends": found["ends"], "steps": found["rows"]}, "numbers": numbers}


def judged(s: Settings) -> Result:
    """Train one model and count how its loops end."""
    task = calculator.task(s.steps)
    trained = train(task, Recipe(s.width, steps=s.updates, batch=s.batch, seed=s.seed))
    model = Model(architecture(ARCHITECTURE), trained.config, trained.params)
    prompts = task.items(s.items).tokens[:, : calculator.prompt_length(s.steps)]
    q = outcomes(task, trained, s.items).probability.reshape(s.items, s.steps, CALL).prod(axis=2)

    def writer(number: int) -> ModelWriter:
        return ModelWriter(model, prompts, s.seed + number)

    runs = {help: loop(writer(i), prompts, accept, s.tries) for i, (help, accept) in enumerate(HELPS.items())}
    others = [loop(writer(len(HELPS) + i), prompts, HELPS[ALONE], 1) for i in range(s.tries - 1)]
    runs[AGAIN] = start_again([runs[ALONE], *others])
    predicted, p = predictions(q, s.tries), float(q.mean())
    rows = []
    for help, found in runs.items():
        for n in range(1, s.steps + 1):
            share = wilson(int(found.right[:, n - 1].sum()), s.items)
            row: dict[str, Any] = {
                "help": help,
                "steps": n,
                "success": share.value,
                "low": share.low,
                "high": share.high,
                "power": p**n,
            }
            if help in predicted:
                row["predicted"] = float(predicted[help][n - 1])
            rows.append(row)
    ends = [row | {"calls_a_step": runs[row["help"]].calls / s.items / s.steps} for row in rows if row["steps"] == s.steps]
    return {"rows": rows, "ends": ends, "numbers": {"step_success": p, "steps": s.steps, "power": p**s.steps}}


def figures(result: Result) -> dict[str, Any]:
    """Success against steps with each help; the products of single steps dashed, p^n dotted."""
    from refllm.lab import plots

    figure, axes = plots.new_figure("steps of a task", "share of tasks right so far")
    rows = result["tables"]["steps"]
    for i, help in enumerate((*HELPS, AGAIN)):
        mine = [row for row in rows if row["help"] == help]
        n, color = [row["steps"] for row in mine], plots.COLORS[i]
        axes.fill_between(n, [row["low"] for row in mine], [row["high"] for row in mine], color=color, alpha=0.12, linewidth=0)
        axes.plot(n, [row["success"] for row in mine], marker="o", markersize=4, color=color, label=help)
        if "predicted" in mine[0]:
            axes.plot(n, [row["predicted"] for row in mine], linestyle="--", linewidth=1, color=color)
    alone = [row for row in rows if row["help"] == ALONE]
    axes.plot([row["steps"] for row in alone], [row["power"] for row in alone], ":", color=plots.INK, label="p^n")
    axes.set_ylim(0, 1.02)
    plots.legend(axes)
    return {"success": figure}


def judge_compounding(results: Mapping[str, Any]) -> Finding:
    """Claim 20, of the model alone after the last step. It holds where the 95 % interval of its success lies below the chance p
    of a single step and holds the product of its steps' chances; it fails where the interval lies at p or above; otherwise, as
    where there are too few errors, or they compound differently from the product, it is undecidable.
    """
    result = results[NAME]
    ends, p = {row["help"]: row for row in result["tables"]["ends"]}, result["numbers"]["step_success"]
    alone, n = ends[ALONE], result["numbers"]["steps"]
    if alone["high"] >= p:
        verdict = FAILS if alone["low"] >= p else UNDECIDABLE
    else:
        verdict = HOLDS if alone["low"] <= alone["predicted"] <= alone["high"] else UNDECIDABLE
    helped = ", ".join(f"{help} {100 * ends[help]['success']:.1f} %" for help in (RETRY, CHECK, AGAIN))
    why = (
        f"A step is right with {100 * p:.2f} %, {n} steps with {100 * alone['success']:.1f} % alone "
        f"(the product of the steps: {100 * alone['predicted']:.1f} %, p^{n}: {100 * alone['power']:.1f} %); with {helped}."
    )
    return Finding(alone["success"], alone["low"], alone["high"], f"success after {n} steps", verdict, why)


CLAIMS = (
    Claim(
        number=20,
        statement="Agents compound small errors over steps.",
        formula="success after n steps = mean over tasks of Π p_t, about p^n; with a check of each step Π (1 − (1 − p_t)^tries)",
        published="",
        needs=(NAME,),
        judge=judge_compounding,
    ),
)
