"""The training loop: steps, evaluations and checkpoints, each step told to whoever watches and to metrics.jsonl.

    for progress in train(run):
        print(progress.step, progress.loss)

A step's numbers are read only when the next step is under way, so that the device does not wait for the host.
"""

import json
import math
import os
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from refllm.array_api import namespace
from refllm.layers.cross_entropy import cross_entropy
from refllm.training import data, masking
from refllm.training.config import TrainingConfig
from refllm.training.flat import unpack
from refllm.training.run import Run, cut_metrics, first_or_last_state, save_checkpoint, save_model
from refllm.training.state_file import Best
from refllm.training.step import IGNORED, Metrics, State, at_work, rate_at, train_step


class Progress(NamedTuple):
    """One step: a line of metrics.jsonl. The held-out numbers are there at steps that evaluate."""

    step: int  # updates made
    steps: int  # updates to make
    loss: float  # nats per token on the step's batch, before its update
    gradient_norm: float  # before clipping
    learning_rate: float
    tokens_per_second: float  # over the last steps, evaluations and checkpoints left out
    seconds_left: float
    held_out_loss: float | None = None  # nats per token, after the update
    bits_per_byte: float | None = None  # the same for each byte of text
    best: bool = False  # whether no evaluation before was as good


class Evaluation(NamedTuple):
    """How well a model predicts the held-out text."""

    loss: float  # nats per token
    bits_per_byte: float


def train(run: Run) -> Iterator[Progress]:
    """Train from the last checkpoint, or from the first step, to the last, yielding each step.

    It may be closed or killed at any point; training again then goes on from the last checkpoint, bit for bit
    where backend, kernels and number of threads are the same.
    Raises ValueError when the loss is no longer a number, OSError when a file cannot be written; the last checkpoint stays.
    """
    t = run.training
    state, best = first_or_last_state(run)
    cut_metrics(run, state.step)
    waiting: tuple[int, Metrics] | None = None  # the step whose numbers are not read yet
    with run.metrics_path.open("ab", buffering=0) as file:
        log = Log(run, file, state.step)
        while state.step < t.steps:
            with overflow_told_later():
                state, metrics = train_step(state, batches(run, state.step), run.learner)
            if waiting:
                yield log.write(log.read(*waiting))
            waiting = state.step, metrics
            evaluates, saves = due(state.step, t.evaluate_every, t), due(state.step, t.checkpoint_every, t)
            if evaluates or saves:
                progress, waiting = log.read(*waiting), None
                if evaluates:
                    progress, best = judged(run, state, best, progress, log)
                log.write(progress)
                if saves:
                    with log.standing():
                        os.fsync(file.fileno())  # the lines up to a checkpoint outlast a power cut if the checkpoint does
                        save_checkpoint(run, state, best)
                    log.checkpoint = state.step
                log.clock.pause()
                yield progress


@contextmanager
def overflow_told_later() -> Iterator[None]:
    """Without NumPy's warnings of overflows: a number that is no longer finite is told, once, when it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def due(step: int, every: int, t: TrainingConfig) -> bool:
    """Whether something done `every` so many steps, and at the last, is done after this one."""
    return step % every == 0 or step == t.steps


def batches(run: Run, step: int) -> Iterator[tuple[Any, Any]]:
    """The micro-batches of a step, in the run's backend."""
    t, from_numpy = run.training, run.backend.xp.from_numpy
    sizes = {"context": t.context, "batch": t.batch, "accumulation": t.accumulation}
    for i in range(t.accumulation):
        if run.masking:
            tokens, targets = masking.batch(run.masking, run.corpus, t.seed, step, i, **sizes)
        else:
            tokens, targets = data.batch(run.corpus, t.seed, step, i, **sizes)
        yield from_numpy(tokens), from_numpy(targets)


def held_out_batches(run: Run) -> Iterator[tuple[Any, Any]]:
    """The fixed windows of held-out text, some at a time, on the host."""
    t = run.training
    sizes = {"context": t.context, "batch": t.batch, "windows": t.evaluation_windows}
    if run.masking:
        return masking.evaluation_batches(run.masking, run.corpus, **sizes)
    return data.evaluation_batches(run.corpus, **sizes)


