"""Product with a matrix of weights, and with a bias added: the linear and the affine map.

linear: y = x W          affine: y = x W + b
"""

from refllm.array_api import namespace, op
from refllm.layers.precision import narrow, widen


def rows(x):
    """Return x: (..., D) with its leading axes merged into one: (N, D)."""
    return namespace(x).reshape(x, (-1, x.shape[-1]))


@op
def linear(x, weight):
    """Multiply every position of x by a matrix.

    x: (..., D)    weight: (D, F)
    Returns y: (..., F) and what the backward pass needs.
    """
    xp = namespace(x)
    y = xp.matmul(rows(widen(x)), widen(weight))  # two axes: one product on every backend
    return narrow(xp.reshape(y, (*x.shape[:-1], weight.shape[-1])), x), (x, weight)


@op
def linear_backward(dy, saved):
    """Return dx: (..., D) and dweight: (D, F), given dy: (..., F).

    y_nf = Σ_d x_nd W_df, hence   dx = dy Wᵀ   and   dW = xᵀ dy, a sum over all positions.
    """
    xp = namespace(dy)
    x, weight = saved
    dy = rows(widen(dy))
    dx = xp.matmul(dy, xp.matrix_transpose(widen(weight)))
    dweight = xp.matmul(xp.matrix_transpose(rows(widen(x))), dy)
    return narrow(xp.reshape(dx, x.shape), x), narrow(dweight, weight)


@op
def affine(x, weight, bias):
    """Multiply every position of x by a matrix and add a bias.

    x: (..., D)    weight: (D, F)    bias: (F,)
    Returns y: (..., F) and what the backward pass needs.
    """
    y, saved = linear(x, weight)
    return narrow(widen(y) + widen(bias), x), (saved, bias)


@op
def affine_backward(dy, saved):
    """Return dx: (..., D), dweight: (D, F) and dbias: (F,), given dy: (..., F).

    The bias is added at every position: db = Σ dy over the positions. The rest is the linear map's.
    """
    xp = namespace(dy)
    linear_saved, bias = saved
    dx, dweight = linear_backward(dy, linear_saved)
    return dx, dweight, narrow(xp.sum(rows(widen(dy)), axis=0), bias)
