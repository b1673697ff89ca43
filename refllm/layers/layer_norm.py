"""Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450, equation 4).

c = x − mean_D(x)          r = 1 / sqrt(mean_D(c²) + eps)          y = c · r · gain + bias
"""

from refllm.array_api import namespace, op
from refllm.layers.linear import rows
from refllm.layers.precision import narrow, widen


@op
def layer_norm(x, gain, bias, eps):
    """Shift every position of x to mean zero, scale it to unit variance, then scale and shift by what is learned.

    x: (..., D)    gain: (D,)    bias: (D,)    eps: float, added to the variance
    Returns y: (..., D) and what the backward pass needs.
    """
    xp = namespace(x)
    wide = widen(x)
    centred = wide - xp.mean(wide, axis=-1, keepdims=True)
    r = 1 / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + eps)  # (..., 1)
    n = centred * r
    return narrow(n * widen(gain) + widen(bias), x), (x, gain, bias, n, r)


@op
def layer_norm_backward(dy, saved):
    """Return dx: (..., D), dgain: (D,) and dbias: (D,), given dy: (..., D).

    With n = c·r and dn = dy·gain,   dx = r · (dn − mean_D(dn) − n · mean_D(dn·n)):
    the mean of dn vanishes, because shifting x leaves n unchanged, and so does its part along n (as in `rms_norm`).
    """
    xp = namespace(dy)
    x, gain, bias, n, r = saved
    dy = widen(dy)
    dn = dy * widen(gain)
    dx = r * (dn - xp.mean(dn, axis=-1, keepdims=True) - n * xp.mean(dn * n, axis=-1, keepdims=True))
    dgain = xp.sum(rows(dy * n), axis=0)
    dbias = xp.sum(rows(dy), axis=0)
    return narrow(dx, x), narrow(dgain, gain), narrow(dbias, bias)
