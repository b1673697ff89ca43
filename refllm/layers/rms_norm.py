"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467).

r = 1 / sqrt(mean_D(x²) + eps)          y = x · r · gain
"""

from refllm.array_api import namespace, op


@op
def rms_norm(x, gain, eps):
    """Scale every position of x to unit root-mean-square, then by a learned gain.

    x: (..., D)    gain: (D,)    eps: float, added to the mean square
    Returns y: (..., D) and what the backward pass needs.
    """
    xp = namespace(x)
    r = 1 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)  # (..., 1)
    return x * r * gain, (x, gain, r)


@op
def rms_norm_backward(dy, saved):
    """Return dx: (..., D) and dgain: (D,), given dy: (..., D).

    With n = x·r and dn = dy·gain,   dx = r · (dn − n · mean_D(dn·n)):
    the part of dn along n vanishes, because stretching x leaves n unchanged.
    """
    xp = namespace(dy)
    x, gain, r = saved
    n = x * r
    dn = dy * gain
    dx = r * (dn - n * xp.mean(dn * n, axis=-1, keepdims=True))
    dgain = xp.sum(dy * n, axis=tuple(range(x.ndim - 1)))
    return dx, dgain
