"""Small transformers for characters, as experiments on one text share them."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from refllm.array_api import generator, load
from refllm.lab.experiments import sweep
from refllm.lab.running.learn import Batch, Snapshot, learn
from refllm.models import architecture
from refllm.training.config import TrainingConfig

ARCHITECTURE = sweep.ARCHITECTURE
RATE, WIDTH, POWER = 4e-3, 24, -0.71  # a learning rate that does well at one width, and how it falls with the width


def pieces(ids: np.ndarray, length: int, seed: int) -> np.ndarray:
    """A text's whole pieces of this length, in a random order: (n, length)."""
    found = ids[: len(ids) // length * length].reshape(-1, length)
    return found[generator(seed, "pieces").permutation(len(found))]


def training(width: int, steps: int, batch: int, context: int, seed: int) -> TrainingConfig:
    """How a model of a width learns: the sweep's recipe with a learning rate of this width."""
    rate = min(1e-2, RATE * (width / WIDTH) ** POWER)
    return sweep.training_of(sweep.Task(width, seed, rate, steps, sweep.Settings(batch=batch, context=context)))


def learned(
    config: Any, batch: int, context: int, seed: int, batch_at: Callable[[int], Batch], steps: Collection[int]
) -> Iterator[Snapshot]:
    """A model after each of these steps, which learns from `batch` windows of `context` characters at a time."""
    recipe = training(config.d_model, max(steps), batch, context, seed)
    return learn(ARCHITECTURE, config, recipe, batch_at, steps, gain=sweep.Settings.gain)


def probabilities(params: Any, config: Any, tokens: np.ndarray, rows: int = 64) -> np.ndarray:
    """What a model expects after each token of windows (B, T): (B, T, V) float64."""
    xp, model, found = load().xp, architecture(ARCHITECTURE), []
    for i in range(0, len(tokens), rows):
        output = model.forward(params, xp.from_numpy(tokens[i : i + rows]), config, checkpointing=True)
        logits = xp.to_numpy(output.logits).astype(np.float64)
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        found.append(p / p.sum(axis=-1, keepdims=True))
    return np.concatenate(found)
