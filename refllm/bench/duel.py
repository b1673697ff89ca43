"""Two or more sides timed in turn: a drifting clock rate or a busy neighbour then falls on all of them alike."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PAUSE = 0.05  # seconds between two turns, in which the threads of the side before, which spin for a while, fall asleep
THREADED = ("OMP", "OPENBLAS", "MKL", "RAYON")  # what reads how many threads it may use from the environment
AGREEMENT = 1e-4  # relative, as spec/accuracy.md has it for training steps; a missing term is far outside


@dataclass(frozen=True)
class Side:
    """A side to time. model: fields of the model's Config that differ    options: of the worker's function"""

    name: str
    library: str  # "refllm", or a peer's
    environment: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What was measured of one side."""

    side: Side
    first: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by what was timed, one number a run
    peak: int = 0  # bytes
    imported: int = 0
    versions: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # what else there is to say of the side, by name

    def median(self, what: str) -> float:
        return statistics.median(self.seconds[what])


class Worker:
    """A side's process."""

    def __init__(self, side: Side, work: str, config: str, threads: int):
        task = {"library": side.library, "work": work, "config": config, "model": side.model, "options": side.options}
        counts = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS"),
            str(threads),
        )
        self.side = side
        self.process: Any = subprocess.Popen(
            [sys.executable, "-m", "refllm.bench.worker", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | counts | side.environment,
        )

    def ask(self, request: str) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises ValueError when the process has died."""
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ValueError(
                f"the process that times {self.side.name} ended with status {self.process.wait()}; what it said is above."
            )
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def duel(
    sides: Sequence[Side], work: str, config: str, runs: int, threads: int, progress: Callable[[int], None] = lambda done: None
) -> list[Result]:
    """Time all sides, `runs` times each, in turn; every second round in the opposite order.

    work: "train", "decode", "tokenizer" or "tokenizer training"    config: a name in the table of shapes, for the first two
    threads: each side's
    Raises ValueError when the sides do not compute the same thing, or one of them dies.
    """
    workers = []
    try:
        workers += [Worker(side, work, config, threads) for side in sides]
        results = [Result(worker.side, worker.ask("first")) for worker in workers]
        check_agreement(results)
        pairs = list(zip(workers, results, strict=True))
        for worker in workers:
            worker.ask("run")  # the first run warms caches up
        for done in range(runs):
            for worker, result in pairs if done % 2 == 0 else reversed(pairs):
                time.sleep(PAUSE)
                for what, seconds in worker.ask("run").items():
                    result.seconds.setdefault(what, []).append(seconds)
            progress(done + 1)
        for worker, result in pairs:
            said = worker.ask("memory")
            result.peak, result.imported, result.versions = said["peak"], said["imported"], said["versions"]
            result.figures = said.get("figures", {})
    finally:
        for worker in workers:
            worker.close()
    return results


def check_agreement(results: Sequence[Result]) -> None:
    """Raise ValueError unless all sides of one model had the same loss and gradient norm, or chose the same first token."""
    for result in results[1:]:
        base = next(r for r in results if r.side.model == result.side.model)
        for what, value in result.first.items():
            expected = base.first[what]
            if isinstance(value, str):  # a digest, or the first token of each call
                agree = value == expected
            else:
                agree = value[0] == expected[0] if what == "tokens" else abs(value - expected) <= AGREEMENT * abs(expected)
            if not agree:
                raise ValueError(
                    f"{result.side.name} does not compute what {base.side.name} does: "
                    f"its {what} in the first step is {value}, not {expected}."
                )


def ratio(result: Result, base: Result, what: str) -> float:
    """How many times the base's time a side takes: the median over the rounds, each round's own two runs compared."""
    return statistics.median(a / b for a, b in zip(result.seconds[what], base.seconds[what], strict=True))


def spread(result: Result, base: Result, what: str) -> tuple[float, float]:
    """The lower and upper quartile of the rounds' ratios; the same number twice where there are too few rounds."""
    ratios = sorted(a / b for a, b in zip(result.seconds[what], base.seconds[what], strict=True))
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, high
