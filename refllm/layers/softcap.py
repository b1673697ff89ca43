"""The soft cap (Bello et al. 2017, arXiv:1611.09940; Gemma Team 2024, arXiv:2408.00118, section 2).

y = c · tanh(x / c)

Numbers far below the cap c pass almost unchanged, large ones approach ±c and never pass it.
"""

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen


@op
def softcap(x, cap):
    """Bend every number so that it stays between −cap and cap.

    x: (...)    cap: float, positive
    Returns y: (...) and what the backward pass needs.
    """
    t = namespace(x).tanh(widen(x) / cap)
    return narrow(t * cap, x), t


@op
def softcap_backward(dy, saved):
    """Return dx: (...), given dy: (...).

    tanh' = 1 − tanh², and the factors c and 1/c cancel:   dx = dy · (1 − t²).
    """
    t = saved
    return narrow(widen(dy) * (1 - t * t), dy)
