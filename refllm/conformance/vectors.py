"""The specification's vectors, carried out: the same op, its inputs and upstream gradient on a backend, held to what an outside
implementation computed in float64.

The expected numbers are the file's. How far a result may lie from them is the bound of spec/accuracy.md for these very inputs,
carried through by `bounded`; in float64, where a result can only be wrong by its last digits, 1e-12 of the tensor's largest.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import Backend, kernels, load
from refllm.layers.attention import Mask

from . import bounded
from .comparison import to_half
from .specification import Case, cases, definitions, pages

EXACT = 1e-12  # the largest error in float64, relative to the tensor's largest number or to 1


def all_cases() -> list[Case]:
    """Every case of every page, in the order of the pages."""
    files: dict[Path, None] = {path: None for page in pages().values() for path in page.vectors}
    return [case for path in files for case in cases(path)]


def home(op: str) -> str:
    """The module of refllm that holds the op a page defines: spec/layers/rope.md speaks of refllm.layers.rope."""
    owner = next((p.name for p in pages().values() for block in p.definitions if f"def {op}(" in block.code), None)
    if owner is None or op not in definitions():
        raise ValueError(f"no page of the specification defines {op!r}.")
    return f"refllm.{owner.replace('/', '.')}"


def carried(value: Any, backend: Backend, dtype: str) -> Any:
    """Inputs with every array made one of the backend: floating ones in dtype, integers in int32."""
    if isinstance(value, np.ndarray):
        xp = backend.xp
        if value.dtype.kind == "b":
            return xp.from_numpy(value)
        if value.dtype.kind != "f":
            return xp.from_numpy(value.astype(np.int32))
        if dtype == "float64":
            return xp.from_numpy(value)
        narrow = value.astype(np.float32)
        return xp.from_numpy(narrow if dtype == "float32" else to_half(narrow, dtype), dtype=getattr(xp, dtype))
    if isinstance(value, Mapping):
        return {key: carried(v, backend, dtype) for key, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(carried(v, backend, dtype) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(carried(v, backend, dtype) for v in value)
    return value


def run_layer(op: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """A layer's y, and with `dy` among the inputs the gradient of each argument that has one, as dx, dweight, …"""
    module = importlib.import_module(home(op))
    forward = getattr(module, op)
    names = [n for n in parameters(op) if n in inputs]
    y, saved = forward(*(Mask(**inputs[n]) if n == "mask" else inputs[n] for n in names))
    if "dy" not in inputs:
        return {"y": y}
    gradients = getattr(module, f"{op}_backward")(inputs["dy"], saved)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return {"y": y} | dict(zip(differentiated(op), gradients, strict=True))


def differentiated(op: str) -> list[str]:
    """The names of the gradients that an op's backward returns, in order."""
    constant = (
        "eps",
        "mask",
        "scale",
        "block",
        "tokens",
        "targets",
        "ignore_index",
        "cos",
        "sin",
        "uniforms",
        "rate",
        "activation",
    )
    return [f"d{n}" for n in parameters(op) if n not in constant]


def parameters(op: str) -> list[str]:
    """The names of an op's arguments in refllm, in order."""
    return list(inspect.signature(getattr(importlib.import_module(home(op)), op)).parameters)


RUNNERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # ops that are more than a layer's pair of functions


def run(case: Case, backend: Backend, dtype: str) -> dict[str, Any]:
    """A case's op on a backend: its results by name, in arrays of the backend."""
    inputs = carried(case.inputs, backend, dtype)
    if case.op in RUNNERS:
        return RUNNERS[case.op](inputs)
    return run_layer(case.op, inputs)


def bounds(case: Case, dtype: str) -> dict[str, Any]:
    """How far each result may lie from the vector's, element by element; None for results that must be equal."""
    if dtype == "float64":
        return {name: _exactly(y) for name, y in case.outputs.items()}
    with kernels(bounded.backend, {}):
        oracle = run(case, bounded.backend, dtype)
    smallest = bounded.FLOATS[dtype].smallest_normal
    return {name: oracle[name].error + smallest if _floating(y) else None for name, y in case.outputs.items()}


def _floating(y: Any) -> bool:
    return np.asarray(y).dtype.kind == "f"


def _exactly(y: Any) -> Any:
    return EXACT * max(1.0, float(np.max(np.abs(y), initial=0.0))) if _floating(y) else None


def shares(case: Case, found: Mapping[str, Any], dtype: str) -> dict[str, float]:
    """Each result's worst error as a share of its bound: at most 1 where it is right, ∞ for NaN, a wrong shape or none at all.

    found: NumPy arrays, or nested lists, by the names of the case's outputs
    """
    worst = {}
    for (name, expected), bound in zip(case.outputs.items(), bounds(case, dtype).values(), strict=True):
        y, expected = np.asarray(found.get(name)), np.asarray(expected)
        if y.shape != expected.shape or y.dtype == object:
            worst[name] = np.inf
        elif bound is None:
            worst[name] = 0.0 if np.array_equal(y, expected) else np.inf
        else:
            share = np.abs(y.astype(np.float64) - expected) / bound
            worst[name] = float(np.max(np.where(np.isnan(share), np.inf, share), initial=0.0))
    return worst


def held(case: Case, backend: Backend | str, dtype: str) -> dict[str, float]:
    """A case on a backend, and each result's worst error as a share of its bound."""
    backend = load(backend)
    found = {name: backend.xp.to_numpy(y) for name, y in run(case, backend, dtype).items()}
    return shares(case, found, dtype)
