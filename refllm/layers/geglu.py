"""The gated feed-forward layer of Gemma (Shazeer 2020, arXiv:2002.05202, equation 6, with the tanh approximation of GELU).

y = (gelu_tanh(x Gate) · x Up) Down
"""

from refllm.array_api import op
from refllm.layers.gelu import gelu_tanh, gelu_tanh_backward
from refllm.layers.linear import linear, linear_backward


@op
def geglu(x, gate, up, down):
    """Widen every position of x twice, let one of the two gate the other, and return to the width of x.

    x: (..., D)    gate: (D, F)    up: (D, F)    down: (F, D)
    Returns y: (..., D) and what the backward pass needs.
    """
    a, gate_saved = linear(x, gate)  # (..., F)
    b, up_saved = linear(x, up)  # (..., F)
    s, gelu_saved = gelu_tanh(a)
    y, down_saved = linear(s * b, down)  # (..., D)
    return y, (gate_saved, up_saved, down_saved, gelu_saved, s, b)


@op
def geglu_backward(dy, saved):
    """Return dx: (..., D), dgate: (D, F), dup: (D, F) and ddown: (F, D), given dy: (..., D).

    The product s·b gives each factor the gradient times the other; x feeds both branches, so their gradients add up.
    """
    gate_saved, up_saved, down_saved, gelu_saved, s, b = saved
    dh, ddown = linear_backward(dy, down_saved)
    dx_up, dup = linear_backward(dh * s, up_saved)
    dx_gate, dgate = linear_backward(gelu_tanh_backward(dh * b, gelu_saved), gate_saved)
    return dx_gate + dx_up, dgate, dup, ddown
