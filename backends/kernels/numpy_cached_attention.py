"""Decoding's attention for NumPy: one query a row, whose scores lie together while keys and values stay in their blocks.

Codes of eight bits c with the scales s are multiplied as they are, and the products scaled: q·(s c) = s (q·c), and
Σ e (s c) = Σ (e s) c. So no more than one block's codes are ever numbers of the queries' dtype.
Where the keys and values fill a core's cache and more, threads share the heads.
"""

import numpy as np

from .numpy_attention import reach
from .numpy_blocks import ones, reference, served
from .numpy_parallel import idle_threads, shared_out

LONG = 1 << 23  # numbers of the keys, from which on threads share the heads


def cached_attention(q, keys, values, mask, scale, softcap=None):
    B, H, T, K = q.shape
    if T != 1 or not readable(q, keys) or not readable(q, values):
        return reference("cached_attention", q, keys, values, mask, scale, softcap)
    G = array_of(keys[0]).shape[1]
    S = sum([array_of(k).shape[2] for k in keys])
    queries = q.reshape(B, G, H // G, K) * scale
    parts = min(G, idle_threads()) if B * G * S * K >= LONG else 1
    if parts == 1:
        return answer(queries, keys, values, S, mask, softcap).reshape(q.shape)
    y = np.empty_like(queries)

    def answer_some(heads):
        some_keys, some_values = ([of_heads(block, heads) for block in blocks] for blocks in (keys, values))
        y[:, heads] = answer(queries[:, heads], some_keys, some_values, S, mask, softcap)

    shared_out(answer_some, [slice(G * i // parts, G * (i + 1) // parts) for i in range(parts)], 2)
    return y.reshape(q.shape)


def array_of(block):
    """The array (B, G, s, K) of a block, of its codes where it is quantised."""
    return block if isinstance(block, np.ndarray) else block.codes


def readable(q, blocks) -> bool:
    """Whether the kernel reads these blocks: all arrays of q's dtype, or all codes with scales of it."""
    if isinstance(blocks[0], np.ndarray):
        return served(q, *blocks)
    return served(q, *[block.scales for block in blocks if not isinstance(block, np.ndarray)])


def of_heads(block, heads: slice):
    """A block of some of the heads."""
    return block[:, heads] if isinstance(block, np.ndarray) else type(block)(block.codes[:, heads], block.scales[:, heads])


def answer(queries, keys, values, S: int, mask, softcap):
    """The weighted values (B, G, R, K) of queries (B, G, R, K), already scaled, for blocks of S positions together."""
    e = scores_of(queries, keys, S, softcap)
    hide(e, mask)
    top = e.max(axis=-1, keepdims=True)
    if mask.valid is not None:
        top[top == -np.inf] = 0  # a row that sees nothing: −∞ − (−∞) would be NaN
    e -= top
    np.exp(e, out=e)
    total = e.dot(ones(S, e.dtype))[..., None]
    if mask.valid is not None:
        total[total == 0] = 1
    y = weighted(e, values)
    y /= total
    return y


def scores_of(queries, keys, S: int, softcap):
    """The scores of queries (B, G, R, K) with the keys of all blocks, side by side: (B, G, R, S)."""
    e, at = np.empty((*queries.shape[:-1], S), queries.dtype), 0
    for block in keys:
        k = array_of(block)
        here = e if len(keys) == 1 else e[..., at : at + k.shape[2]]
        if k is block:
            np.matmul(queries, k.swapaxes(-1, -2), out=here)
        else:
            np.matmul(queries, k.astype(queries.dtype).swapaxes(-1, -2), out=here)
            here *= block.scales.swapaxes(-1, -2)
        at += k.shape[2]
    if softcap is not None:
        e /= softcap
        np.tanh(e, out=e)
        e *= softcap
    return e


def weighted(e, values):
    """The values of all blocks, summed by their weights e: (B, G, R, S) -> (B, G, R, K)."""
    y, at = None, 0
    for block in values:
        v = array_of(block)
        part = e if len(values) == 1 else e[..., at : at + v.shape[2]]
        if v is not block:
            part, v = part * block.scales.swapaxes(-1, -2), v.astype(e.dtype)
        if y is None:
            y = np.matmul(part, v)
        else:
            y += np.matmul(part, v)
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
