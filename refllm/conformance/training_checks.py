"""The optimizer, held to the bounded oracle, and twenty training steps, held to a float64 run on NumPy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend, kernels, load
from refllm.models import architecture
from refllm.training.adamw import adamw_update, clip, global_norm
from refllm.training.config import TrainingConfig
from refllm.training.step import first_state, learner, train_step

from .bounded import FLOATS, Bounded
from .check import Check
from .comparison import carried
from .strategies import normals, seeds

STEPS = 20
LOSS_BOUND = 1e-5  # relative, of each of the twenty losses: spec/accuracy.md


@st.composite
def _update(draw):
    """Parameters, gradients and moments of one vector, the second moment away from zero, where the root is rough."""
    P = draw(st.integers(1, 40))
    square = np.abs(draw(normals((P,)))) + np.float32(0.1)
    numbers = (draw(normals((P,))), draw(normals((P,))), draw(normals((P,))), square)
    return (*numbers, draw(st.integers(1, 1000)), draw(st.integers(0, P)))


def _adamw(backend: Backend, drawn):
    vector, grads, mean, square, step, n_decayed = drawn
    new = adamw_update(vector, grads, mean, square, step, 1e-2, 0.9, 0.95, 1e-8, 0.1, n_decayed)
    return dict(zip(("parameters", "mean", "square"), new, strict=True))


def _clipped(backend: Backend, drawn):
    (vector,) = drawn
    norm = global_norm(vector)
    return {"global_norm": norm, "clip": clip(vector, norm, 1.0)}


def _losses(architecture_name: str, config: Any, backend: Backend, drawn: Any, dtype: str):
    """The losses of twenty steps on one batch."""
    seed, tokens = drawn
    training = TrainingConfig(context=8, batch=4, steps=STEPS, learning_rate=1e-2, warmup_steps=5, seed=seed, dtype=dtype)
    pupil = learner(architecture(architecture_name), config, training)
    state, losses = first_state(pupil, backend), []
    for _ in range(STEPS):
        state, metrics = train_step(state, [(tokens[:, :-1], tokens[:, 1:])], pupil)
        losses.append(metrics.loss)
    return backend.xp.stack(losses)


@dataclass(frozen=True)
class TrainingRun(Check):
    """Twenty losses. The oracle is the same run on NumPy in float64, from the same weights and batches."""

    exact: Callable[[Backend, Any], Any] = field(kw_only=True)

    def oracle(self, drawn: Any, dtype: str = "float32") -> dict[str, Bounded]:
        numpy = load("numpy")
        with kernels(numpy, {}):
            losses = self.exact(numpy, carried(drawn, numpy, dtype))
        return {"losses": Bounded(losses, LOSS_BOUND * np.abs(losses), FLOATS["float32"])}


def _run(name: str, config: Any) -> TrainingRun:
    return TrainingRun(
        f"{name}: twenty training steps",
        "training",
        _tokens(config.vocab_size),
        lambda backend, drawn: {"losses": _losses(name, config, backend, drawn, "float32")},
        halves=False,
        exact=lambda backend, drawn: _losses(name, config, backend, drawn, "float64"),
    )


def _tokens(vocab_size: int):
    rows = st.builds(lambda seed: np.random.default_rng(seed).integers(0, vocab_size, (4, 9)).astype(np.int32), seeds)
    return st.tuples(st.integers(0, 1000), rows)


LLAMA = architecture("llama").Config(13, 12, 2, 2, 1, 6, 16, 16)
GPT2 = architecture("gpt2").Config(13, 12, 2, 2, 16, 24)

CHECKS = [
    Check("adamw_update", "training", _update(), _adamw, halves=False),
    Check("global_norm", "training", normals((33,), scale=3.0).map(lambda x: (x,)), _clipped, halves=False),
    _run("llama", LLAMA),
    _run("gpt2", GPT2),
]
