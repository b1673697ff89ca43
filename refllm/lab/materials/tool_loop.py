"""A loop of calls and their results, and what helps it: a writer generates a call, the tool answers, and the writer reads both.

Three kinds of help are compared, each with the same number of tries:

    retry        another call where the call is malformed
    check        another call where the call is not the one that the task and the last result require
    start again  the whole task anew where its last value is wrong: 1 − (1 − p^n)^tries; a check has (1 − (1 − p)^tries)^n

A model samples its calls at temperature one, so the probability of each is known exactly from one pass over right transcripts;
the products of these probabilities are what the loops are compared with.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from refllm.array_api import generator, load
from refllm.decoding import Sampler, new_cache, prefill
from refllm.decoding.generate import decode
from refllm.decoding.sampling import sample
from refllm.lab.materials import calculator
from refllm.lab.materials.calculator import CALL
from refllm.layers.kv_cache import rewind
from refllm.models.model import Model

ALONE, RETRY, CHECK, AGAIN = "alone", "retry", "check", "start again"


class Writer(Protocol):
    """What generates calls, for a batch of R tasks."""

    def propose(self) -> np.ndarray:
        """A call for the current step of each task, (R, 5); a new one each time it is asked."""

    def go_on(self, calls: np.ndarray, results: np.ndarray) -> None:
        """These calls (R, 5) were made, and the tool answered (R, 2): the next step begins."""


class ModelWriter:
    """A model that has read the tasks, and then each call and its result."""

    def __init__(self, model: Model, prompts: np.ndarray, seed: int):
        self._model, self._rows = model, len(prompts)
        self._draws = generator(seed, "agent")
        self._logits, self._cache = self._read(prompts, new_cache(model, len(prompts), model.config.max_positions))

    def propose(self) -> np.ndarray:
        """Sample a call for each task at temperature one: (R, 5)."""
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
        """Append the calls (R, 5) and results (R, 2) to the context."""
        self._logits, self._cache = self._read(np.concatenate([calls, results], axis=1), self._cache)

    def _read(self, tokens: np.ndarray, cache: Any) -> tuple[Any, Any]:
        return prefill(self._model, load().xp.from_numpy(np.ascontiguousarray(tokens.astype(np.int32))), cache)


class Run(NamedTuple):
    """The outcome of a loop over R tasks."""

    right: np.ndarray  # (R, steps) bool: whether the value after each step is the right one
    calls: int  # generated in all


Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]  # calls (R, 5) and the right ones (R, 5) -> which are accepted, (R,) bool

HELPS: Mapping[str, Accept] = {
    ALONE: lambda calls, asked: np.ones(len(calls), dtype=bool),
    RETRY: lambda calls, asked: calculator.calculate(calls)[1],
    CHECK: lambda calls, asked: (calls == asked).all(axis=1),
}


def loop(writer: Writer, prompts: np.ndarray, accept: Accept, tries: int) -> Run:
    """Let the writer work through tasks: in every step up to `tries` calls until one is accepted, then its result.

    prompts: (R, prompt_length). The last try is used whether it is accepted or not.
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
    """The best of several whole runs: a step is right where it is in any; a task whose last value is right is not run again."""
    right = np.logical_or.reduce([run.right for run in runs])
    done, calls = np.zeros(len(right), dtype=bool), 0
    for run in runs:
        calls += int((~done).sum()) * right.shape[1]
        done = done | run.right[:, -1]
    return Run(right, calls)


def predictions(q: np.ndarray, tries: int) -> dict[str, np.ndarray]:
    """Success after each step, (steps,), by help, from the probability q (R, steps) that a call is right after right ones."""
    whole = np.cumprod(q, axis=1)
    return {
        ALONE: whole.mean(axis=0),
        CHECK: np.cumprod(1 - (1 - q) ** tries, axis=1).mean(axis=0),
        AGAIN: (1 - (1 - whole) ** tries).mean(axis=0),
    }
