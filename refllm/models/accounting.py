"""What a model costs, from its configuration alone: parameters, arithmetic, memory. No weight is read.

    forward  = 2 · (numbers of the matrices that a position meets) + Σ_layers 4 · H·K · positions attended     FLOPs per token
    training = 3 · forward                      cache = Σ_layers 2 · G·K · positions                      numbers

A product of (1, n) and (n, m) counts 2·n·m FLOPs: a multiplication and an addition each. Norms, activations and softmax are
left out, as usual; they take time, but few FLOPs. Beside these stand the two rules of thumb of the field,
2·N + 2·L·positions·H·K forward and 6·N·D in training (Kaplan 2020, arXiv:2001.08361, section 2.1; Hoffmann 2022,
arXiv:2203.15556, appendix F), which differ in N: Kaplan's leaves out the embeddings, Hoffmann's is the total.
"""

import math
from types import ModuleType
from typing import Any, NamedTuple

from refllm.models.parameters import Shapes, count

ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number
ONCE = ("pooler.", "next_sentence.")  # what BERT computes of a whole text, not at every position


class Parameters(NamedTuple):
    """How many numbers a model has learned."""

    total: int  # Hoffmann's N; a head tied to the embedding counts once
    active: int  # of them, those that one position uses: all but the experts that it does not go through
    embedding: int  # in the tables that are looked up: of tokens, and of positions and token types where there are any
    head: int  # in the matrix from features to logits where it is one of its own, 0 where it is tied

    @property
    def non_embedding(self) -> int:
        """Without the tables and without the head, which is the vocabulary's too: Kaplan's N."""
        return self.total - self.embedding - self.head

    @property
    def active_non_embedding(self) -> int:
        """Of these the ones that one position uses."""
        return self.active - self.embedding - self.head


class Flops(NamedTuple):
    """Floating-point operations of one token, forward."""

    blocks: int  # the matrices of all layers, and of what lies between them and the head
    attention: int  # its queries with the keys that it attends, and the sum of their values
    head: int  # from features to logits

    @property
    def total(self) -> int:
        return self.blocks + self.attention + self.head

    @property
    def training(self) -> int:
        """Forward and backward: every product forward has two backward, one for each of its factors."""
        return 3 * self.total


class Memory(NamedTuple):
    """Bytes that a computation needs."""

    weights: int
    cache: int  # keys and values
    working: int  # an estimate of intermediate results at their most

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.working


class TrainingMemory(NamedTuple):
    """Bytes that training needs."""

    weights: int  # in float32 at least, with a copy in the dtype of the computation where that is a half
    gradients: int
    moments: int  # AdamW's two
    activations: int  # an estimate of what forward keeps for backward, without checkpointing

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def parameters(architecture: ModuleType, config: Any) -> Parameters:
    """How many numbers a model of this configuration learns, in its parts."""
    shapes = architecture.parameter_shapes(config)
    tables = {name: shape for name, shape in shapes.items() if is_table(name)}
    return Parameters(
        count(shapes), count(active_shapes(architecture, config)), count(tables), math.prod(shapes.get("lm_head", (0,)))
    )


def forward_flops(architecture: ModuleType, config: Any, context: int) -> Flops:
    """The FLOPs of one token that attends `context` positions, its own included: in decoding, those that there are by then.

    For a whole text of T tokens T times those with context = T is what an implementation computes that multiplies every query
    with every key and then masks; one that leaves out the later keys computes about half of the attention.
    """
    matrices = count(position_matrices(architecture, config))
    width = config.n_heads * config.d_head
    attended = sum(context if window is None else min(context, window) for window in windows(config))
    return Flops(2 * matrices, 4 * width * attended, 2 * count(head_matrix(config)))


def kaplan_flops(architecture: ModuleType, config: Any, context: int) -> int:
    """FLOPs of one token forward by Kaplan's rule, 2·N + 2·L·context·H·K: no head, and half of the attention (a causal mean)."""
    N = parameters(architecture, config).active_non_embedding
    return 2 * N + 2 * config.n_layers * context * config.n_heads * config.d_head


def training_flops_by_rule(n_parameters: int, n_tokens: int) -> int:
    """6·N·D: the FLOPs of training N active parameters on D tokens, attention left out."""
    return 6 * n_parameters * n_tokens