def judged(run: Run, state: State, best: Best, progress: Progress, log: "Log") -> tuple[Progress, Best]:
    """A step with its evaluation, and the best so far; if that is this one, its model is saved."""
    with overflow_told_later():
        loss, bits_per_byte = evaluate(run, state)
    log.finite(state.step, {"held-out loss": loss})
    better = loss < best.loss
    if better:
        best = Best(loss, state.step)
        with log.standing():
            save_model(run, state, run.folder / "best")
    return progress._replace(held_out_loss=loss, bits_per_byte=bits_per_byte, best=better), best


def evaluate(run: Run, state: State) -> Evaluation:
    """The loss on the fixed windows of held-out text, read back once."""
    t, learner, xp = run.training, run.learner, run.backend.xp
    params = unpack(at_work(state.vector, t), learner.layout)
    nats, n_tokens, n_bytes = xp.zeros((), dtype=state.vector.dtype), 0, 0
    for tokens, targets in held_out_batches(run):
        kept = targets[targets != IGNORED]
        logits = learner.model.forward(params, xp.from_numpy(tokens), learner.config, checkpointing=True).logits
        loss, _ = cross_entropy(logits, xp.from_numpy(targets))
        nats = nats + xp.astype(loss, nats.dtype) * kept.size
        xp.async_evaluate(nats)
        n_tokens += kept.size
        n_bytes += int(run.corpus.token_bytes[kept].sum())
    total = float(xp.to_numpy(nats))
    return Evaluation(total / max(1, n_tokens), total / math.log(2) / max(1, n_bytes))


class Log:
    """metrics.jsonl being written, and the clock that some of its numbers come from."""

    def __init__(self, run: Run, file: BinaryIO, checkpoint: int):
        self.run, self.file, self.checkpoint = run, file, checkpoint
        self.clock = Clock()

    def read(self, step: int, metrics: Metrics) -> Progress:
        """Wait for a step and read its numbers. Raises ValueError where they are not finite."""
        xp = namespace(metrics.loss)
        loss, norm = xp.to_numpy(xp.stack([metrics.loss, metrics.gradient_norm])).tolist()
        self.finite(step, {"loss": loss, "gradient's norm": norm})
        t = self.run.training
        seconds = self.clock.step()
        rate = t.context * t.batch * t.accumulation / seconds
        return Progress(step, t.steps, loss, norm, rate_at(step - 1, t), rate, self.clock.left(step, t))

    def finite(self, step: int, numbers: dict[str, float]) -> None:
        """Raise ValueError unless all the numbers are."""
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise ValueError(
                    f"the {name} is {number} at step {step}: training diverged. {self._checkpoint()} "
                    "Lower training.learning_rate or raise training.warmup_steps."
                )

    def write(self, progress: Progress) -> Progress:
        """Append a step's line."""
        fields = {name: value for name, value in progress._asdict().items() if value is not None}
        line = memoryview(json.dumps(fields).encode() + b"\n")
        with self.standing():
            while line:
                line = line[self.file.write(line) :]
        return progress

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Add to an OSError of the block where the run stands and how to go on."""
        try:
            yield
        except OSError as error:
            told = str(error) if error.errno is None else f"{self.run.folder} could not be written ({error.strerror})."
            raise OSError(f"{told} {self._checkpoint()} Make room, then: refllm resume {self.run.folder}") from error

    def _checkpoint(self) -> str:
        return f"The checkpoint of step {self.checkpoint} is whole." if self.checkpoint else "No checkpoint was made yet."


class Clock:
    """How long a step takes, as the mean of the last twenty, and how long a pause for evaluating or saving."""

    def __init__(self) -> None:
        self.steps: deque[float] = deque(maxlen=20)
        self.pauses: deque[float] = deque(maxlen=5)
        self.mark = time.perf_counter()

    def step(self) -> float:
        """A step has ended. Returns the mean seconds of a step."""
        self.steps.append(self._since())
        return sum(self.steps) / len(self.steps)

    def pause(self) -> None:
        """An evaluation or a checkpoint has ended."""
        self.pauses.append(self._since())

    def left(self, step: int, t: TrainingConfig) -> float:
        """Seconds until the last step is done, its pauses included."""
        n_pauses = math.ceil((t.steps - step) / min(t.evaluate_every, t.checkpoint_every))
        pause = sum(self.pauses) / len(self.pauses) if self.pauses else 0.0
        return sum(self.steps) / len(self.steps) * (t.steps - step) + pause * n_pauses

    def _since(self) -> float:
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        return max(seconds, 1e-9)
