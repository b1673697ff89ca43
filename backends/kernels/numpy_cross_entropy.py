"""Softmax and cross-entropy for NumPy: block by block, no array of the logits' size beside the gradient itself.

The forward pass keeps one number a row, log Σ exp z; the backward pass takes exp(z − log Σ exp z) straight into the gradient's
buffer and turns it into the gradient there.
"""

from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import blocks, flat, ones, reference, served


def shifted_exp(z, out):
    """exp(z − m) into `out`, for z: (n, V); returns every row's maximum m: (n, 1)."""
    top = z.max(axis=-1, keepdims=True)
    np.subtract(z, top, out=out)
    np.exp(out, out=out)
    return top


def softmax(x):
    if not served(x):
        return reference("softmax", x)
    rows = flat(x)
    p = np.empty(rows.shape, dtype=x.dtype)
    for block in blocks(*rows.shape):
        shifted_exp(rows[block], p[block])
        p[block] /= (p[block] @ ones(x.shape[-1], x.dtype))[:, None]
    p = p.reshape(x.shape)
    return p, p


def softmax_backward(dp, p):
    if not served(dp, p):
        return reference("softmax_backward", dp, p)
    probabilities, given = flat(p), flat(dp)
    dx = np.empty(given.shape, dtype=dp.dtype)
    for block in blocks(*given.shape):
        pb, dpb = probabilities[block], given[block]
        np.subtract(dpb, np.vecdot(dpb, pb)[:, None], out=dx[block])
        dx[block] *= pb
    return dx.reshape(dp.shape)


class Compared(NamedTuple):
    z: Any  # (N, V)
    targets: Any  # (N,), 0 where ignored
    kept: Any  # (N,) bool
    log_total: Any  # (N, 1): log Σ_V exp z
    count: float  # targets kept, at least 1
    shape: tuple[int, ...]


def cross_entropy(logits, targets, ignore_index=-100):
    if not served(logits):
        return reference("cross_entropy", logits, targets, ignore_index)
    z = flat(logits)
    N, V = z.shape
    targets = targets.reshape(-1)
    kept = targets != ignore_index
    targets = np.where(kept, targets, 0)
    picked = np.take_along_axis(z, targets[:, None], axis=-1)
    log_total, surprise = np.empty((N, 1), dtype=z.dtype), np.empty((N, 1), dtype=z.dtype)
    for block in blocks(N, V):
        e = np.empty(z[block].shape, dtype=z.dtype)
        top = shifted_exp(z[block], e)
        log_sum = np.log(e @ ones(V, z.dtype))[:, None]
        np.add(log_sum, top, out=log_total[block])
        np.subtract(log_sum, picked[block] - top, out=surprise[block])  # less top first: both are near it where the loss is small
    count = max(float(np.count_nonzero(kept)), 1.0)
    loss = np.where(kept, surprise[:, 0], 0).sum() / count
    return np.asarray(loss, dtype=logits.dtype), Compared(z, targets, kept, log_total, count, logits.shape)


def cross_entropy_backward(dloss, saved):
    if not isinstance(saved, Compared):
        return reference("cross_entropy_backward", dloss, saved)
    z, targets, kept, log_total, count, shape = saved
    dz = np.empty_like(z)
    share = kept[:, None] * np.asarray(dloss / count, dtype=z.dtype)  # (N, 1)
    for block in blocks(*z.shape):
        d = dz[block]
        np.subtract(z[block], log_total[block], out=d)
        np.exp(d, out=d)
        d[np.arange(len(d)), targets[block]] -= 1
        d *= share[block]
    return dz.reshape(shape)


KERNELS = {
    "softmax": softmax,
    "softmax_backward": softmax_backward,
    "cross_entropy": cross_entropy,
    "cross_entropy_backward": cross_entropy_backward,
}
