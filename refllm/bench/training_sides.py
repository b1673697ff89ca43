"""Training steps to time: ours, and torch's in plain eager code."""

import time
from collections.abc import Callable

import numpy as np

from refllm.array_api import generator, load
from refllm.bench.shapes import BETAS, CLIP, EPS, LEARNING_RATE, SEED, WEIGHT_DECAY, Shape
from refllm.bench.side import Side
from refllm.models import architecture


def batch(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens and their successors, (B, T) each: the time of a step does not depend on what they are."""
    tokens = generator(SEED, "bench").integers(0, shape.config.vocab_size, (shape.rows, shape.context + 1), dtype=np.int64)
    return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def timed_steps(step: Callable[[], tuple[float, float]], shape: Shape) -> Side:
    """A side that trains. step: one update, which returns the loss and the gradient's norm"""

    def first():
        loss, norm = step()
        return {"loss": loss, "gradient_norm": norm}

    def run():
        began = time.perf_counter()
        for _ in range(shape.steps):
            step()
        return {"step": (time.perf_counter() - began) / shape.steps}

    return Side(first, run)


def ours(shape: Shape) -> Side:
    from refllm.training.config import TrainingConfig
    from refllm.training.step import first_state, learner, train_step

    training = TrainingConfig(
        context=shape.context,
        batch=shape.rows,
        steps=1,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        beta1=BETAS[0],
        beta2=BETAS[1],
        eps=EPS,
        weight_decay=WEIGHT_DECAY,
        clip=CLIP,
        seed=SEED,
    )
    learns = learner(architecture(shape.architecture), shape.config, training)
    backend = load()
    state = first_state(learns, backend)
    tokens, targets = (backend.xp.from_numpy(a.astype(np.int32)) for a in batch(shape))

    def step():
        nonlocal state
        state, metrics = train_step(state, [(tokens, targets)], learns)
        return float(metrics.loss), float(metrics.gradient_norm)

    return timed_steps(step, shape)


def torchs(shape: Shape, fused: bool = False) -> Side:
    import torch

    from refllm.bench import torch_peer

    params = architecture(shape.architecture).initialise(shape.config, SEED)
    model = torch_peer.build(shape.architecture, shape.config, params)
    adamw = torch_peer.optimizer(model, fused)
    tokens, targets = map(torch.from_numpy, batch(shape))
    return timed_steps(lambda: torch_peer.training_step(model, adamw, tokens, targets), shape)


SIDES = {"refllm": ours, "torch": torchs}
