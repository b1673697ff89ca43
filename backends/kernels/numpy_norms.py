"""RMSNorm and LayerNorm for NumPy: block by block, sums by BLAS, written in place.

Sums over D are products with ones (`x @ ones`, BLAS gemv) or inner products (`vecdot`, BLAS dot). The gain leaves the sums of
the backward pass by associativity: Σ_D dy·gain·x = (dy·x) @ gain, so that one product dy·x serves dgain and dx alike.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .numpy_blocks import blocks, flat, ones, reference, served


class RmsNormed(NamedTuple):
    x: Any  # (N, D)
    gain: Any  # (D,)
    root: Any  # (N,), or () for one row: 1 / r
    shape: tuple[int, ...]


def rms_norm(x, gain, eps):
    if not served(x, gain):
        return reference("rms_norm", x, gain, eps)
    if x.size == gain.size:
        return one_row(x, gain, eps)
    rows = flat(x)
    N, D = rows.shape
    y, root = np.empty((N, D), dtype=x.dtype), np.empty(N, dtype=x.dtype)
    for block in blocks(N, D):
        xb, rb, yb = rows[block], root[block], y[block]
        np.vecdot(xb, xb, out=rb)
        rb *= 1 / D
        rb += eps
        np.sqrt(rb, out=rb)
        np.divide(xb, rb[:, None], out=yb)
        yb *= gain
    return y.reshape(x.shape), RmsNormed(rows, gain, root, x.shape)


def one_row(x, gain, eps):
    """The norm of decoding's step, x (1, …, D): arrays of one axis and none, on which NumPy's functions begin at once."""
    row = x.reshape(-1)
    root = np.array(math.sqrt(row.dot(row) / row.size + eps), dtype=x.dtype)
    y = row / root
    y *= gain
    return y.reshape(x.shape), RmsNormed(row[None], gain, root, x.shape)


def rms_norm_backward(dy, saved):
    if not isinstance(saved, RmsNormed):
        return reference("rms_norm_backward", dy, saved)
    x, gain, root, shape = saved
    rows = flat(dy)
    N, D = rows.shape
    r = 1 / root.reshape(-1)
    dx, dgain = np.empty((N, D), dtype=dy.dtype), np.zeros(D, dtype=dy.dtype)
    for block in blocks(N, D):
        xb, rb, dyb, dxb = x[block], r[block], rows[block], dx[block]
        product = dyb * xb
        dgain += rb @ product  # Σ_N dy · x·r
        along = product @ gain  # Σ_D dn·x, with dn = dy·gain
        along *= rb
        along *= rb
        along *= 1 / D  # r² · mean_D(dn·x)
        np.multiply(xb, along[:, None], out=product)
        np.multiply(dyb, gain, out=dxb)
        dxb -= product
        dxb *= rb[:, None]
    return dx.reshape(shape), dgain


class LayerNormed(NamedTuple):
    n: Any  # (N, D): x, centred and scaled to unit variance
    gain: Any  # (D,)
    r: Any  # (N,)
    shape: tuple[int, ...]


def layer_norm(x, gain, bias, eps):
    if not served(x, gain, bias):
        return reference("layer_norm", x, gain, bias, eps)
    rows = flat(x)
    N, D = rows.shape
    y, n, r = np.empty((N, D), dtype=x.dtype), np.empty((N, D), dtype=x.dtype), np.empty(N, dtype=x.dtype)
    for block in blocks(N, D):
        xb, nb, rb, yb = rows[block], n[block], r[block], y[block]
        np.matmul(xb, ones(D, x.dtype), out=rb)
        rb *= 1 / D
        np.subtract(xb, rb[:, None], out=nb)
        np.vecdot(nb, nb, out=rb)
        rb *= 1 / D
        rb += eps
        np.sqrt(rb, out=rb)
        np.reciprocal(rb, out=rb)
        nb *= rb[:, None]
        np.multiply(nb, gain, out=yb)
        yb += bias
    return y.reshape(x.shape), LayerNormed(n, gain, r, x.shape)


def layer_norm_backward(dy, saved):
    if not isinstance(saved, LayerNormed):
        return reference("layer_norm_backward", dy, saved)
    n, gain, r, shape = saved
    rows = flat(dy)
    N, D = rows.shape
    dx, dgain, dbias = np.empty((N, D), dtype=dy.dtype), np.zeros(D, dtype=dy.dtype), np.zeros(D, dtype=dy.dtype)
    for block in blocks(N, D):
        nb, rb, dyb, dxb = n[block], r[block], rows[block], dx[block]
        each = ones(len(rb), dy.dtype)
        product = dyb * nb
        dgain += each @ product
        dbias += each @ dyb
        along, level = product @ gain, dyb @ gain  # D · mean_D(dn·n) and D · mean_D(dn), with dn = dy·gain
        along *= 1 / D
        level *= 1 / D
        np.multiply(nb, along[:, None], out=product)
        np.multiply(dyb, gain, out=dxb)
        dxb -= product
        dxb -= level[:, None]
        dxb *= rb[:, None]
    return dx.reshape(shape), dgain, dbias


KERNELS = {
    "rms_norm": rms_norm,
    "rms_norm_backward": rms_norm_backward,
    "layer_norm": layer_norm,
    "layer_norm_backward": layer_norm_backward,
}
