"""The specification's vectors: ops on a backend, held to what an outside implementation computed in float64.

The expected numbers are the file's. How far a result may lie from them is the bound of spec/accuracy.md for these very inputs,
which `bounded` computes; in float64, where a result can only be wrong by its last digits, 1e-12 of the tensor's largest.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend

from .bounded import FLOATS
from .check import Check
from .comparison import carried, to_half
from .runners import WHOLE, run
from .specification import pages
from .training_checks import LOSS_BOUND

EXACT = 1e-12  # the largest error in float64, relative to the tensor's largest number, or to 1 where all are smaller


class Case(NamedTuple):
    """One case of an op's vectors, its arrays in NumPy.

    op: the op's name    inputs: its arguments by name, and `dy` where gradients are given    outputs: y, dx, … by name
    """

    op: str
    name: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


def from_json(value: Any) -> Any:
    """An array from {"dtype", "shape", "values"}, in the folders of dicts and lists around it too."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "values"}:
        return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
    if isinstance(value, dict):
        return {key: from_json(v) for key, v in value.items()}
    if isinstance(value, list):
        return [from_json(v) for v in value]
    return value


def to_json(value: Any) -> Any:
    """The inverse of `from_json`; NamedTuples become dicts."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return {"dtype": array.dtype.name, "shape": list(array.shape), "values": array.reshape(-1).tolist()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {key: to_json(v) for key, v in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {key: to_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return value


def cases(path: Path) -> list[Case]:
    """The cases of one file of vectors."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [
        Case(case["op"], f"{path.stem}[{i}]", from_json(case["inputs"]), from_json(case["outputs"]))
        for i, case in enumerate(content["cases"])
    ]


def all_cases() -> list[Case]:
    """Every case of every page, in the order of the pages."""
    files: dict[Path, None] = {path: None for page in pages().values() for path in page.vectors}
    return [case for path in files for case in cases(path)]


# Bounds and errors


def narrowed(value: Any) -> Any:
    """Arrays of float64 as float32 and of int64 as int32; a vector's inputs are exact in both."""
    if isinstance(value, np.ndarray):
        return value.astype({"f": np.float32, "i": np.int32}.get(value.dtype.kind, value.dtype))
    if isinstance(value, Mapping):
        return {key: narrowed(v) for key, v in value.items()}
    return [narrowed(v) for v in value] if isinstance(value, list) else value


def wide(value: Any) -> Any:
    """Inputs for NumPy in float64, copied; integers in int32, as in every backend."""
    if isinstance(value, np.ndarray):
        return np.array(value, dtype=np.int32 if value.dtype.kind == "i" else value.dtype)
    if isinstance(value, Mapping):
        return {key: wide(v) for key, v in value.items()}
    return [wide(v) for v in value] if isinstance(value, list) else value


def is_exact(value: Any, dtype: str) -> bool:
    """Whether a dtype holds every floating input exactly; float32 and float64 always do."""
    if dtype not in ("float16", "bfloat16"):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or np.array_equal(to_half(value.astype(np.float32), dtype), value)
    if isinstance(value, Mapping):
        return all(is_exact(v, dtype) for v in value.values())
    return not isinstance(value, list) or all(is_exact(v, dtype) for v in value)


def bounds(case: Case, dtype: str) -> dict[str, Any]:
    """How far each result may lie from the vector's, element by element: 0 for discrete results, ∞ where there is no bound."""
    size = {name: max(1.0, float(np.max(np.abs(y), initial=0.0))) for name, y in case.outputs.items()}
    discrete = {name: np.asarray(y).dtype.kind != "f" for name, y in case.outputs.items()}
    if dtype == "float64" or case.op == "learning_rate":  # the rate is a number of the host
        found = {name: EXACT * size[name] for name in case.outputs}
    elif case.op == "train_step":  # AdamW divides by a root that may be near zero, so single weights have no bound
        found = {name: LOSS_BOUND * np.abs(y) if name in ("losses", "norms") else np.inf for name, y in case.outputs.items()}
    else:
        check = Check(case.op, "", st.nothing(), lambda backend, inputs: run(case.op, inputs), whole=case.op in WHOLE)
        with np.errstate(all="ignore"):  # 0 · ∞ beside what a mask hides; the bounds that come out are finite
            oracle = check.oracle(narrowed(case.inputs), dtype)
        found = {name: oracle[name].error + FLOATS[dtype].smallest_normal for name in case.outputs}
    return {name: 0.0 if discrete[name] else bound for name, bound in found.items()}


def shares(case: Case, found: Mapping[str, Any], dtype: str) -> dict[str, float]:
    """Each result's worst error as a share of its bound: at most 1 where it is right, ∞ for NaN, a wrong shape or none at all.

    found: NumPy arrays, or nested lists, by the names of the case's outputs
    """
    worst = {}
    for (name, expected), bound in zip(case.outputs.items(), bounds(case, dtype).values(), strict=True):
        y, expected = np.asarray(found.get(name)), np.asarray(expected)
        if y.shape != expected.shape or y.dtype.kind not in "bifu":
            worst[name] = np.inf
            continue
        error = np.abs(y.astype(np.float64) - expected.astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(error == 0, 0.0, np.where(np.isinf(bound), 0.0, error / bound))
        worst[name] = float(np.max(np.where(np.isnan(share + error), np.inf, share), initial=0.0))
    return worst


def held(case: Case, backend: Backend, dtype: str) -> dict[str, float]:
    """A case on a backend, and each result's worst error as a share of its bound."""
    inputs = wide(case.inputs) if dtype == "float64" else carried(narrowed(case.inputs), backend, dtype)
    found = run(case.op, inputs)
    return shares(case, {n: backend.xp.to_numpy(y) if isinstance(y, backend.array_type) else y for n, y in found.items()}, dtype)
