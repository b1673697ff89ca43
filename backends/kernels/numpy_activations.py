"""GELU, SiLU and the feed-forward layers for NumPy: block by block, in place.

What is saved is what the forward pass has anyway: the input u and the factor Φ of y = u·Φ, or p = silu(a), σ(a) and b of
y = p·b. So forward does nothing for backward's sake, and the product y, wide as it is, is not kept but formed again.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import blocks, flat, ones, reference, served
from .numpy_parallel import shared_out

MANY = 8  # blocks, from which on threads share them

SLOPE, CUBIC = math.sqrt(2 / math.pi), 0.044715

# Φ(x) = (1 + erf(x/√2)) / 2 = (1 + tanh(x · P(x²))) / 2, because atanh(erf(x/√2)) / x is a smooth even function and tanh is
# NumPy's fastest. P is its minimax polynomial on |x| ≤ 5.6, found by Lawson's reweighted least squares with the weight
# |x| · sech²(x P) / 2 that carries an error of P to Φ: at most 0.24 · 2⁻²³. Beyond 5.6 the tanh is 1 in float32 and P ≥ 1.5 keeps
# it there: the leading coefficient is positive.
ERF_AS_TANH = (
    0.7978849414598896,
    0.03633308457652617,
    -3.259497893250851e-05,
    -5.5306192083846627e-05,
    3.964744080513275e-06,
    -1.3226330965316464e-07,
    1.7561698219411195e-09,
)


def cumulative_erf(u, out, scratch):
    """Φ of the normal distribution into `out`; all three arrays (n,) and float32."""
    square, t = scratch, out
    with np.errstate(over="ignore"):  # the tanh of infinity is right too
        np.multiply(u, u, out=square)
        np.multiply(square, ERF_AS_TANH[-1], out=t)
        for coefficient in ERF_AS_TANH[-2:0:-1]:
            t += coefficient
            t *= square
        t += ERF_AS_TANH[0]
        t *= u
    np.tanh(t, out=t)
    t *= 0.5
    t += 0.5


def slope_erf(u, factor, product, out):
    """d(u·Φ)/du = Φ + u·φ(u) into `out`, with φ the normal density; `product` = u·Φ is not needed."""
    np.multiply(u, u, out=out)
    out *= -0.5
    np.exp(out, out=out)
    out *= 1 / math.sqrt(2 * math.pi)
    out *= u
    out += factor


def cumulative_tanh(u, out, scratch):
    """(1 + tanh(√(2/π)·(u + 0.044715 u³))) / 2 into `out`."""
    np.multiply(u, u, out=scratch)
    scratch *= SLOPE * CUBIC
    scratch += SLOPE
    scratch *= u
    np.tanh(scratch, out=out)
    out *= 0.5
    out += 0.5


def slope_tanh(u, factor, product, out):
    """d(u·Φ)/du = Φ + 2·(u·Φ)·(1 − Φ)·√(2/π)·(1 + 3·0.044715 u²) into `out`: tanh' is 4·Φ·(1 − Φ)."""
    np.multiply(u, u, out=out)
    out *= 6 * SLOPE * CUBIC
    out += 2 * SLOPE
    out *= 1 - factor
    out *= product
    out += factor


class Gelu(NamedTuple):
    """A GELU: y = u·Φ(u)."""

    cumulative: Callable
    slope: Callable


GELUS = {"gelu_erf": Gelu(cumulative_erf, slope_erf), "gelu_tanh": Gelu(cumulative_tanh, slope_tanh)}


def gelu(name: str):
    """The kernels of one GELU and its backward."""
    kind = GELUS[name]

    def forward(x):
        if not gelu_served(name, x):
            return reference(name, x)
        u, factor, y = x.reshape(-1), np.empty(x.size, dtype=x.dtype), np.empty(x.size, dtype=x.dtype)
        for block in blocks(x.size, 1):
            kind.cumulative(u[block], factor[block], y[block])
            np.multiply(u[block], factor[block], out=y[block])
        return y.reshape(x.shape), Bent(u, factor, x.shape)

    def backward(dy, saved):
        if not isinstance(saved, Bent):
            return reference(f"{name}_backward", dy, saved)
        u, factor, shape = saved
        dy, dx = dy.reshape(-1), np.empty(dy.size, dtype=dy.dtype)
        for block in blocks(dx.size, 1):
            kind.slope(u[block], factor[block], u[block] * factor[block], dx[block])
            dx[block] *= dy[block]
        return dx.reshape(shape)

    return forward, backward


