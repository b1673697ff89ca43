"""Mirostat, which steers the surprise of a text (Basu 2021, arXiv:2007.14966), in the form that is called its version 2:
the cut is made at a surprise, without the estimate of Zipf's exponent.

    s(token) = −log₂ p(token)       kept: s ≤ μ       μ ← μ − η · (s(chosen) − τ),  from μ = 2τ on

The surprise is that under the tempered distribution before the cut, as in the paper.
"""

import math

from refllm.array_api import namespace
from refllm.decoding.cuts import keep, surprises
from refllm.decoding.sampler import Mirostat


def surprise_cut(logits, mu):
    """Keep those of (B, V) that surprise by at most mu (B,) bits, and the likeliest; the others become −∞."""
    xp = namespace(logits)
    likeliest = logits >= xp.max(logits, axis=-1, keepdims=True)
    return keep(logits, (surprises(logits) / math.log(2) <= mu[:, None]) | likeliest)


def corrected(mu, logits, tokens, mirostat: Mirostat):
    """The next step's mu (B,), after tokens (B,) were chosen from logits (B, V). A row with token −1 keeps its own."""
    xp = namespace(logits)
    chosen = xp.maximum(tokens, xp.zeros_like(tokens))[:, None]
    surprise = xp.take_along_axis(surprises(logits), chosen, axis=-1)[:, 0] / math.log(2)
    moved = mu - mirostat.eta * (xp.astype(surprise, mu.dtype, copy=False) - mirostat.tau)
    return xp.where(tokens >= 0, moved, mu)
