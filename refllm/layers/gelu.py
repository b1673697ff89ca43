"""Gaussian error linear units (Hendrycks & Gimpel 2016, arXiv:1606.08415): x times the chance that a normal draw is below x.

gelu_erf:  y = x · Φ(x),                Φ(x) = (1 + erf(x / √2)) / 2
gelu_tanh: y = x · (1 + tanh(u)) / 2,   u = √(2/π) · (x + 0.044715 x³)

The second approximates the first within 5e-4; GPT-2 uses it. The two are different functions, not to be exchanged.
"""

import math

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen

SLOPE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


@op
def gelu_erf(x):
    """Apply the exact GELU to every number.

    x: (...)
    Returns y: (...) and what the backward pass needs.
    """
    xp = namespace(x)
    wide = widen(x)
    below = (1 + xp.erf(wide * math.sqrt(0.5))) / 2  # Φ(x)
    return narrow(wide * below, x), (x, below)


@op
def gelu_erf_backward(dy, saved):
    """Return dx: (...), given dy: (...).

    Φ' is the normal density φ(x) = exp(−x²/2) / √(2π), hence   dx = dy · (Φ(x) + x φ(x)).
    """
    xp = namespace(dy)
    x, below = saved
    wide = widen(x)
    density = xp.exp(wide * wide * -0.5) * (1 / math.sqrt(2 * math.pi))
    return narrow(widen(dy) * (below + wide * density), x)


@op
def gelu_tanh(x):
    """Apply the tanh approximation of GELU to every number.

    x: (...)
    Returns y: (...) and what the backward pass needs.
    """
    xp = namespace(x)
    wide = widen(x)
    t = xp.tanh(SLOPE * (wide + CUBIC * wide * wide * wide))
    return narrow(wide * (1 + t) / 2, x), (x, t)


@op
def gelu_tanh_backward(dy, saved):
    """Return dx: (...), given dy: (...).

    With t = tanh(u), t' = (1 − t²) · u' and u' = √(2/π) · (1 + 3 · 0.044715 x²):   dx = dy · (1 + t + x t') / 2.
    """
    x, t = saved
    wide = widen(x)
    slope = (1 - t * t) * (SLOPE * (1 + 3 * CUBIC * wide * wide))
    return narrow(widen(dy) * (1 + t + wide * slope) / 2, x)
