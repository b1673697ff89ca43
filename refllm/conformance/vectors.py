"""The specification's vectors, carried out: an op on a backend, held to what an outside implementation computed in float64.

The expected numbers are the file's. How far a result may lie from them is the bound of spec/accuracy.md for these very inputs,
which `bounded` computes; in float64, where a result can only be wrong by its last digits, 1e-12 of the tensor's largest.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend, namespace
from refllm.decoding import sampling
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import decode, prefill
from refllm.layers.attention import Mask
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.rope import RopeScaling
from refllm.models import architecture
from refllm.models.model import Model
from refllm.training import adamw, schedule
from refllm.training.config import TrainingConfig
from refllm.training.flat import pack, unpack
from refllm.training.step import State, learner, train_step

from .bounded import FLOATS
from .check import Check
from .comparison import carried, to_half
from .specification import Case, cases, definitions, pages
from .training_checks import LOSS_BOUND

EXACT = 1e-12  # the largest error in float64, relative to the tensor's largest number, or to 1 where all are smaller


def all_cases() -> list[Case]:
    """Every case of every page, in the order of the pages."""
    files: dict[Path, None] = {path: None for page in pages().values() for path in page.vectors}
    return [case for path in files for case in cases(path)]


# Layers: any pair f, f_backward


def home(op: str) -> str:
    """The module of refllm that holds the op a page defines: spec/layers/rope.md speaks of refllm.layers.rope."""
    owner = next((p.name for p in pages().values() for block in p.definitions if f"def {op}(" in block.code), None)
    if owner is None or op not in definitions():
        raise ValueError(f"no page of the specification defines {op!r}.")
    return f"refllm.{owner.replace('/', '.')}"


def parameters(op: str) -> list[str]:
    """The names of an op's arguments in refllm, in order."""
    return list(inspect.signature(getattr(importlib.import_module(home(op)), op)).parameters)


CONSTANTS = ("tokens", "targets", "ignore_index", "eps", "mask", "scale", "block", "cos", "sin", "uniforms", "rate", "activation")


def differentiated(op: str) -> list[str]:
    """The names of the gradients that a layer's backward returns, in order."""
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


def layer(op: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """A layer's y, and with `dy` among the inputs the gradient of each argument that has one, as dx, dweight, …"""
    module = importlib.import_module(home(op))
    arguments = [inputs[n] for n in parameters(op) if n in inputs]
    y, saved = getattr(module, op)(*(Mask(**a) if isinstance(a, dict) else a for a in arguments))
    if "dy" not in inputs:
        return {"y": y}
    gradients = getattr(module, f"{op}_backward")(inputs["dy"], saved)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return {"y": y} | dict(zip(differentiated(op), gradients, strict=True))


# Everything else


def model_config(name: str, fields: dict[str, Any]) -> Any:
    """The Config of an architecture from a vector's plain fields."""
    if scaling := fields.get("rope_scaling"):
        fields = fields | {"rope_scaling": RopeScaling(**scaling)}
    return architecture(name).Config(**fields)


def model(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Logits, loss, and the gradient of every parameter."""
    module = architecture(name)
    output = module.forward(inputs["params"], inputs["tokens"], model_config(name, inputs["config"]))
    loss, judged = cross_entropy(output.logits, inputs["targets"])
    dlogits = cross_entropy_backward(namespace(loss).ones_like(loss), judged)
    gradients = module.backward(dlogits, output.saved)
    return {"logits": output.logits, "loss": loss} | {f"d{n}": g for n, g in gradients.items()}


def greedy_decoding(inputs: dict[str, Any], n_tokens: int = 5) -> dict[str, Any]:
    """A ragged batch read at once and continued from the cache: each step's logits and greedy tokens."""
    name, tokens, valid = inputs["architecture"], inputs["tokens"], inputs["valid"]
    m = Model(architecture(name), model_config(name, inputs["config"]), inputs["params"])
    logits, cache = prefill(m, tokens, new_cache(m, tokens.shape[0], tokens.shape[1] + n_tokens), valid)
    steps, chosen = [logits], [sampling.greedy(logits)]
    for _ in range(n_tokens - 1):
        logits, cache = decode(m, chosen[-1][:, None], cache)
        steps, chosen = [*steps, logits], [*chosen, sampling.greedy(logits)]
    xp = namespace(logits)
    return {"tokens": xp.stack(chosen, axis=1), "logits": xp.stack(steps, axis=1)}


def adamw_update(inputs: dict[str, Any]) -> dict[str, Any]:
    updated = adamw.adamw_update(*(inputs[n] for n in parameters("adamw_update")))
    return dict(zip(("parameters", "mean", "square"), updated, strict=True))


def clip(inputs: dict[str, Any]) -> dict[str, Any]:
    norm = adamw.global_norm(inputs["vector"])
    return {"norm": norm, "clipped": adamw.clip(inputs["vector"], norm, inputs["limit"])}


def learning_rates(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"rates": np.asarray([schedule.learning_rate(step, **inputs) for step in range(inputs["steps"])])}


def training_steps(inputs: dict[str, Any]) -> dict[str, Any]:
    """Losses, gradient norms, and the parameters in the end. A batch (A, B, T) is A micro-batches."""
    name, embedding = inputs["architecture"], inputs["params"]["embedding"]
    xp = namespace(embedding)
    dtype = "float64" if "float64" in xp.dtypes() and embedding.dtype == xp.float64 else "float32"
    pupil = learner(architecture(name), model_config(name, inputs["config"]), TrainingConfig(**inputs["training"], dtype=dtype))
    vector = pack(inputs["params"], pupil.layout)
    state = State(vector, xp.zeros_like(vector), xp.zeros_like(vector), 0)
    losses: list = []
    norms: list = []
    for batch in inputs["batches"]:
        tokens, targets = batch["tokens"], batch["targets"]
        state, metrics = train_step(state, [(tokens[i, ...], targets[i, ...]) for i in range(tokens.shape[0])], pupil)
        losses, norms = [*losses, metrics.loss], [*norms, metrics.gradient_norm]
    return {"losses": xp.stack(losses), "norms": xp.stack(norms)} | unpack(state.vector, pupil.layout)


def kept(cut: Callable) -> Callable:
    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        logits, limit = inputs.values()
        return {"kept": namespace(logits).isfinite(cut(logits, limit))}

    return run


def sampled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"tokens": sampling.sample(inputs["logits"], inputs["uniforms"], sampling.Sampler(**inputs["sampler"]))}


RUNNERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "gpt2": lambda inputs: model("gpt2", inputs),
    "llama": lambda inputs: model("llama", inputs),
    "decode": greedy_decoding,
    "adamw_update": adamw_update,
    "clip": clip,
    "learning_rate": learning_rates,
    "train_step": training_steps,
    "top_k": kept(sampling.top_k),
    "top_p": kept(sampling.top_p),
    "sample": sampled,
}
WHOLE = ("gpt2", "llama", "decode")  # held to the scatter of their results under random rounding


def run(op: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """An op's results by name, on the backend of its inputs."""
    return RUNNERS[op](inputs) if op in RUNNERS else layer(op, inputs)


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
