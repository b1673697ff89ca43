"""The loss of a language model: the mean negative log-likelihood of the targets, in nats per token.

loss = mean over the targets not ignored of (log Σ_V exp(z) − z[target])

`linear_cross_entropy` takes the logits z = x W from a block of the vocabulary at a time, and makes them again in its
backward pass, so that the (N, V) of them, the largest array of a small model's training, never exist together.
"""

from refllm.array_api import namespace, op
from refllm.layers.blocks import blocks
from refllm.layers.linear import rows
from refllm.layers.precision import narrow, widen


def mean_of_kept(x, kept):
    """Return the mean of x: (N,) where kept: (N,) holds, or zero if it holds nowhere, and how many it is of, at least 1."""
    xp = namespace(x)
    n = xp.maximum(xp.sum(xp.astype(kept, x.dtype)), 1.0)
    return xp.sum(xp.where(kept, x, 0.0)) / n, n


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
    loss, n = mean_of_kept((log_sum - (picked - shift))[:, 0], kept)
    return xp.asarray(loss, dtype=logits.dtype), (logits, targets, ignore_index, shift + log_sum, n)


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


@op
def linear_cross_entropy(x, weight, targets, ignore_index, block):
    """Measure how surprising the targets are to the logits x W, a block of the vocabulary at a time.

    x: (..., D)    weight: (D, V)    targets: (...) integers, 0 to V − 1, or ignore_index    block: int, tokens of the vocabulary
    Returns loss: (), in nats per token, zero if every target is ignored, and what the backward pass needs.
    """
    xp = namespace(x)
    h, t = rows(widen(x)), xp.reshape(targets, (-1, 1))  # (N, D), (N, 1)
    total = picked = xp.zeros_like(h[:, :1])
    shift = xp.full_like(total, -xp.inf)
    for start, stop in blocks(weight.shape[-1], block):
        z = xp.matmul(h, widen(weight[:, start:stop]))  # (N, block)
        higher = xp.maximum(shift, xp.max(z, axis=-1, keepdims=True))
        total = total * xp.exp(shift - higher) + xp.sum(xp.exp(z - higher), axis=-1, keepdims=True)
        shift = higher
        here = (t >= start) & (t < stop)
        picked = xp.where(here, xp.take_along_axis(z, xp.where(here, t - start, 0), axis=-1), picked)
    log_sum = xp.log(total)
    loss, n = mean_of_kept((log_sum - (picked - shift))[:, 0], t[:, 0] != ignore_index)
    return xp.asarray(loss, dtype=x.dtype), (x, weight, targets, ignore_index, block, shift + log_sum, n)


@op
def linear_cross_entropy_backward(dloss, saved):
    """Return dx: (..., D) and dweight: (D, V), given dloss: ().

    Block by block of the vocabulary, the logits' gradient dz is that of `cross_entropy`;   dx = Σ dz Wᵀ,   dW = xᵀ dz.
    """
    xp = namespace(dloss)
    x, weight, targets, ignore_index, block, log_z, n = saved
    h, t = rows(widen(x)), xp.reshape(targets, (-1, 1))
    share = xp.astype(t != ignore_index, h.dtype) * (widen(dloss) / n)  # (N, 1)
    dh, dweights = xp.zeros_like(h), []
    for start, stop in blocks(weight.shape[-1], block):
        w = widen(weight[:, start:stop])
        p = xp.exp(xp.matmul(h, w) - log_z)  # (N, block)
        hot = t == xp.arange(start, stop, dtype=t.dtype)
        dz = xp.where(hot, p - 1, p) * share
        dh = dh + xp.matmul(dz, xp.matrix_transpose(w))
        dweights.append(narrow(xp.matmul(xp.matrix_transpose(h), dz), weight))
    return narrow(xp.reshape(dh, x.shape), x), xp.concat(dweights, axis=-1)
