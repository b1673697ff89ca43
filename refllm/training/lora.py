"""Low-rank adapters: Hu et al. 2021, arXiv:2106.09685, equation 3.

    W' = W + s · A B          s = alpha / r, or alpha / √r (Kalajdzievski 2023, arXiv:2312.03732)

W, (in, out), is frozen; A, (in, r), and B, (r, out), are learned. B is zero at first, so training begins at the model as it was.

The architecture's own forward and backward run on W', and the product rule carries dW' on to A and B: so every architecture
can be adapted, its cached decoding too. What it costs beside the passes of full training is a product of A and B, and two of dW'
with them, for each adapted matrix. What it saves is memory: the weights in float32, their two moments and the sum of their
gradients are kept for A and B alone. A lazy backend computes no gradient that is not asked for, dW of the other matrices among
them; elsewhere they are computed and dropped. Nothing is put on x alone, so there is no dropout of an adapter's input.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from refllm.array_api import generator, load, namespace
from refllm.layers.precision import narrow, widen
from refllm.models.parameters import Shapes
from refllm.models.sequence import Output
from refllm.training.config import LoraConfig

A, B = ".lora_a", ".lora_b"  # what the names of an adapter's two parts add to the name of the matrix
ALL = "all-linear"  # the target that stands for every matrix of the blocks, as in PEFT


def adapted_weight(weight, a, b, scale):
    """Add an adapter to a matrix.

    weight: (..., D, F), not learned    a: (..., D, r)    b: (..., r, F)    scale: s
    Returns the adapted weight: (..., D, F), and what the backward pass needs.
    """
    product = namespace(a).matmul(widen(a), widen(b))
    return narrow(widen(weight) + scale * product, weight), (a, b, scale)


def adapted_weight_backward(dweight, saved):
    """Return da: (..., D, r) and db: (..., r, F), given the gradient of the adapted weight: (..., D, F).

    W'_df = W_df + s · Σ_r A_dr B_rf, hence   dA = s · dW' Bᵀ   and   dB = s · Aᵀ dW'.
    """
    a, b, scale = saved
    xp = namespace(dweight)
    dweight = widen(dweight)
    da = scale * xp.matmul(dweight, xp.matrix_transpose(widen(b)))
    db = scale * xp.matmul(xp.matrix_transpose(widen(a)), dweight)
    return narrow(da, a), narrow(db, b)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A trained model as an architecture of its own, whose parameters are the adapters of some of its matrices.

    What is not said here, it answers as the architecture that it adapts.
    """

    architecture: ModuleType
    frozen: Mapping[str, Any]  # its parameters, all of one backend and dtype, which are never written to
    names: tuple[str, ...]  # of those that are adapted
    rank: int
    scale: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.architecture, name)

    def parameter_shapes(self, config: Any) -> Shapes:
        """Each adapter's A and B."""
        return adapter_shapes(self.architecture.parameter_shapes(config), self.names, self.rank)

    def initialise(self, config: Any, seed: int) -> dict[str, Any]:
        """First values, float32 NumPy arrays: A uniform in ±1/√in, as Hu et al.'s code (loralib) draws it, and B zero."""
        xp = load("numpy").xp
        values = {}
        for i, (name, shape) in enumerate(self.parameter_shapes(config).items()):
            if name.endswith(A):
                uniform = generator(seed, "lora", i).random(shape, dtype="float32")
                values[name] = xp.astype((2 * uniform - 1) / math.sqrt(shape[-2]), xp.float32)
            else:
                values[name] = xp.zeros(shape, dtype=xp.float32)
        return values

    def forward(self, params: Mapping[str, Any], tokens, config: Any, *further, **settings) -> Output:
        """The architecture's forward with the adapted weights. params: every A and B"""
        adapted, saved = self.adapted(params)
        output = self.architecture.forward(adapted, tokens, config, *further, **settings)
        return output._replace(saved=(output.saved, saved))

    def backward(self, dlogits, saved, *further) -> dict[str, Any]:
        """The gradients of every A and B. The frozen parameters' are dropped."""
        passed, weights = saved
        dparams = self.architecture.backward(dlogits, passed, *further)
        grads = {}
        for name in self.names:
            grads[name + A], grads[name + B] = adapted_weight_backward(dparams.pop(name), weights[name])
        return grads

    def adapted(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """All parameters of the architecture, adapters added, and what the backward pass needs of each. params: every A and B"""
        weights = {n: adapted_weight(self.frozen[n], params[n + A], params[n + B], self.scale) for n in self.names}
        return {**self.frozen, **{name: w for name, (w, _) in weights.items()}}, {name: s for name, (_, s) in weights.items()}


def adapt(architecture: ModuleType, config: Any, frozen: Mapping[str, Any], lora: LoraConfig) -> Adapted:
    """A trained model with adapters where a configuration wants them. Raises ValueError for targets that it does not have."""
    return Adapted(architecture, frozen, chosen(lora.targets, architecture, config), lora.rank, lora.scale)


def adapter_shapes(shapes: Shapes, names: tuple[str, ...], rank: int) -> Shapes:
    """The shapes of the adapters of some parameters, among those of all."""
    adapters = {}
    for name in names:
        *leading, D, F = shapes[name]
        adapters[name + A], adapters[name + B] = (*leading, D, rank), (*leading, rank, F)
    return adapters


def chosen(targets: tuple[str, ...], architecture: ModuleType, config: Any) -> tuple[str, ...]:
    """The names of the parameters that targets speak of, in reading order.

    targets: names, or their last words, of ours or of Hugging Face's: layers.0.attention.q, attention.q, q, q_proj; ALL
    Raises ValueError for a target that is no matrix of the model that maps features to features.
    """
    modules = adaptable(architecture, config)
    found: set[str] = set()
    for target in targets:
        if target == ALL:
            fitting = {ours for ours in modules if ours != "lm_head"}
        else:
            spellings = {ours: (ours, *theirs) for ours, theirs in modules.items()}
            fitting = {ours for ours, names in spellings.items() if any(f".{name}".endswith(f".{target}") for name in names)}
        if not fitting:
            known = ", ".join(dict.fromkeys(re.sub(r"^layers\.\d+\.", "", ours) for ours in modules))
            raise ValueError(f"lora.targets has {target!r}; the matrices that this model can adapt are {known}, or {ALL}.")
        found |= fitting
    return tuple(ours for ours in modules if ours in found)


def adaptable(architecture: ModuleType, config: Any) -> dict[str, tuple[str, ...]]:
    """The matrices that map features to features, by our names, and Hugging Face's modules that hold each: many for experts."""
    shapes, modules = architecture.parameter_shapes(config), {}
    for ours, (theirs, _) in architecture.hugging_face_names(config).items():
        whole = (theirs,) if isinstance(theirs, str) else theirs
        if len(shapes[ours]) >= 2 and "embedding" not in ours:
            modules[ours] = tuple(name.removesuffix(".weight") for name in whole)
    return modules