class Bent(NamedTuple):
    """What y = u·factor saves."""

    u: Any  # (n,)
    factor: Any  # (n,)
    shape: tuple[int, ...]


def gelu_served(name: str, *arrays) -> bool:
    """The polynomial behind gelu_erf is exact enough for float32 only."""
    return served(*arrays) and (name != "gelu_erf" or arrays[0].dtype == np.float32)


class Mlp(NamedTuple):
    x: Any  # (N, D)
    u: Any  # (N, F): x Up + up_bias
    factor: Any  # (N, F): Φ(u)
    up: Any
    down: Any
    activation: str
    shape: tuple[int, ...]


def mlp(x, up, up_bias, down, down_bias, activation):
    if activation not in GELUS or not gelu_served(activation, x, up, up_bias, down, down_bias):
        return reference("mlp", x, up, up_bias, down, down_bias, activation)
    rows = flat(x)
    u = rows @ up
    N, F = u.shape
    factor, h = np.empty_like(u), np.empty_like(u)
    for block in blocks(N, F):
        ub, fb, hb = u[block], factor[block], h[block]
        ub += up_bias
        GELUS[activation].cumulative(ub, fb, hb)
        np.multiply(ub, fb, out=hb)
    y = h @ down
    y += down_bias
    return y.reshape(x.shape), Mlp(rows, u, factor, up, down, activation, x.shape)


def mlp_backward(dy, saved):
    if not isinstance(saved, Mlp):
        return reference("mlp_backward", dy, saved)
    x, u, factor, up, down, activation, shape = saved
    N, F = u.shape
    rows = flat(dy)
    du = rows @ down.T  # dh, and then in place du
    h = np.empty_like(u)
    for block in blocks(N, F):
        ub, fb, hb, dub = u[block], factor[block], h[block], du[block]
        np.multiply(ub, fb, out=hb)
        slope = np.empty_like(ub)
        GELUS[activation].slope(ub, fb, hb, slope)
        dub *= slope
    each = ones(N, dy.dtype)
    return (du @ up.T).reshape(shape), x.T @ du, each @ du, h.T @ rows, each @ rows


