"""The feed-forward layer of the first transformers (Vaswani et al. 2017, arXiv:1706.03762, equation 2), with GELU.

y = gelu(x Up + up_bias) Down + down_bias
"""

from refllm.array_api import op
from refllm.layers.gelu import gelu_erf, gelu_erf_backward, gelu_tanh, gelu_tanh_backward
from refllm.layers.linear import affine, affine_backward

ACTIVATIONS = {
    "gelu_erf": (gelu_erf, gelu_erf_backward),
    "gelu_tanh": (gelu_tanh, gelu_tanh_backward),
}


@op
def mlp(x, up, up_bias, down, down_bias, activation):
    """Widen every position of x, bend it, and return to the width of x.

    x: (..., D)    up: (D, F)    up_bias: (F,)    down: (F, D)    down_bias: (D,)    activation: a name in ACTIVATIONS
    Returns y: (..., D) and what the backward pass needs.
    """
    forward, _ = ACTIVATIONS[activation]
    a, up_saved = affine(x, up, up_bias)  # (..., F)
    h, activation_saved = forward(a)
    y, down_saved = affine(h, down, down_bias)  # (..., D)
    return y, (up_saved, activation_saved, down_saved, activation)


@op
def mlp_backward(dy, saved):
    """Return dx: (..., D), dup: (D, F), dup_bias: (F,), ddown: (F, D) and ddown_bias: (D,), given dy: (..., D).

    The forward read upwards.
    """
    up_saved, activation_saved, down_saved, activation = saved
    _, backward = ACTIVATIONS[activation]
    dh, ddown, ddown_bias = affine_backward(dy, down_saved)
    da = backward(dh, activation_saved)
    dx, dup, dup_bias = affine_backward(da, up_saved)
    return dx, dup, dup_bias, ddown, ddown_bias
