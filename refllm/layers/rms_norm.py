"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467).

r = 1 / sqrt(mean_D(x²) + eps)          y = x · r · gain
"""

from refllm.array_api import namespace, op
from refllm.layers.linear import rows
from refllm.layers.precision import narrow, widen


@op
def rms_norm(x, gain, eps):
    """Scale every position of x to unit root-mean-square, then by a learned gain.

    x: (..., D)    gain: (D,)    eps: float, added to the mean square
    Returns y: (..., D) and what the backward pass needs.
    """
    xp = namespace(x)
    wide = widen(x)
    r = 1 / xp.sqrt(xp.mean(wide * wide, axis=-1, keepdims=True) + eps)  # (..., 1)
    return narrow(wide * r * widen(gain), x), (x, gain, r)


@op
def rms_norm_backward(dy, saved):
    """Return dx: (..., D) and dgain: (D,), given dy: (..., D).

    With n = x·r and dn = dy·gain,   dx = r · (dn − n · mean_D(dn·n)):
    the part of dn along n vanishes, because stretching x leaves n unchanged.
    """
    xp = namespace(dy)
    x, gain, r = saved
    dy = widen(dy)
    n = widen(x) * r
    dn = dy * widen(gain)
    dx = r * (dn - n * xp.mean(dn * n, axis=-1, keepdims=True))
    dgain = xp.sum(rows(dy * n), axis=0)
    return narrow(dx, x), narrow(dgain, gain)