def sigmoid(a, out):
    """σ(a) = 1 / (1 + exp(−a)) into `out`; 0 where exp(−a) overflows, for σ(a) is then below the smallest normal number."""
    np.negative(a, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def silu(a):
    if not served(a):
        return reference("silu", a)
    u, s, y = a.reshape(-1), np.empty(a.size, dtype=a.dtype), np.empty(a.size, dtype=a.dtype)
    for block in blocks(a.size, 1):
        sigmoid(u[block], s[block])
        np.multiply(u[block], s[block], out=y[block])
    return y.reshape(a.shape), Bent(u, s, a.shape)


def silu_slope(p, s, out):
    """dp/da = σ·(1 + a·(1 − σ)) = σ + p·(1 − σ) into `out`, for p = a·σ(a)."""
    np.subtract(1, s, out=out)
    out *= p
    out += s


def silu_backward(dy, saved):
    if not isinstance(saved, Bent):
        return reference("silu_backward", dy, saved)
    u, s, shape = saved
    dy, da = dy.reshape(-1), np.empty(dy.size, dtype=dy.dtype)
    for block in blocks(da.size, 1):
        silu_slope(u[block] * s[block], s[block], da[block])
        da[block] *= dy[block]
    return da.reshape(shape)


class Swiglu(NamedTuple):
    x: Any  # (N, D)
    p: Any  # (N, F): silu(a), a = x Gate
    s: Any  # (N, F): σ(a)
    b: Any  # (N, F): x Up
    gate: Any
    up: Any
    down: Any
    shape: tuple[int, ...]


def swiglu(x, gate, up, down):
    if not served(x, gate, up, down):
        return reference("swiglu", x, gate, up, down)
    rows = flat(x)
    p, b = rows.dot(gate), rows.dot(up)
    N, F = p.shape
    s, h = np.empty_like(p), np.empty_like(p)
    if N == 1:
        let_through(p, s, b, h)
    else:
        shared_out(lambda block: let_through(p[block], s[block], b[block], h[block]), blocks(N, F), MANY)
    return h.dot(down).reshape(x.shape), Swiglu(rows, p, s, b, gate, up, down, x.shape)


def let_through(p, s, b, h):
    """σ(a) into s, silu(a) in place of p = a, and silu(a)·b into h."""
    sigmoid(p, s)
    np.multiply(p, s, out=p)
    np.multiply(p, b, out=h)


def swiglu_backward(dy, saved):
    if not isinstance(saved, Swiglu):
        return reference("swiglu_backward", dy, saved)
    x, p, s, b, gate, up, down, shape = saved
    N, F = p.shape
    rows = flat(dy)
    db = rows @ down.T  # dh, and then in place db
    h, da = np.empty_like(p), np.empty_like(p)
    for block in blocks(N, F):
        pb, bb, dab, dbb = p[block], b[block], da[block], db[block]
        np.multiply(pb, bb, out=h[block])
        silu_slope(pb, s[block], dab)
        dab *= bb
        dab *= dbb
        dbb *= pb
    ddown = h.T @ rows
    dx = da @ gate.T
    dx += db @ up.T
    return dx.reshape(shape), x.T @ da, x.T @ db, ddown


class Geglu(NamedTuple):
    x: Any  # (N, D)
    u: Any  # (N, F): x Gate
    factor: Any  # (N, F): Φ(u), of the tanh approximation
    b: Any  # (N, F): x Up
    gate: Any
    up: Any
    down: Any
    shape: tuple[int, ...]


def geglu(x, gate, up, down):
    if not served(x, gate, up, down):
        return reference("geglu", x, gate, up, down)
    rows = flat(x)
    u, b = rows @ gate, rows @ up
    N, F = u.shape
    factor, h = np.empty_like(u), np.empty_like(u)
    for block in blocks(N, F):
        cumulative_tanh(u[block], factor[block], h[block])
        np.multiply(u[block], factor[block], out=h[block])
        h[block] *= b[block]
    return (h @ down).reshape(x.shape), Geglu(rows, u, factor, b, gate, up, down, x.shape)


def geglu_backward(dy, saved):
    if not isinstance(saved, Geglu):
        return reference("geglu_backward", dy, saved)
    x, u, factor, b, gate, up, down, shape = saved
    N, F = u.shape
    rows = flat(dy)
    db = rows @ down.T  # dh, and then in place db
    h, da = np.empty_like(u), np.empty_like(u)
    for block in blocks(N, F):
        ub, fb, bb, hb, dab, dbb = u[block], factor[block], b[block], h[block], da[block], db[block]
        np.multiply(ub, fb, out=hb)  # gelu(u), and then in place h
        slope_tanh(ub, fb, hb, dab)
        dab *= bb
        dab *= dbb
        dbb *= hb
        hb *= bb
    ddown = h.T @ rows
    dx = da @ gate.T
    dx += db @ up.T
    return dx.reshape(shape), x.T @ da, x.T @ db, ddown


_KINDS = {name: gelu(name) for name in GELUS}
KERNELS = {
    **{name: forward for name, (forward, _) in _KINDS.items()},
    **{f"{name}_backward": backward for name, (_, backward) in _KINDS.items()},
    "mlp": mlp,
    "mlp_backward": mlp_backward,
    "silu": silu,
    "silu_backward": silu_backward,
    "swiglu": swiglu,
    "swiglu_backward": swiglu_backward,
    "geglu": geglu,
    "geglu_backward": geglu_backward,
}
