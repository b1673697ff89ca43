"""A model: an architecture, its sizes, its parameters, and the tokenizer that goes with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from refllm.array_api import Backend, backend_of, load, namespace
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.models import architecture
from refllm.models.parameters import Shapes, count


@dataclass(frozen=True)
class Model:
    """Everything that is needed to read and write text."""

    architecture: ModuleType  # with Config, forward and backward: refllm.models.llama, for instance
    config: Any  # its Config
    params: Mapping[str, Any]  # by name, all in one backend and dtype
    tokenizer: Any = None  # a refllm.tokenizer.Tokenizer, where text is wanted

    @classmethod
    def initialise(
        cls, name: str, config: Any, seed: int, backend: str | Backend | None = None, tokenizer: Any = None
    ) -> "Model":
        """A new model of an architecture by name, the same for one seed on every backend."""
        module, xp = architecture(name), load(backend).xp
        params = {n: xp.from_numpy(values) for n, values in module.initialise(config, seed).items()}
        return cls(module, config, params, tokenizer)

    @property
    def backend(self) -> Backend:
        """The backend of its parameters."""
        return backend_of(self.params["embedding"])

    @property
    def shapes(self) -> Shapes:
        """Every parameter's name and shape, in reading order."""
        return self.architecture.parameter_shapes(self.config)

    @property
    def n_parameters(self) -> int:
        """How many numbers it has learned, the tied head counted once."""
        return count(self.shapes)

    def tokens(self, tokens: Any) -> Any:
        """Token ids, checked, as an array (B, T) of the model's backend.

        tokens: nested lists or a NumPy array, (B, T). An array of another backend is taken as it is, to keep it on its device.
        Raises ValueError where the shape is not (B, T) or an id is outside 0 … V−1.
        """
        xp = self.backend.xp
        if isinstance(tokens, self.backend.array_type) and not isinstance(tokens, np.ndarray):
            return tokens
        ids = np.asarray(tokens)
        if ids.ndim != 2 or ids.size == 0:
            raise ValueError(f"tokens has shape {ids.shape}; forward needs (B, T). For one sequence use tokens[None, :].")
        check_ids(ids, "tokens", self.config.vocab_size)
        return xp.from_numpy(ids.astype(np.int32))

    def logits(self, tokens: Any) -> Any:
        """Logits of the token after each position, (B, T, V), for tokens (B, T)."""
        return self.architecture.forward(self.params, self.tokens(tokens), self.config).logits

    def loss(self, tokens: Any, targets: Any) -> Any:
        """Mean surprise at the targets (B, T), −100 where there is none: a 0-d array, in nats per token.

        An architecture that trains with an auxiliary loss adds it.
        """
        return self._loss(tokens, targets)[0]

    def gradients(self, tokens: Any, targets: Any) -> dict[str, Any]:
        """∂loss/∂parameter for every parameter, by name."""
        loss, judged, saved = self._loss(tokens, targets)
        dlogits = cross_entropy_backward(namespace(loss).ones_like(loss), judged)
        return self.architecture.backward(dlogits, saved)

    def export(self, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Parameters or gradients under the names, and in the shapes, that Hugging Face's checkpoints give them.

        tensors: arrays of any backend, keyed as `params` is; some of them suffice
        Returns NumPy arrays of the same dtype; bfloat16, which NumPy lacks, becomes float32.
        Raises ValueError for a name that is not a parameter's, or another shape.
        """
        exported: dict[str, np.ndarray] = {}
        for ours, x in tensors.items():
            if tuple(x.shape) != self.shapes.get(ours):
                needed = f"this model needs {self.shapes[ours]}" if ours in self.shapes else "this model has no such parameter"
                raise ValueError(f"{ours} has shape {tuple(x.shape)}; {needed}.")
            exported |= renamed(namespace(x).to_numpy(x), *self.architecture.hugging_face_names(self.config)[ours])
        return exported

    def _loss(self, tokens: Any, targets: Any) -> tuple[Any, Any, Any]:
        tokens, targets = self.tokens(tokens), self._targets(targets)
        if targets.shape != tokens.shape:
            raise ValueError(f"targets has shape {tuple(targets.shape)}; the loss needs that of tokens, {tuple(tokens.shape)}.")
        output = self.architecture.forward(self.params, tokens, self.config)
        loss, judged = cross_entropy(output.logits, targets)
        return loss if output.auxiliary is None else loss + output.auxiliary, judged, output.saved

    def _targets(self, targets: Any) -> Any:
        if isinstance(targets, self.backend.array_type) and not isinstance(targets, np.ndarray):
            return targets
        ids = np.asarray(targets)
        check_ids(np.where(ids == -100, 0, ids), "targets", self.config.vocab_size)
        return self.backend.xp.from_numpy(ids.astype(np.int32))


def renamed(x: np.ndarray, theirs: str | tuple[str, ...], transposed: bool) -> dict[str, np.ndarray]:
    """A tensor of ours as it lies in a checkpoint: as one, or, where several names stand for it, cut along its first axis.

    transposed: whether each lies there as (out, in)
    """
    parts = {theirs: x} if isinstance(theirs, str) else dict(zip(theirs, x, strict=True))
    return {name: np.ascontiguousarray(np.swapaxes(part, -1, -2) if transposed else part) for name, part in parts.items()}


def check_ids(ids: np.ndarray, name: str, vocab_size: int) -> None:
    """Raise ValueError unless every id is an integer 0 … vocab_size−1: a backend may read other memory beyond its table."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {ids.dtype}; token ids are integers.")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{name} holds the id {wrong}; the model's vocab_size={vocab_size} allows 0 … {vocab_size - 1}.")
