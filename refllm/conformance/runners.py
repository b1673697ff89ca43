"""Every op of the specification's vectors, carried out by refllm on the backend of its inputs: inputs and results by name."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from refllm.array_api import namespace
from refllm.decoding import cuts, penalties, sampling
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import decode, prefill
from refllm.layers.attention import Mask
from refllm.layers.cached_attention import cached_attention
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from refllm.models import architecture
from refllm.models.model import Model
from refllm.training import adamw, schedule
from refllm.training.config import TrainingConfig
from refllm.training.flat import pack, unpack
from refllm.training.step import State, learner, train_step

from .specification import definitions, pages

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
        "valid",
        "top_k",
        "cap",
        "softcap",
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


SCALINGS = {"linear": LinearScaling, "llama3": Llama3Scaling, "yarn": YarnScaling}


def model_config(name: str, fields: dict[str, Any]) -> Any:
    """The Config of an architecture from a vector's plain fields."""
    if scaling := fields.get("rope_scaling"):
        fields = fields | {"rope_scaling": SCALINGS[scaling["kind"]](**{k: v for k, v in scaling.items() if k != "kind"})}
    if full := fields.get("full_layers"):
        fields = fields | {"full_layers": tuple(full)}
    return architecture(name).Config(**fields)


def model(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Logits, loss, and the gradient of every parameter."""
    module, how = architecture(name), {n: inputs[n] for n in ("valid", "token_types") if n in inputs}
    output = module.forward(inputs["params"], inputs["tokens"], model_config(name, inputs["config"]), **how)
    loss, judged = cross_entropy(output.logits, inputs["targets"])
    dlogits = cross_entropy_backward(namespace(loss).ones_like(loss), judged)
    loss = loss if output.auxiliary is None else loss + output.auxiliary
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


def repetition(inputs: dict[str, Any]) -> dict[str, Any]:
    seen = penalties.count_tokens(inputs["tokens"], inputs["logits"].shape[-1]) > 0
    return {"y": penalties.repetition(inputs["logits"], seen, inputs["penalty"])}


def no_repeat_ngram(inputs: dict[str, Any]) -> dict[str, Any]:
    left = penalties.no_repeat_ngram(inputs["logits"], inputs["tokens"], inputs["n"])
    return {"kept": namespace(left).isfinite(left)}


def sampled(inputs: dict[str, Any]) -> dict[str, Any]:
    tokens, _ = sampling.sample(inputs["logits"], inputs["uniforms"], sampling.Sampler(**inputs["sampler"]))
    return {"tokens": tokens}


def cached(inputs: dict[str, Any]) -> dict[str, Any]:
    """Attention over blocks, which has no backward."""
    q, keys, values, mask, scale, softcap = (inputs[n] for n in parameters("cached_attention"))
    return {"y": cached_attention(q, keys, values, Mask(**mask), scale, softcap)}


RUNNERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bert": lambda inputs: model("bert", inputs),
    "gemma": lambda inputs: model("gemma", inputs),
    "gpt2": lambda inputs: model("gpt2", inputs),
    "llama": lambda inputs: model("llama", inputs),
    "mixtral": lambda inputs: model("mixtral", inputs),
    "cached_attention": cached,
    "decode": greedy_decoding,
    "adamw_update": adamw_update,
    "clip": clip,
    "learning_rate": learning_rates,
    "train_step": training_steps,
    "top_k": kept(cuts.top_k),
    "top_p": kept(cuts.top_p),
    "min_p": kept(cuts.min_p),
    "typical": kept(cuts.typical),
    "epsilon_cut": kept(cuts.epsilon_cut),
    "eta_cut": kept(cuts.eta_cut),
    "repetition": repetition,
    "no_repeat_ngram": no_repeat_ngram,
    "sample": sampled,
}
WHOLE = ("bert", "gemma", "gpt2", "llama", "mixtral", "decode")  # held to the scatter of their results under random rounding


def run(op: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """An op's results by name, on the backend of its inputs."""
    return RUNNERS[op](inputs) if op in RUNNERS else layer(op, inputs)
