"""Softmax over the last axis (Bridle 1990): positive numbers that sum to one, in the ratios of the exponentials.

p_s = exp(x_s) / Σ_S exp(x)
"""

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen


@op
def softmax(x):
    """Turn every row of scores into probabilities.

    x: (..., S)
    Returns p: (..., S), and p again, which is all that the backward pass needs.
    """
    xp = namespace(x)
    wide = widen(x)
    e = xp.exp(wide - xp.max(wide, axis=-1, keepdims=True))  # the shift changes nothing but overflow
    p = narrow(e / xp.sum(e, axis=-1, keepdims=True), x)
    return p, p


@op
def softmax_backward(dp, p):
    """Return dx: (..., S), given dp: (..., S) and the forward's p.

    ∂p_s/∂x_u = p_s (δ_su − p_u), hence   dx = p · (dp − Σ_S dp·p).
    """
    xp = namespace(dp)
    dp, wide = widen(dp), widen(p)
    return narrow(wide * (dp - xp.sum(dp * wide, axis=-1, keepdims=True)), p)
