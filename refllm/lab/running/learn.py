"""A small model trained in memory, from a function that gives the batch of every step.

Beside the weights stands their running mean with a power law's memory (Karras et al. 2023, arXiv:2312.02696, section 3.1):

    mean ← βₜ·mean + (1 − βₜ)·weights          βₜ = (1 − 1/t)^(1 + γ)

which at every step looks back over the same share of the training so far, 1/(γ + 2) of it on average. So one run at a constant
learning rate gives at each of its steps a loss like that of a run that ended there with its rate lowered.

A cooldown branch is such a run itself (Hägele et al. 2024, arXiv:2405.18392): it leaves the trunk, the run at a constant rate, at
step (1 − share)·S and reads the same batches up to step S while its rate falls to zero along a straight line.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from refllm.array_api import load
from refllm.lab.running import progress
from refllm.models import architecture
from refllm.training.config import TrainingConfig
from refllm.training.flat import unpack
from refllm.training.step import Learner, State, first_state, learner, state_at, train_step

Batch = tuple[Any, Any]  # tokens and targets, (B, T) int32 NumPy arrays each; a target of −100 does not count


class Snapshot(NamedTuple):
    """A model at one step."""

    step: int  # updates made
    tokens: int  # read so far, those without a target among them
    raw: dict[str, Any]  # the parameters by name, arrays of the backend in use
    averaged: dict[str, Any]  # their running mean
    cooled: dict[str, Any] | None = None  # those of the branch that ends here; None without cooldown


def learn(
    name: str,
    config: Any,
    training: TrainingConfig,
    batch_at: Callable[[int], Batch],
    snapshots: Collection[int],
    *,
    horizon: float = 9.0,
    gain: float | None = None,
    cooldown: float = 0.0,
) -> Iterator[Snapshot]:
    """Train a new model of the architecture `name` up to the last snapshot, yielding each when it is reached.

    batch_at: the batch of a step, counted from 0, the same whenever it is asked for    snapshots: steps, 1 … training.steps
    horizon: γ of the running mean    gain: first weights are spread as `spread` says; None: as the architecture itself has them
    cooldown: the share of each snapshot's steps in which a branch cools; 0: no branches. They come on top of the trunk's steps
    Raises ValueError for a snapshot outside 1 … training.steps, as `branches_of` does, and where the loss is infinite or NaN.
    """
    if not snapshots or min(snapshots) < 1 or max(snapshots) > training.steps:
        raise ValueError(f"snapshots at {sorted(snapshots)} must be steps from 1 to training.steps={training.steps}.")
    branches = branches_of(snapshots, training, cooldown)
    backend = load()
    learns = learner(architecture(name), config, training)
    first = first_state(learns, backend) if gain is None else state_at(spread(name, config, training.seed, gain), learns, backend)
    state, mean, tokens_read, made = first, None, 0, 0
    cooled: dict[int, Any] = {}
    tell = progress.begin(max(snapshots) + sum(end - begin for begin, ends in branches.items() for end in ends))

    def updated(state: State, learns: Learner) -> tuple[State, Any, int]:
        """The state after one more step, the loss, and the tokens that were read."""
        nonlocal made
        tokens, targets = (backend.xp.from_numpy(a) for a in batch_at(state.step))
        state, metrics = train_step(state, [(tokens, targets)], learns)
        made += 1
        tell(made, lambda: float(backend.xp.to_numpy(metrics.loss)))
        return state, metrics.loss, tokens.shape[0] * tokens.shape[1]

    for step in range(1, max(snapshots) + 1):
        for end in branches.get(step - 1, ()):
            branch, cooling = _copied(state), _cooling(learns, step - 1, end)
            while branch.step < end:
                branch, *_ = updated(branch, cooling)
            cooled[end] = branch.vector
        state, loss, n_tokens = updated(state, learns)
        beta = (1 - 1 / step) ** (1 + horizon)
        mean = state.vector * (1 - beta) if mean is None else beta * mean + (1 - beta) * state.vector
        tokens_read += n_tokens
        if step in snapshots:
            value = float(backend.xp.to_numpy(loss))
            if not abs(value) < float("inf"):
                raise ValueError(f"the loss is {value} at step {step}: training diverged; lower its learning rate.")
            raw, averaged = (unpack(vector * 1, learns.layout) for vector in (state.vector, mean))  # the next step may reuse them
            yield Snapshot(step, tokens_read, raw, averaged, unpack(cooled.pop(step), learns.layout) if cooldown else None)


def branches_of(snapshots: Collection[int], training: TrainingConfig, cooldown: float) -> dict[int, list[int]]:
    """The steps at which branches end, by the step at which they leave the trunk; none without cooldown.

    Raises ValueError for a share outside 0 … 1, and a trunk whose own rate falls.
    """
    if not 0 <= cooldown <= 1:
        raise ValueError(f"cooldown={cooldown} must be a share of the steps, from 0 to 1.")
    if cooldown and training.schedule != "constant":
        raise ValueError(f"cooldown branches leave a run at a constant rate; training.schedule is {training.schedule!r}.")
    branches: dict[int, list[int]] = {}
    for end in sorted(set(snapshots)) if cooldown else ():
        branches.setdefault(end - max(1, round(cooldown * end)), []).append(end)
    return branches


def _cooling(learns: Learner, begin: int, end: int) -> Learner:
    """The same learner with a rate that falls to zero between two steps."""
    falling = replace(learns.training, schedule="wsd", steps=end, decay_steps=end - begin, final_fraction=0.0)
    return learns._replace(training=falling)


def _copied(state: State) -> State:
    """A state of its own: the steps that follow may overwrite the one that is given."""
    return State(state.vector * 1, state.mean * 1, state.square * 1, state.step)


def spread(name: str, config: Any, seed: int, gain: float) -> dict[str, Any]:
    """First weights that keep a vector's length in narrow models too: matrices with standard deviation gain/√(their inputs)
    (LeCun et al. 1998), tables with 0.1. The usual 0.02 suits widths near a thousand (Radford 2018, section 4.1).

    They are the architecture's own, each rescaled.
    """
    first = architecture(name).initialise(config, seed)
    return {n: rescaled(n, values, gain) for n, values in first.items()}


def rescaled(name: str, values: Any, gain: float) -> Any:
    """A parameter's first values at that spread; vectors, gains and biases, stay."""
    if values.ndim < 2:
        return values
    wanted = 0.1 if name.endswith("embedding") else gain * values.shape[-2] ** -0.5
    return values * (wanted / float(values.std())) if values.any() else values
