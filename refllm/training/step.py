"""One step of training: the gradients of its micro-batches, clipped, into AdamW.

    loss = Σᵢ nᵢ·lossᵢ / Σᵢ nᵢ          grads = Σᵢ nᵢ·gradsᵢ / Σᵢ nᵢ

where micro-batch i has nᵢ targets that count: so k micro-batches give the gradients of the one batch they make up.
An architecture's auxiliary loss is part of lossᵢ, measured on micro-batch i alone.
Nothing is read back from the device; the metrics are arrays, which the caller reads when it likes.
"""

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from refllm.array_api import Backend, namespace, op
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.dropout import Dropout
from refllm.training.adamw import adamw_update, clip, global_norm
from refllm.training.config import TrainingConfig
from refllm.training.flat import Layout, arrange, pack, unpack
from refllm.training.lora import Adapted
from refllm.training.schedule import learning_rate

IGNORED = -100  # a target that does not count


class State(NamedTuple):
    """All that training changes. A step may reuse its buffers: rebind, as with a cache."""

    vector: Any  # (P,) the parameters
    mean: Any  # (P,) AdamW's first moment
    square: Any  # (P,) and its second
    step: int  # updates made


class Metrics(NamedTuple):
    """What a step tells, as 0-d arrays."""

    loss: Any  # nats per token, before the update
    gradient_norm: Any  # before clipping


class Learner(NamedTuple):
    """What stays the same from step to step."""

    model: Any  # the architecture, or an Adapted one: forward and backward
    config: Any  # its Config
    layout: Layout
    training: TrainingConfig


def learner(model: ModuleType | Adapted, config: Any, training: TrainingConfig) -> Learner:
    """A learner of the architecture `model`, with its Config."""
    return Learner(model, config, arrange(model.parameter_shapes(config)), training)


def first_state(learner: Learner, backend: Backend) -> State:
    """The state before the first step: the same weights for one seed on every backend, and no moments."""
    return state_at(learner.model.initialise(learner.config, learner.training.seed), learner, backend)


def state_at(params: Mapping[str, Any], learner: Learner, backend: Backend) -> State:
    """The state before the first step from given weights, which are arrays of NumPy or of the backend."""
    xp = backend.xp
    vector, dtype = pack(params, learner.layout), getattr(xp, learner.training.state_dtype)
    vector = xp.astype(vector, dtype) if isinstance(vector, backend.array_type) else xp.from_numpy(vector, dtype=dtype)
    return State(vector, xp.zeros_like(vector), xp.zeros_like(vector), 0)


@op
def loss_and_gradients(vector, tokens, targets, layout, model, config, dropout=None, checkpointing=False):
    """The loss of one micro-batch and its gradient.

    vector: (P,)    tokens, targets: (B, T) integers; a target of −100 does not count
    layout: the vector's    model: a module with forward and backward    config: its Config
    dropout: a Dropout or None    checkpointing: compute activations again instead of keeping them
    Returns loss: (), in nats per token, with the model's auxiliary loss if it has one, and the gradient: (P,).
    """
    output = model.forward(unpack(vector, layout), tokens, config, dropout=dropout, checkpointing=checkpointing)
    loss, compared = cross_entropy(output.logits, targets, IGNORED)
    dlogits = cross_entropy_backward(namespace(loss).ones_like(loss), compared)
    loss = loss if output.auxiliary is None else loss + output.auxiliary
    return loss, pack(model.backward(dlogits, output.saved), layout)


def train_step(state: State, batches: Iterable[tuple[Any, Any]], learner: Learner) -> tuple[State, Metrics]:
    """One update from the step's micro-batches of (tokens, targets), each (B, T). May reuse the state's buffers."""
    t = learner.training
    loss, grads = accumulated(state, batches, learner)
    norm = global_norm(grads)
    if t.clip > 0:
        grads = clip(grads, norm, t.clip)
    rate, step = rate_at(state.step, t), state.step + 1
    adam = (step, rate, t.beta1, t.beta2, t.eps, t.weight_decay, learner.layout.n_decayed)
    vector, mean, square = adamw_update(state.vector, grads, state.mean, state.square, *adam)
    namespace(loss).async_evaluate(vector, mean, square, loss, norm)
    return State(vector, mean, square, step), Metrics(loss, norm)


def rate_at(step: int, t: TrainingConfig) -> float:
    """The learning rate of the update that makes step into step + 1."""
    return learning_rate(
        step,
        peak=t.learning_rate,
        schedule=t.schedule,
        steps=t.steps,
        warmup_steps=t.warmup_steps,
        decay_steps=t.decay_steps,
        final_fraction=t.final_fraction,
    )


def accumulated(state: State, batches: Iterable[tuple[Any, Any]], learner: Learner) -> tuple[Any, Any]:
    """The loss, a 0-d array, and the gradient (P,) over all micro-batches, each weighed by its targets that count."""
    t = learner.training
    xp = namespace(state.vector)
    vector = at_work(state.vector, t)
    loss = grads = count = None
    for i, (tokens, targets) in enumerate(batches):
        dropout = Dropout(t.dropout, t.seed, state.step * t.accumulation + i) if t.dropout > 0 else None
        arguments = (learner.layout, learner.model, learner.config, dropout, t.checkpointing)
        micro_loss, micro_grads = loss_and_gradients(vector, tokens, targets, *arguments)
        micro_loss, micro_grads = (xp.astype(x, state.vector.dtype, copy=False) for x in (micro_loss, micro_grads))
        if t.accumulation == 1:
            return micro_loss, micro_grads
        n = xp.sum(xp.astype(targets != IGNORED, state.vector.dtype))
        micro_loss, micro_grads = micro_loss * n, micro_grads * n
        loss = micro_loss if loss is None else loss + micro_loss
        grads = micro_grads if grads is None else grads + micro_grads
        count = n if count is None else count + n
        xp.async_evaluate(loss, grads, count)  # a lazy backend keeps no more than one micro-batch's activations
    if count is None:
        raise ValueError("the step has no batch; a training step needs at least one (tokens, targets).")
    total = xp.maximum(count, xp.ones_like(count))
    return loss / total, grads / total


def at_work(vector: Any, t: TrainingConfig) -> Any:
    """The parameters in the dtype that the passes compute in."""
    xp = namespace(vector)
    return xp.astype(vector, getattr(xp, t.dtype), copy=False)
