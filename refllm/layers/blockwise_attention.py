"""Attention a block at a time, with a running softmax (Milakov & Gimelshein 2018, arXiv:1805.02867; Rabe & Staats 2021,
arXiv:2112.05682; Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4).

The meaning is `attention`'s. A block of queries goes over the keys block by block and holds, for every query,

top   = the largest score yet               total = Σ exp(score − top)               y = Σ exp(score − top) v

When a block brings a larger top, the two sums shrink by exp(old top − new top). No more than block² scores exist at a
time, so memory grows with T, not with T·S, and pairs of blocks in which no query sees a key are passed over.
"""

from refllm.array_api import namespace, op
from refllm.layers.attention import MASKED, Mask, by_group, masked_scores, scores_backward
from refllm.layers.blocks import blocks
from refllm.layers.precision import narrow, widen


def part(mask: Mask, query: int, key: int, key_stop: int) -> Mask:
    """Return the mask as seen by the queries from `query` on, among the keys from `key` to before `key_stop`."""
    valid = None if mask.valid is None else mask.valid[:, key:key_stop]
    return mask._replace(start=mask.start + query - key, valid=valid)


def sees(mask: Mask, T: int, S: int) -> bool:
    """Return whether the mask lets any of T queries see any of S keys, padding aside."""
    all_later = mask.causal and mask.start + T <= 0
    all_too_far_back = mask.window is not None and mask.start - mask.window >= S - 1
    return not (all_later or all_too_far_back)


def visible_blocks(mask: Mask, query: int, query_stop: int, S: int, block: int):
    """Yield (index, start, stop, its mask) of every block of keys that some query of a block of queries sees."""
    for index, (key, key_stop) in enumerate(blocks(S, block)):
        here = part(mask, query, key, key_stop)
        if sees(here, query_stop - query, key_stop - key):
            yield index, key, key_stop, here


@op
def blockwise_attention(q, k, v, mask, scale, block, softcap=None):
    """Let every query gather the values of the keys that it sees, `block` queries and keys at a time.

    q: (B, H, T, K)    k: (B, G, S, K)    v: (B, G, S, K)    mask: Mask    scale: float, usually 1/√K    block: int, positions
    softcap: float that no score passes, or None
    Returns y: (B, H, T, K), zero for a query that sees nothing, and what the backward pass needs.
    """
    xp = namespace(q)
    G, S = k.shape[1], k.shape[2]
    ys, log_totals = [], []
    for query, query_stop in blocks(q.shape[2], block):
        rows = widen(q[:, :, query:query_stop, :]) * scale  # (B, H, block, K)
        y = xp.zeros_like(rows)
        total = xp.zeros_like(rows[..., :1])
        top = xp.full_like(total, MASKED)
        for _, key, key_stop, here in visible_blocks(mask, query, query_stop, S, block):
            keys, values = widen(k[:, :, key:key_stop, :]), widen(v[:, :, key:key_stop, :])
            scores, seen, _ = masked_scores(rows, keys, here, softcap)  # (B, H, block, block)
            higher = xp.maximum(top, xp.max(scores, axis=-1, keepdims=True))
            shrink, top = xp.exp(top - higher), higher
            p = xp.where(seen, xp.exp(scores - top), 0.0)
            total = total * shrink + xp.sum(p, axis=-1, keepdims=True)
            y = y * shrink + xp.reshape(xp.matmul(by_group(p, G), values), y.shape)
        total = xp.where(total > 0, total, 1.0)  # a query that saw nothing: 0 / 1
        ys.append(y / total)
        log_totals.append(top + xp.log(total))
    y, log_total = xp.concat(ys, axis=2), xp.concat(log_totals, axis=2)  # (B, H, T, K), (B, H, T, 1)
    return narrow(y, q), (q, k, v, mask, scale, block, softcap, y, log_total)


@op
def blockwise_attention_backward(dy, saved):
    """Return dq: (B, H, T, K), dk: (B, G, S, K) and dv: (B, G, S, K), given dy: (B, H, T, K).

    The formulas are those of `attention_backward`. The probabilities are made again from the saved logarithms of their
    sums, P = exp(score − log Σ exp score), and the sum in ds = P · (dP − Σ_S dP·P) is known beforehand:
    Σ_s dP_ts P_ts = Σ_s Σ_k dy_tk v_sk P_ts = Σ_k dy_tk y_tk.
    """
    xp = namespace(dy)
    q, k, v, mask, scale, block, softcap, y, log_total = saved
    G, S = k.shape[1], k.shape[2]
    dy = widen(dy)
    along = xp.sum(dy * y, axis=-1, keepdims=True)  # (B, H, T, 1)
    dqs = []
    dks = [xp.zeros_like(widen(k[:, :, key:key_stop, :])) for key, key_stop in blocks(S, block)]
    dvs = [xp.zeros_like(widen(v[:, :, key:key_stop, :])) for key, key_stop in blocks(S, block)]
    for query, query_stop in blocks(q.shape[2], block):
        rows = widen(q[:, :, query:query_stop, :]) * scale  # (B, H, block, K)
        drows, dq = by_group(dy[:, :, query:query_stop, :], G), xp.zeros_like(by_group(rows, G))  # (B, G, R·block, K)
        for index, key, key_stop, here in visible_blocks(mask, query, query_stop, S, block):
            keys, values = widen(k[:, :, key:key_stop, :]), widen(v[:, :, key:key_stop, :])
            scores, seen, capped = masked_scores(rows, keys, here, softcap)
            p = xp.where(seen, xp.exp(scores - log_total[:, :, query:query_stop, :]), 0.0)
            dp = xp.reshape(xp.matmul(drows, xp.matrix_transpose(values)), p.shape)
            ds = scores_backward(by_group(p * (dp - along[:, :, query:query_stop, :]), G), capped)
            dq = dq + xp.matmul(ds, keys)
            dks[index] = dks[index] + xp.matmul(xp.matrix_transpose(ds), by_group(rows, G))  # rows carry the scale
            dvs[index] = dvs[index] + xp.matmul(xp.matrix_transpose(by_group(p, G)), drows)
        dqs.append(xp.reshape(dq * scale, rows.shape))
    return narrow(xp.concat(dqs, axis=2), q), narrow(xp.concat(dks, axis=2), k), narrow(xp.concat(dvs, axis=2), v)
