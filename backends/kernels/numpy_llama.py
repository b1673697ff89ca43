"""A Llama's blocks for NumPy, where one row reads one token: what takes a tiny model's time is not its numbers but the calls.

So all layers are one kernel, which writes into the same few arrays of one axis, on which NumPy's functions begin at once; the
weights stay as they lie. Queries and keys lie side by side and turn as one, by cosines and sines that hold the queries' scale.

The softmax goes without the shift by the largest score where the sum of the exponentials shows that none was needed: with a sum
between e⁻³⁰ and e³⁰, none overflowed, and one that underflowed was less than 10⁻²⁴ of it.
"""

import math
from functools import lru_cache

import numpy as np

from .numpy_blocks import ones, reference
from .numpy_cached_attention import LONG, answer, scores_of, weighted

NAMES = ("attention_norm", *(f"attention.{m}" for m in "qkvo"), "ffn_norm", "ffn.gate", "ffn.up", "ffn.down")
LEAST, MOST = math.exp(-30), math.exp(30)


@lru_cache(maxsize=64)
def names_of(n_layers: int) -> tuple[tuple[str, ...], ...]:
    """The names of every layer's parameters."""
    return tuple(tuple(f"layers.{i}.{name}" for name in NAMES) for i in range(n_layers))


def llama_blocks(x, params, config, angles, mask, cache, dropout=None):
    layers = None
    if x.size == config.d_model and dropout is None and plain(config) and simple(cache, config, x.dtype):
        layers = [[params[name] for name in names] for names in names_of(config.n_layers)]
    if layers is None or {weight.dtype for layer in layers for weight in layer} != {x.dtype}:
        return reference("llama_blocks", x, params, config, angles, mask, cache, dropout)
    H, G, K, F, at, S = config.n_heads, config.n_kv_heads, config.d_head, config.d_ff, cache.length, cache.length + 1
    (cosines, sines), others = factors(*angles, H, G), partners(H + G, K)
    row, dtype, here = x.reshape(-1).copy(), x.dtype, at % cache.size
    qkv, turned, swapped = np.empty((H + 2 * G) * K, dtype), np.empty((H + G) * K, dtype), np.empty((H + G) * K, dtype)
    q, k, v, qk = qkv[: H * K], qkv[H * K : (H + G) * K], qkv[(H + G) * K :], qkv[: (H + G) * K]
    queries, key, value = turned[: H * K].reshape(1, G, H // G, K), turned[H * K :].reshape(G, K), v.reshape(G, K)
    (h, y), (a, b, s), one = np.empty((2, row.size), dtype), np.empty((3, F), dtype), np.array(1, dtype)
    with np.errstate(over="ignore"):  # exp may give ∞: a sum that shows it, or a sigmoid of 0
        for (norm1, wq, wk, wv, wo, norm2, gate, up, down), held in zip(layers, cache.layers, strict=True):
            normed(row, norm1, config.norm_eps, h)
            h.dot(wq, q)
            h.dot(wk, k)
            h.dot(wv, v)
            qk.take(others, None, swapped, "clip")
            np.multiply(qk, cosines, turned)
            swapped *= sines
            turned += swapped
            last_keys, last_values = held.keys[-1], held.values[-1]
            last_keys[0, :, here], last_values[0, :, here] = key, value
            keys, values = (*held.keys[:-1], last_keys[:, :, : here + 1]), (*held.values[:-1], last_values[:, :, : here + 1])
            gathered(queries, keys, values, S, mask).dot(wo, y)
            row += y
            normed(row, norm2, config.norm_eps, h)
            h.dot(gate, a)
            h.dot(up, b)
            np.negative(a, s)
            np.exp(s, s)
            s += one
            a /= s
            a *= b
            a.dot(down, y)
            row += y
    return row.reshape(x.shape), cache


def plain(config) -> bool:
    """Whether blocks are of the nine parameters, and their queries see all positions."""
    c = config
    return c.window is None and not (c.qkv_bias or c.o_bias or c.ffn_bias or c.qk_norm)


def simple(cache, config, dtype) -> bool:
    """Whether the one row sees all positions, and every layer's next one lies in a block that is its own."""
    block = cache.length // cache.size
    if dtype.char not in "fd" or cache.starts is not None or cache.quantised or block * cache.size < cache.owned:
        return False
    if cache.length * config.n_kv_heads * config.d_head >= LONG:  # where threads share the heads
        return False
    return not [
        held for held in cache.layers if len(held.keys) != block + 1 or held.window is not None or held.keys[-1].dtype != dtype
    ]


def normed(row, gain, eps, out):
    """RMSNorm of one row (D,) into `out`."""
    np.divide(row, np.array(math.sqrt(row.dot(row) / row.size + eps), row.dtype), out)
    out *= gain


def factors(cos, sin, H: int, G: int):
    """What H queries and G keys in a row are multiplied by as they lie, and where each pair is exchanged: both ((H + G)·K,).

    cos, sin: (1, K/2). The queries' are scaled by 1/√K.
    """
    half = cos.shape[-1]
    both = np.empty((2, H + G, 2, half), cos.dtype)
    both[0], both[1, :, 0], both[1, :, 1] = cos, -sin, sin
    both[:, :H] *= (2 * half) ** -0.5
    return both.reshape(2, -1)


@lru_cache(maxsize=16)
def partners(n: int, K: int):
    """Where the other number of each pair is, in a row of n heads: (n·K,)."""
    return np.arange(n * K).reshape(n, 2, K // 2)[:, ::-1].reshape(-1)


def gathered(queries, keys, values, S: int, mask):
    """What queries (1, G, R, K), scaled already, gather of the values of all S positions: (G·R·K,)."""
    e = scores_of(queries, keys, S, None)
    np.exp(e, e)
    total = e.reshape(-1, S).dot(ones(S, e.dtype))
    sums = total.tolist()
    if not (min(sums) > LEAST and sum(sums) < MOST):  # also where one is NaN
        return answer(queries, keys, values, S, mask, None).reshape(-1)
    y = weighted(e, values).reshape(-1)
    y /= total.repeat(queries.shape[-1])
    return y


KERNELS = {"llama_blocks": llama_blocks}
