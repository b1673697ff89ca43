"""Attention over blocks of cached keys and values (equation 1 of Vaswani et al. 2017, arXiv:1706.03762), for decoding only.

y = attention(q, [k₁ … kₙ], [v₁ … vₙ])
"""

from refllm.array_api import op
from refllm.layers.attention import attention
from refllm.layers.cache_blocks import joined


@op
def cached_attention(q, keys, values, mask, scale, softcap=None):
    """Let new queries gather the values of all positions so far. It has no backward, since decoding never goes back.

    q: (B, H, T, K)    keys: blocks of positions, each (B or 1, G, s, K) or Quantised, S positions together    values: the same
    mask: Mask    scale: float, usually 1/√K    softcap: float that no score passes, or None
    Returns y: (B, H, T, K), zero for a query that sees nothing.
    """
    rows = q.shape[0]
    y, _ = attention(q, joined(keys, rows, q.dtype), joined(values, rows, q.dtype), mask, scale, softcap)
    return y
