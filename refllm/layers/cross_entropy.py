"""The loss of a language model: the mean negative log-likelihood of the targets, in nats per token.

loss = mean over the targets not ignored of (log Σ_V exp(z) − z[target])
"""

from refllm.array_api import namespace, op
from refllm.layers.linear import rows
from refllm.layers.precision import narrow, widen


@op
def cross_entropy(logits, targets, ignore_index=-100):
    """Measure how surprising the targets are to the logits.

    logits: (..., V)    targets: (...) integers, 0 to V − 1, or ignore_index where there is nothing to predict
    Returns loss: (), in nats per token, zero if every target is ignored, and what the backward pass needs.
    """
    xp = namespace(logits)
    z, t = rows(widen(logits)), xp.reshape(targets, (-1,))  # (N, V), (N,)
    kept = t != ignore_index
    shift = xp.max(z, axis=-1, keepdims=True)  # changes nothing but overflow
    log_sum = xp.log(xp.sum(xp.exp(z - shift), axis=-1, keepdims=True))  # (N, 1)
    picked = xp.take_along_axis(z, xp.where(kept, t, 0)[:, None], axis=-1)  # (N, 1)
    surprise = xp.where(kept, (log_sum - (picked - shift))[:, 0], 0.0)
    n = xp.maximum(xp.sum(xp.astype(kept, z.dtype)), 1.0)
    loss = xp.asarray(xp.sum(surprise) / n, dtype=logits.dtype)
    return loss, (logits, targets, ignore_index, shift + log_sum, n)


@op
def cross_entropy_backward(dloss, saved):
    """Return dlogits: (..., V), given dloss: ().

    ∂(log Σ exp z)/∂z = softmax(z), hence   dz = (softmax(z) − onehot(target)) · dloss / n,   zero where ignored.
    """
    xp = namespace(dloss)
    logits, targets, ignore_index, log_z, n = saved
    z, t = rows(widen(logits)), xp.reshape(targets, (-1, 1))
    p = xp.exp(z - log_z)  # softmax(z)
    hot = t == xp.arange(z.shape[-1], dtype=t.dtype)  # (N, V)
    share = xp.astype(t != ignore_index, z.dtype) * (widen(dloss) / n)  # (N, 1)
    return narrow(xp.reshape(xp.where(hot, p - 1, p) * share, logits.shape), logits)
