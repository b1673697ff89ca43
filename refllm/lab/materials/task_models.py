"""Small models that are trained on a task, and their outcomes on it."""

import math
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import load
from refllm.lab.materials.tasks import Outcomes, Task, judge
from refllm.lab.running.learn import learn
from refllm.models import accounting, architecture
from refllm.training.config import TrainingConfig

ARCHITECTURE = "gpt2"


class Recipe(NamedTuple):
    """How a model is made and trained."""

    width: int
    layers: int = 2
    steps: int = 1500
    batch: int = 64
    seed: int = 0
    rate: float = 3e-3  # the learning rate at width 64; it grows as 1/√width
    items: int = 2000


class Trained(NamedTuple):
    """A model, and what it cost."""

    config: Any
    params: Any
    parameters: accounting.Parameters
    training_flops: float
    flops_per_token: float  # forward


def training_of(recipe: Recipe, context: int) -> TrainingConfig:
    """The training configuration of a recipe."""
    r = recipe
    return falling(min(1e-2, r.rate * math.sqrt(64 / r.width)), r.steps, r.batch, context, r.seed)


def falling(rate: float, steps: int, batch: int, context: int, seed: int) -> TrainingConfig:
    """AdamW at a constant learning rate that falls to a fiftieth over the last third, without weight decay."""
    return TrainingConfig(
        context=context,
        batch=batch,
        steps=steps,
        learning_rate=rate,
        schedule="wsd",
        warmup_steps=min(50, steps // 4),
        decay_steps=max(1, steps // 3),
        final_fraction=0.02,
        beta2=0.98,
        weight_decay=0.0,
        seed=seed,
    )


def train(task: Task, recipe: Recipe) -> Trained:
    """Train a model on a task."""
    r, model = recipe, architecture(ARCHITECTURE)
    heads = max(2, r.width // 8)
    config = model.Config(task.vocab_size, r.width - r.width % heads, r.layers, heads, task.context, 4 * r.width)
    training = training_of(r, task.context)
    (snapshot,) = learn(ARCHITECTURE, config, training, lambda step: task.batch(r.seed, step, r.batch), [r.steps], gain=1.0)
    flops = accounting.forward_flops(model, config, (task.context + 1) // 2)
    return Trained(config, snapshot.raw, accounting.parameters(model, config), flops.training * snapshot.tokens, flops.total)


def outcomes(task: Task, trained: Trained, items: int) -> Outcomes:
    """The outcomes of a model on so many of a task's items."""
    xp, model = load().xp, architecture(ARCHITECTURE)

    def logits_of(tokens: np.ndarray) -> np.ndarray:
        return xp.to_numpy(model.forward(trained.params, xp.from_numpy(tokens), trained.config, checkpointing=True).logits)

    return judge(task, task.items(items), logits_of)
