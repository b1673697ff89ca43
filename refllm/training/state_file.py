"""training_state.safetensors: all that a run needs to go on, in one file that is replaced in one step.

The tensors are vector, mean and square; the metadata says after which step, how they are laid out, and the best loss so far.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from refllm.array_api import Backend, namespace
from refllm.checkpoints import tensor_file
from refllm.checkpoints.tensor_file import Tensor
from refllm.training.flat import Layout
from refllm.training.step import State

NAMES = ("vector", "mean", "square")  # the tensors, the first fields of a State


class Best(NamedTuple):
    """The evaluation with the lowest held-out loss so far."""

    loss: float = math.inf  # nats per token
    step: int = 0


def save(path: Path, state: State, layout: Layout, best: Best) -> None:
    """Write the state, whole or not at all. Raises OSError, the old file being unchanged."""
    to_numpy = namespace(state.vector).to_numpy
    dtype = "F64" if namespace(state.vector).finfo(state.vector.dtype).bits == 64 else "F32"
    tensors = {
        name: Tensor(dtype, tuple(x.shape), lambda x=x: to_numpy(x))  # type: ignore[misc]  # binds x now; mypy wants no default
        for name, x in zip(NAMES, state[:3], strict=True)
    }
    about = {"step": str(state.step), "best_loss": repr(best.loss), "best_step": str(best.step), "layout": _spell(layout)}
    tensor_file.write(path, tensors, about)


def load(path: Path, layout: Layout, dtype: str, backend: Backend) -> tuple[State, Best]:
    """The state in a file, in a backend.

    Raises ValueError for a file that is damaged or was written for other parameters or another dtype.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in NAMES}
        step, best = int(about["step"]), Best(float(about["best_loss"]), int(about["best_step"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole training state ({error}); put back a copy of it, or start a new run in another folder. "
            "The models saved in the folder are files of their own."
        ) from error
    if about.get("layout") != _spell(layout):
        raise ValueError(f"{path} holds other parameters than [model] in run.toml describes; put run.toml back as it was.")
    if tensors["vector"].dtype.name != dtype:
        raise ValueError(f"{path} holds {tensors['vector'].dtype.name}, but training.dtype in run.toml needs {dtype}.")
    vector, mean, square = (backend.xp.from_numpy(tensors[name]) for name in NAMES)
    return State(vector, mean, square, step), best


def _spell(layout: Layout) -> str:
    return json.dumps({name: list(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)})
