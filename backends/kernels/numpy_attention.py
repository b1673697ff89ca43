"""Attention for NumPy: block by block of queries, no key copied, no large array of probabilities kept.

Scores exist for one block of queries of a few heads at a time, small enough for the cache, and only up to the last key that the
block may see: a causal mask so halves the work. Backward forms them again, unless they are small beside q and k.
With E = exp(scores − m) and l = Σ_S E the probabilities are P = E / l; the division is moved from the (T, S) scores to the (T, K)
results, where it is cheaper:

    y = (E v) / l        g = dy / l        dv = Eᵀ g        ds = E · (g vᵀ − Σ_K g·y)

The shift by the row's maximum m guards exp against overflow and the sum against underflow. A row whose maximum lies within ±30
needs none, and has m = 0: the exponentials that matter to it are ordinary numbers. So a block whose scores all lie within ±30
goes without the row maxima, the slowest of NumPy's reductions. The rule looks at a row's own visible keys only, hence no later
token changes an earlier result by a single bit.

With a soft cap c the scores are c·tanh(scores / c), and ds has the factor 1 − tanh², formed again from the scores.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import ones, reference, served
from .numpy_parallel import shared_out

QUERIES = 64  # positions in a block of queries
SCORES = 1 << 17  # scores held at a time: 512 KiB of float32
MANY = 8  # blocks, from which on threads share them
TAME = 30.0  # e³⁰ ≈ 10¹³: sums and products of such numbers neither overflow nor lose digits


class Attended(NamedTuple):
    q: Any  # (B, G, R, T, K), R = H/G
    k: Any  # (B, G, S, K)
    v: Any  # (B, G, S, K)
    y: Any  # (B, G, R, T, K)
    total: Any  # (B, G, R, T): l, or 1 for a query that sees nothing
    shifts: dict[int, Any]  # m of the blocks that needed it, by their number
    kept: dict[int, Any]  # E of every block, where it is small
    mask: Any
    scale: float
    softcap: float | None


class Block(NamedTuple):
    """Some rows and heads, some queries, and the keys that these may see."""

    number: int
    rows: slice
    heads: slice  # key and value heads
    queries: slice
    keys: slice


def reach(mask, i: int, j: int, S: int) -> tuple[int, int]:
    """The first of S keys that queries i … j−1 may see, padding aside, and the one after the last; none if they are no less."""
    last = min(S, mask.start + j) if mask.causal else S
    return 0 if mask.window is None else max(0, mask.start + i - mask.window + 1), last


def split(q, k, mask) -> Iterator[Block]:
    """Every block, the last queries of each row first: they see the most keys."""
    B, G, R, T, _ = q.shape
    S = k.shape[2]
    step = min(T, max(1, QUERIES // R))
    fit = max(1, SCORES // (R * step * S))  # pairs of a row and a key head that are worked on together
    some_heads = -(-G // -(-G // fit))  # as few groups of heads as fit allows, of equal size
    some_rows = max(1, fit // G)
    number = 0
    for row in range(0, B, some_rows):
        for head in range(0, G, some_heads):
            for i in reversed(range(0, T, step)):
                j = min(i + step, T)
                first, last = reach(mask, i, j, S)
                rows, heads = slice(row, min(row + some_rows, B)), slice(head, min(head + some_heads, G))
                yield Block(number, rows, heads, slice(i, j), slice(min(first, last - 1), last))
                number += 1


@lru_cache(maxsize=16)
def later(n: int, dtype: str):
    """(n, n): −∞ above the diagonal, 0 elsewhere."""
    return np.triu(np.full((n, n), -np.inf, dtype=dtype), 1)


def hide(scores, block: Block, mask) -> None:
    """Put −∞ in place of the scores (b, g, R, t, s) of keys that a query must not see."""
    i, j, first, last = block.queries.start, block.queries.stop, block.keys.start, block.keys.stop
    if mask.window is None and mask.valid is None:
        own = max(mask.start + i, first)  # the first key that is not before every query of the block
        if mask.causal and last > own + 1:
            scores[..., own - first :] += later(max(QUERIES, j - i), scores.dtype.char)[: j - i, : last - own]
        return
    query = np.arange(mask.start + i, mask.start + j)[:, None]
    key = np.arange(first, last)
    seen = key <= query if mask.causal else np.ones((j - i, last - first), dtype=bool)
    if mask.window is not None:
        seen &= key > query - mask.window
    if mask.valid is not None:
        seen = seen & mask.valid[block.rows, None, None, None, first:last]
    np.copyto(scores, -np.inf, where=~seen)


def scaled(q, block: Block, scale):
    """The queries of a block, scaled: (b, g, R·t, K), a contiguous copy."""
    queries = q[block.rows, block.heads, :, block.queries] * scale
    b, g, R, t, K = queries.shape
    return queries.reshape(b, g, R * t, K)


def score(queries, k, softcap):
    """The scores of queries (…, n, K), already scaled, and keys (…, s, K): (…, n, s)."""
    scores = np.matmul(queries, k.swapaxes(-1, -2))
    if softcap is not None:
        scores /= softcap
        np.tanh(scores, out=scores)
        scores *= softcap
    return scores


def slope(scores, softcap):
    """By what a change of the products of queries and keys changes capped scores: 1 − tanh²."""
    t = scores / softcap
    t *= t
    return np.subtract(1, t, out=t)


def weights(scores, block: Block, mask, shifts: dict[int, Any], again: bool):
    """E = exp(scores − m) of a block in place of its scores (b, g, R·t, s).

    Enters m in `shifts` where the scores need it, or reads it there again.
    """
    b, g, _, s = scores.shape
    shifted = block.number in shifts if again else not (scores.max() < TAME and scores.min() > -TAME)
    hide(scores.reshape(b, g, -1, block.queries.stop - block.queries.start, s), block, mask)
    if shifted:
        if not again:
            top = scores.max(axis=-1, keepdims=True)
            needless = (np.abs(top) < TAME) | (top == -np.inf)  # −∞: nothing is seen, and −∞ − (−∞) would be NaN
            shifts[block.number] = np.where(needless, 0, top)
        scores -= shifts[block.number]
    np.exp(scores, out=scores)
    return scores


class Alone(NamedTuple):
    """What one query a row saves: all that it was given, for its backward pass is rare."""

    q: Any
    k: Any
    v: Any
    mask: Any
    scale: float
    softcap: float | None


def attention(q, k, v, mask, scale, softcap=None):
    if not served(q, k, v):
        return reference("attention", q, k, v, mask, scale, softcap)
    if q.shape[2] == 1 and mask.valid is None:
        first, last = reach(mask, 0, 1, k.shape[2])
        if first < last:
            return one_query(q, k[:, :, first:last], v[:, :, first:last], scale, softcap), Alone(q, k, v, mask, scale, softcap)
    return many_queries(q, k, v, mask, scale, softcap)


def one_query(q, k, v, scale, softcap):
    """The result of decoding's step: no blocks, and nothing to hide from the query, which sees all the keys that it is given."""
    B, H, _, K = q.shape
    G, S = k.shape[1], k.shape[2]
    queries = q.reshape(B, G, H // G, K) * scale
    e = score(queries, k, softcap)
    e -= e.max(axis=-1, keepdims=True)
    np.exp(e, out=e)
    y = np.matmul(e, v)
    y /= np.matmul(e, ones(S, e.dtype))[..., None]
    return y.reshape(q.shape)


def many_queries(q, k, v, mask, scale, softcap):
    B, H, T, K = q.shape
    G = k.shape[1]
    R = H // G
    by_group = q.reshape(B, G, R, T, K)  # splits an axis: always a view
    # the result lies in memory as (B, T, H, K), so that merging the heads again copies nothing
    y = np.empty((B, T, H, K), dtype=q.dtype).reshape(B, T, G, R, K).transpose(0, 2, 3, 1, 4)
    total = np.empty((B, G, R, T), dtype=q.dtype)
    shifts: dict[int, Any] = {}
    kept: dict[int, Any] = {}

    def attend(block):
        scores = score(scaled(by_group, block, scale), k[block.rows, block.heads, block.keys], softcap)
        e = weights(scores, block, mask, shifts, again=False)
        if k.shape[2] <= 2 * K:
            kept[block.number] = e
        b, g, _, s = e.shape
        sums = np.matmul(e, ones(s, e.dtype))  # l = Σ_S E
        sums[sums == 0] = 1
        weighted = np.matmul(e, v[block.rows, block.heads, block.keys]).reshape(b, g, R, -1, K)
        here = (block.rows, block.heads, slice(None), block.queries)
        total[here] = sums.reshape(b, g, R, -1)
        np.divide(weighted, total[here][..., None], out=y[here])

    shared_out(attend, list(split(by_group, k, mask)), MANY)
    return y.reshape(B, H, T, K), Attended(by_group, k, v, y, total, shifts, kept, mask, scale, softcap)


def attention_backward(dy, saved):
    if isinstance(saved, Alone):
        saved = many_queries(*saved)[1]
    if not isinstance(saved, Attended):
        return reference("attention_backward", dy, saved)
    q, k, v, y, total, shifts, kept, mask, scale, softcap = saved
    B, G, R, T, K = q.shape
    S = k.shape[2]
    dy = dy.reshape(q.shape)
    dq = np.empty((B, T, G * R, K), dtype=q.dtype).reshape(B, T, G, R, K).transpose(0, 2, 3, 1, 4)
    dk, dv = (np.empty((B, S, G, K), dtype=k.dtype).transpose(0, 2, 1, 3) for _ in range(2))
    for block in split(q, k, mask):
        here = (block.rows, block.heads, slice(None), block.queries)
        there = (block.rows, block.heads, block.keys)
        queries = scaled(q, block, scale)
        scores = None if kept and softcap is None else score(queries, k[there], softcap)
        factor = None if softcap is None else slope(scores, softcap)
        e = kept[block.number] if kept else weights(scores, block, mask, shifts, again=True)
        b, g, Rt, _ = e.shape
        by = dy[here] / total[here][..., None]
        level = np.matmul(by * y[here], ones(K, by.dtype)).reshape(b, g, Rt, 1)  # Σ_K g·y
        by = by.reshape(b, g, Rt, K)
        ds = np.matmul(by, v[there].swapaxes(-1, -2))
        ds -= level
        ds *= e
        if factor is not None:
            ds *= factor
        np.multiply(np.matmul(ds, k[there]).reshape(b, g, R, -1, K), scale, out=dq[here])
        if block.queries.stop == T:  # the first to come to these keys
            dk[block.rows, block.heads, : block.keys.start] = dv[block.rows, block.heads, : block.keys.start] = 0
            dk[block.rows, block.heads, block.keys.stop :] = dv[block.rows, block.heads, block.keys.stop :] = 0
            np.matmul(ds.swapaxes(-1, -2), queries, out=dk[there])
            np.matmul(e.swapaxes(-1, -2), by, out=dv[there])
        else:
            dk[there] += np.matmul(ds.swapaxes(-1, -2), queries)
            dv[there] += np.matmul(e.swapaxes(-1, -2), by)
    return dq.reshape(B, G * R, T, K), dk, dv


def blockwise_attention(q, k, v, mask, scale, block, softcap=None):
    """The same meaning in blocks of another size: `attention` above has its own, which fit the cache."""
    if not served(q, k, v) or block < 1:  # a block of nothing: the body says what is wrong
        return reference("blockwise_attention", q, k, v, mask, scale, block, softcap)
    return attention(q, k, v, mask, scale, softcap)


def blockwise_attention_backward(dy, saved):
    if not isinstance(saved, Attended | Alone):
        return reference("blockwise_attention_backward", dy, saved)
    return attention_backward(dy, saved)


KERNELS = {
    "attention": attention,
    "attention_backward": attention_backward,
    "blockwise_attention": blockwise_attention,
    "blockwise_attention_backward": blockwise_attention_backward,
}