def cache_bytes(architecture: ModuleType, config: Any, positions: int, dtype: str) -> int:
    """Bytes of the keys and values of so many positions of one sequence, all of them kept; 0 for an encoder."""
    if not getattr(architecture, "AUTOREGRESSIVE", True):
        return 0
    return 2 * config.n_layers * config.n_kv_heads * config.d_head * positions * itemsize(dtype)


def seen_cache_bytes(architecture: ModuleType, config: Any, positions: int, dtype: str) -> int:
    """Of these the bytes that are still read: layers with a window never look back beyond it. A cache keeps these, in blocks."""
    layers = [positions if window is None else min(positions, window) for window in windows(config)]
    return cache_bytes(architecture, config, 1, dtype) * sum(layers) // config.n_layers


def prefill_memory(architecture: ModuleType, config: Any, n_tokens: int, dtype: str) -> Memory:
    """Bytes needed to read a prompt of n_tokens at once.

    working is what one block makes, and the logits of the last position; attention goes block by block. One that holds all of
    its scores, as the readable definition does, needs some 4 · H · n_tokens² numbers more.
    """
    weights, size = parameters(architecture, config).total * itemsize(dtype), itemsize(dtype)
    numbers = n_tokens * kept_per_token(architecture, config) // config.n_layers + logits(config)
    return Memory(weights, cache_bytes(architecture, config, n_tokens, dtype), numbers * size)


def decoding_memory(architecture: ModuleType, config: Any, context: int, dtype: str) -> Memory:
    """Bytes needed to write one token more, of which the last attends `context` positions."""
    weights, size = parameters(architecture, config).total * itemsize(dtype), itemsize(dtype)
    numbers = kept_per_token(architecture, config) // config.n_layers + config.n_heads * context + logits(config)
    return Memory(weights, cache_bytes(architecture, config, context, dtype), numbers * size)


def training_memory(architecture: ModuleType, config: Any, n_tokens: int, dtype: str) -> TrainingMemory:
    """Bytes needed to train all parameters by AdamW on micro-batches of n_tokens, batch · context.

    activations are the inputs and outputs of every matrix, and the logits with their gradient.
    """
    N, size = parameters(architecture, config).total, itemsize(dtype)
    state = max(4, size)
    numbers = n_tokens * (kept_per_token(architecture, config) + 2 * logits(config))
    return TrainingMemory(N * state + (N * size if size < state else 0), N * state, 2 * N * state, numbers * size)


def itemsize(dtype: str) -> int:
    """Bytes of one number. Raises ValueError for a dtype that no model computes in."""
    if dtype not in ITEMSIZE:
        raise ValueError(f"dtype={dtype!r} is not known; choose one of {', '.join(ITEMSIZE)}.")
    return ITEMSIZE[dtype]


def windows(config: Any) -> tuple[int | None, ...]:
    """How many positions a query of each layer sees, its own included; None: all before it."""
    window, full = getattr(config, "window", None), getattr(config, "full_layers", ())
    return tuple(None if i in full else window for i in range(config.n_layers))


def active_shapes(architecture: ModuleType, config: Any) -> Shapes:
    """The parameters that one position uses; those of all but the chosen experts are left out."""
    return getattr(architecture, "active_shapes", architecture.parameter_shapes)(config)


def is_table(name: str) -> bool:
    """Whether a parameter is looked up by tokens, positions or types."""
    return name.endswith("embedding")


def position_matrices(architecture: ModuleType, config: Any) -> Shapes:
    """The matrices that every position is multiplied with, the head's aside."""
    return {
        name: shape
        for name, shape in active_shapes(architecture, config).items()
        if len(shape) >= 2 and not is_table(name) and name != "lm_head" and not name.startswith(ONCE)
    }


def head_matrix(config: Any) -> Shapes:
    """The matrix from features to logits, be it the embedding once more."""
    return {"head": (config.d_model, logits(config))}


def logits(config: Any) -> int:
    """How many logits a position has; 0 where a model has no head."""
    return config.vocab_size if getattr(config, "head", True) else 0


def kept_per_token(architecture: ModuleType, config: Any) -> int:
    """An estimate of the numbers that all layers keep of one token for backward: every matrix's input and output."""
    shapes = position_matrices(architecture, config).values()
    return sum(math.prod(shape[:-2]) * (shape[-2] + shape[-1]) for shape in shapes)
