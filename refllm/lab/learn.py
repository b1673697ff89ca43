"""A small model trained in memory, from a function that gives the batch of every step.

Beside the weights stands their running mean with a power law's memory (Karras et al. 2023, arXiv:2312.02696, section 3.1):

    mean ← βₜ·mean + (1 − βₜ)·weights          βₜ = (1 − 1/t)^(1 + γ)

which at every step looks back over the same share of the training so far, 1/(γ + 2) of it on average. So one run at a constant
learning rate gives at each of its steps a loss like that of a run that ended there with its rate lowered.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from refllm.array_api import load
from refllm.models import architecture
from refllm.training.config import TrainingConfig
from refllm.training.flat import Layout, unpack
from refllm.training.step import first_state, learner, state_at, train_step

Batch = tuple[Any, Any]  # tokens and targets, (B, T) int32 NumPy arrays each; a target of −100 does not count


class Snapshot(NamedTuple):
    """A model at one step."""

    step: int  # updates made
    tokens: int  # read so far, those that do not count among them
    raw: dict[str, Any]  # the parameters by name, arrays of the backend in use
    averaged: dict[str, Any]  # their running mean


def learn(
    name: str,
    config: Any,
    training: TrainingConfig,
    batch_at: Callable[[int], Batch],
    snapshots: Collection[int],
    *,
    horizon: float = 9.0,
    gain: float | None = None,
) -> Iterator[Snapshot]:
    """Train a new model of the architecture `name` up to the last snapshot, yielding each when it is reached.

    batch_at: the batch of a step, counted from 0    snapshots: steps, 1 … training.steps    horizon: γ of the running mean
    gain: first weights are spread as `spread` says; None: as the architecture itself has them
    Raises ValueError for a snapshot that is no step, and where the loss is no longer a number.
    """
    if not snapshots or min(snapshots) < 1 or max(snapshots) > training.steps:
        raise ValueError(f"snapshots at {sorted(snapshots)} must be steps from 1 to training.steps={training.steps}.")
    backend = load()
    learns = learner(architecture(name), config, training)
    first = first_state(learns, backend) if gain is None else state_at(spread(name, config, training.seed, gain), learns, backend)
    state, mean, tokens_read = first, None, 0
    for step in range(1, max(snapshots) + 1):
        tokens, targets = (backend.xp.from_numpy(a) for a in batch_at(step - 1))
        state, metrics = train_step(state, [(tokens, targets)], learns)
        beta = (1 - 1 / step) ** (1 + horizon)
        mean = state.vector * (1 - beta) if mean is None else beta * mean + (1 - beta) * state.vector
        tokens_read += tokens.shape[0] * tokens.shape[1]
        if step in snapshots:
            loss = float(backend.xp.to_numpy(metrics.loss))
            if not abs(loss) < float("inf"):
                raise ValueError(f"the loss is {loss} at step {step}: training diverged; lower its learning rate.")
            yield Snapshot(step, tokens_read, _kept(state.vector, learns.layout), _kept(mean, learns.layout))


def spread(name: str, config: Any, seed: int, gain: float) -> dict[str, Any]:
    """First weights that keep a vector's length in narrow models too: matrices with standard deviation gain/√(their inputs)
    (LeCun et al. 1998), tables with 0.1. The usual 0.02 suits widths near a thousand (Radford 2019).

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


def _kept(vector: Any, layout: Layout) -> dict[str, Any]:
    """The parameters of a vector that the next step may overwrite."""
    return unpack(vector * 1, layout)
