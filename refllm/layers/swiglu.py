"""The gated feed-forward layer of Llama (Shazeer 2020, arXiv:2002.05202, equation 6) and its activation, the SiLU.

silu(a) = a · σ(a),   σ(a) = 1 / (1 + exp(−a))          y = (silu(x Gate) · x Up) Down
"""

from refllm.array_api import namespace, op
from refllm.layers.linear import linear, linear_backward
from refllm.layers.precision import narrow, widen


def sigmoid(a):
    """Return σ(a) = 1 / (1 + exp(−a)) for a: (...), by the exponential of a negative number, which never overflows."""
    xp = namespace(a)
    e = xp.exp(xp.minimum(a, -a))
    return xp.where(a >= 0, 1, e) / (1 + e)


@op
def silu(a):
    """Let every number pass in proportion to its sigmoid.

    a: (...)
    Returns y: (...) and what the backward pass needs.
    """
    s = sigmoid(widen(a))
    return narrow(widen(a) * s, a), (a, s)


@op
def silu_backward(dy, saved):
    """Return da: (...), given dy: (...).

    σ' = σ (1 − σ), hence   da = dy · σ · (1 + a (1 − σ)).
    """
    a, s = saved
    return narrow(widen(dy) * s * (1 + widen(a) * (1 - s)), a)


@op
def swiglu(x, gate, up, down):
    """Widen every position of x twice, let one of the two gate the other, and return to the width of x.

    x: (..., D)    gate: (D, F)    up: (D, F)    down: (F, D)
    Returns y: (..., D) and what the backward pass needs.
    """
    a, gate_saved = linear(x, gate)  # (..., F)
    b, up_saved = linear(x, up)  # (..., F)
    s, silu_saved = silu(a)
    y, down_saved = linear(s * b, down)  # (..., D)
    return y, (gate_saved, up_saved, down_saved, silu_saved, s, b)


@op
def swiglu_backward(dy, saved):
    """Return dx: (..., D), dgate: (D, F), dup: (D, F) and ddown: (F, D), given dy: (..., D).

    The product s·b gives each factor the gradient times the other; x feeds both branches, so their gradients add up.
    """
    gate_saved, up_saved, down_saved, silu_saved, s, b = saved
    dh, ddown = linear_backward(dy, down_saved)
    dx_up, dup = linear_backward(dh * s, up_saved)
    dx_gate, dgate = linear_backward(silu_backward(dh * b, silu_saved), gate_saved)
    return dx_gate + dx_up, dgate, dup, ddown
