"""All kernels of the MLX backend: MLX's own fused operations, and their gradients as MLX derives them.

On Metal and CUDA each is one kernel. On the CPU they are the same pieces as the readable bodies, and their gradients run the
forward again, so there the backend does without. Halves are widened, for MLX rounds some of them in between.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from refllm.array_api import OPS


def served(*arrays: Any) -> bool:
    """Whether the kernels compute these: non-empty arrays, all of one dtype. Others go to the readable body."""
    return all(a.dtype == arrays[0].dtype and a.size for a in arrays)


def reference(name: str, *arguments: Any) -> Any:
    """What the readable body of an op returns."""
    return OPS[name].reference(*arguments)  # type: ignore[attr-defined]  # every op carries its body


class Fused(NamedTuple):
    """A fused function and what it was applied to: its gradients are MLX's."""

    function: Callable
    arguments: list


def apply(function: Callable, *arguments: Any) -> tuple[Any, Fused]:
    """function of the arguments in float32, its result in their dtype."""
    dtype = arguments[0].dtype

    def whole(*arguments):
        return function(*(a.astype(mx.float32) for a in arguments)).astype(dtype)

    return whole(*arguments), Fused(whole, list(arguments))


def gradients(dy: Any, saved: Fused) -> tuple:
    """The gradient of every argument."""
    return tuple(mx.vjp(saved.function, saved.arguments, [dy])[1])


def rms_norm(x, gain, eps):
    if not served(x, gain):
        return reference("rms_norm", x, gain, eps)
    return apply(lambda x, gain: mx.fast.rms_norm(x, gain, eps), x, gain)


def rms_norm_backward(dy, saved):
    return gradients(dy, saved) if isinstance(saved, Fused) else reference("rms_norm_backward", dy, saved)


def layer_norm(x, gain, bias, eps):
    if not served(x, gain, bias):
        return reference("layer_norm", x, gain, bias, eps)
    return apply(lambda x, gain, bias: mx.fast.layer_norm(x, gain, bias, eps), x, gain, bias)


def layer_norm_backward(dy, saved):
    return gradients(dy, saved) if isinstance(saved, Fused) else reference("layer_norm_backward", dy, saved)


def softmax(x):
    if not x.size:
        return reference("softmax", x)
    p = mx.softmax(x, axis=-1, precise=True)  # precise: halves in float32 inside
    return p, p


def softmax_backward(dp, p):
    return reference("softmax_backward", dp, p)  # both forwards save p


def seen_keys(mask: Any, T: int, S: int) -> tuple[Any, Any]:
    """What fused attention may see, as it wants to be told, and which queries see nothing at all.

    Returns None, "causal" or a bool array that broadcasts to (B, 1, T, S) and lets a query that sees nothing see all;
    and None or a bool array (B, 1, T, 1).
    """
    if mask.window is None and mask.valid is None and mask.start == S - T:
        return (None if T == 1 or not mask.causal else "causal"), None
    query = mx.arange(mask.start, mask.start + T)[:, None]
    key = mx.arange(S)[None, :]
    seen = key <= query if mask.causal else mx.ones((T, S), dtype=mx.bool_)
    if mask.window is not None:
        seen = seen & (key > query - mask.window)
    if mask.valid is not None:
        seen = seen & mask.valid[:, None, None, :]
    blind = ~mx.any(seen, axis=-1, keepdims=True)
    return seen | blind, blind


def attention(q, k, v, mask, scale, softcap=None):
    if softcap is not None or not served(q, k, v):  # MLX's own has no cap
        return reference("attention", q, k, v, mask, scale, softcap)
    seen, blind = seen_keys(mask, q.shape[2], k.shape[2])

    def attend(q, k, v):
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=seen)
        return y if blind is None else mx.where(blind, 0.0, y)

    return apply(attend, q, k, v)


def attention_backward(dy, saved):
    return gradients(dy, saved) if isinstance(saved, Fused) else reference("attention_backward", dy, saved)


def cross_entropy(logits, targets, ignore_index=-100):
    if not served(logits):
        return reference("cross_entropy", logits, targets, ignore_index)
    kept = targets != ignore_index
    n = mx.maximum(mx.sum(kept), 1)
    known = mx.where(kept, targets, 0)

    def mean_loss(logits):
        return mx.sum(mx.where(kept, mx.fast.cross_entropy(logits, known), 0.0)) / n

    return apply(mean_loss, logits)


def cross_entropy_backward(dloss, saved):
    if not isinstance(saved, Fused):
        return reference("cross_entropy_backward", dloss, saved)
    (dlogits,) = gradients(dloss, saved)
    return dlogits


KERNELS = {
    "rms_norm": rms_norm,
    "rms_norm_backward": rms_norm_backward,
    "layer_norm": layer_norm,
    "layer_norm_backward": layer_norm_backward,
    "softmax": softmax,
    "softmax_backward": softmax_backward,
    "attention": attention,
    "attention_backward": attention_backward,
}
if hasattr(mx.fast, "cross_entropy"):  # not in the first versions that this backend takes
    KERNELS |= {"cross_entropy": cross_entropy, "cross_entropy_backward": cross_entropy_backward}
