"""Decoding's attention for NumPy: one query a row, whose scores lie together while keys and values stay in their blocks."""

import numpy as np

from .numpy_attention import reach, score
from .numpy_blocks import ones, reference, served


def cached_attention(q, keys, values, mask, scale, softcap=None):
    B, H, T, K = q.shape
    if T != 1 or not all(isinstance(block, np.ndarray) for block in keys) or not served(q, *keys, *values):
        return reference("cached_attention", q, keys, values, mask, scale, softcap)
    G = keys[0].shape[1]
    queries = q.reshape(B, G, H // G, K) * scale
    e = scores_of(queries, keys, softcap)
    hide(e, mask)
    top = e.max(axis=-1, keepdims=True)
    if mask.valid is not None:
        top[top == -np.inf] = 0  # a row that sees nothing: −∞ − (−∞) would be NaN
    e -= top
    np.exp(e, out=e)
    y, total = weighted(e, values), np.matmul(e, ones(e.shape[-1], e.dtype))[..., None]
    if mask.valid is not None:
        total[total == 0] = 1
    y /= total
    return y.reshape(q.shape)


def scores_of(queries, keys, softcap):
    """The scores of queries (B, G, R, K) with the keys of all blocks, side by side: (B, G, R, S)."""
    if len(keys) == 1:
        return score(queries, keys[0], softcap)
    B, G, R, _ = queries.shape
    e, at = np.empty((B, G, R, sum(k.shape[2] for k in keys)), queries.dtype), 0
    for k in keys:
        np.matmul(queries, k.swapaxes(-1, -2), out=e[..., at : at + k.shape[2]])
        at += k.shape[2]
    if softcap is not None:
        e /= softcap
        np.tanh(e, out=e)
        e *= softcap
    return e


def weighted(e, values):
    """The values of all blocks, summed by their weights e: (B, G, R, S) -> (B, G, R, K)."""
    at = values[0].shape[2]
    y = np.matmul(e[..., :at], values[0])
    for v in values[1:]:
        y += np.matmul(e[..., at : at + v.shape[2]], v)
        at += v.shape[2]
    return y


def hide(e, mask) -> None:
    """Put −∞ in place of the scores (B, G, R, S) of keys that the one query of a row must not see."""
    S = e.shape[-1]
    first, last = reach(mask, 0, 1, S)
    if first > 0:
        e[..., :first] = -np.inf
    if last < S:
        e[..., last:] = -np.inf
    if mask.valid is not None:
        np.copyto(e, -np.inf, where=~mask.valid[:, None, None, :])


KERNELS = {"cached_attention": cached_attention}
