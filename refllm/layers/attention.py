"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1), with key and value heads shared
by groups of query heads (Ainslie et al. 2023, arXiv:2305.13245).

P = softmax_S(scale · q kᵀ, over the keys that the mask lets a query see)          y = P v

With a soft cap c (Gemma Team 2024, arXiv:2408.00118, section 2) the scores are c · tanh(scale · q kᵀ / c).
Query head h reads key and value head h // R, R = H/G. So the R heads of a group are one matrix of R·T queries, and
no key is ever copied.
"""

from typing import Any, NamedTuple

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen
from refllm.layers.softcap import softcap, softcap_backward
from refllm.layers.softmax import softmax, softmax_backward

MASKED = -1e30  # finite, so that a query that sees nothing gives numbers, not NaN


class Mask(NamedTuple):
    """Which keys a query may see. Key s stands at position s; query t at start + t."""

    start: int = 0  # position of the first query among the keys: S − T when decoding
    causal: bool = True  # a query sees no later position
    window: int | None = None  # nor one this many positions back: with causal, it sees `window` positions, its own included
    valid: Any = None  # (B, S) bool array: False marks padding keys nobody sees; None: all are valid


def visible(mask: Mask, T: int, S: int, xp):
    """Return which of S keys each of T queries sees: (T, S) bool, or (B, 1, T, S) where padding differs by row."""
    query = xp.arange(mask.start, mask.start + T, dtype=xp.int32)[:, None]  # (T, 1)
    key = xp.arange(S, dtype=xp.int32)[None, :]  # (1, S)
    seen = key <= query if mask.causal else xp.ones((T, S), dtype=xp.bool)
    if mask.window is not None:
        seen = seen & (key > query - mask.window)
    if mask.valid is not None:
        seen = seen & mask.valid[:, None, None, :]
    return seen


def by_group(x, G: int):
    """Return x: (B, H, T, K) with the query heads of a group below each other: (B, G, R·T, K); so too for (B, H, T, S)."""
    B, H, T, width = x.shape
    return namespace(x).reshape(x, (B, G, H // G * T, width))


def masked_scores(q, k, mask: Mask, cap: float | None):
    """Return the products of queries and keys, capped where there is a cap and MASKED where unseen: (B, H, T, S).

    q: (B, H, T, K), scaled    k: (B, G, S, K)    cap: what no score passes, or None
    Beside them comes what is seen (see `visible`), and what `scores_backward` needs.
    """
    xp = namespace(q)
    (B, H, T, _), (_, G, S, _) = q.shape, k.shape
    products = xp.matmul(by_group(q, G), xp.matrix_transpose(k))  # (B, G, R·T, S)
    scores, capped = (products, None) if cap is None else softcap(products, cap)
    seen = visible(mask, T, S, xp)
    return xp.where(seen, xp.reshape(scores, (B, H, T, S)), MASKED), seen, capped


def scores_backward(dscores, capped):
    """Return the gradient of the products of queries and keys, given that of the scores seen; both (B, G, R·T, S)."""
    return dscores if capped is None else softcap_backward(dscores, capped)


@op
def attention(q, k, v, mask, scale, softcap=None):
    """Let every query gather the values of the keys that it sees, weighted by how well query and key agree.

    q: (B, H, T, K)    k: (B, G, S, K)    v: (B, G, S, K)    mask: Mask    scale: float, usually 1/√K
    softcap: float that no score passes, or None
    Returns y: (B, H, T, K), zero for a query that sees nothing, and what the backward pass needs.
    """
    xp = namespace(q)
    scores, seen, capped = masked_scores(widen(q) * scale, widen(k), mask, softcap)
    p, _ = softmax(scores)
    p = xp.where(seen, p, 0.0)  # matters to a query that sees nothing: its row is uniform before
    y = xp.matmul(by_group(p, k.shape[1]), widen(v))  # (B, G, R·T, K)
    return narrow(xp.reshape(y, q.shape), q), (q, k, v, p, scale, capped)


@op
def attention_backward(dy, saved):
    """Return dq: (B, H, T, K), dk: (B, G, S, K) and dv: (B, G, S, K), given dy: (B, H, T, K).

    From y = P v:   dv = Pᵀ dy,   dP = dy vᵀ.   Through the softmax, row by row:   ds = P · (dP − Σ_S dP·P).
    From s = scale · q kᵀ:   dq = scale · ds k,   dk = scale · dsᵀ q.   A cap in between multiplies ds by 1 − tanh².
    A group's queries are rows of one matrix, so the products sum over the heads that share a key.
    """
    xp = namespace(dy)
    q, k, v, p, scale, capped = saved
    G = k.shape[1]
    dy, p = by_group(widen(dy), G), by_group(p, G)
    dv = xp.matmul(xp.matrix_transpose(p), dy)
    ds = softmax_backward(xp.matmul(dy, xp.matrix_transpose(widen(v))), p)
    ds = scores_backward(ds, capped) * scale
    dq = xp.matmul(ds, widen(k))
    dk = xp.matmul(xp.matrix_transpose(ds), by_group(widen(q), G))
    return narrow(xp.reshape(dq, q.shape), q), narrow(dk, k), narrow(dv, v)
