"""Gradients without a derivation: the complex step of a forward pass (Squire & Trapp 1998, SIAM Review 40, 110–112).

f(x + i·h·t) = f(x) + i·h·f'(x)·t + O(h²),   hence   f'(x)·t = Im f(x + i·h·t) / h

Nothing is subtracted, so h may be so small (1e-30) that the rest is beyond float64, and the derivative is as exact as
the forward pass itself. It holds for every function made of analytic ones, and where it branches for the branch taken:
complex numbers compare by their real parts first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from refllm.array_api import kernels, load

STEP = 1e-30
_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x):
    """Return erf of a complex step, to first order:  erf(a + i·h) = erf(a) + i·h·2/√π·exp(−a²).  x: (...)"""
    real = np.asarray(_erf(x.real)).astype(x.real.dtype)
    return real + 1j * x.imag * (2 / math.sqrt(math.pi)) * np.exp(-x.real * x.real) if np.iscomplexobj(x) else real


@contextmanager
def complex_numbers() -> Iterator[None]:
    """Let NumPy's plain bodies compute on complex128 inside the block; no kernel runs, since kernels may be real.

    The change holds for the whole process, threads included, until the block ends.
    """
    numpy = load("numpy")
    names = vars(numpy.xp)
    real_erf = names["erf"]
    with kernels(numpy, {}):
        names["erf"] = erf
        try:
            yield
        finally:
            names["erf"] = real_erf


def is_differentiable(argument: Any) -> bool:
    """Return whether an argument is an array of real numbers, with respect to which there is a gradient."""
    return isinstance(argument, np.ndarray) and np.issubdtype(argument.dtype, np.floating)


def complex_step(f: Callable, arguments: Sequence, tangents: Sequence):
    """Return f(*arguments), and how fast it changes as every argument moves along its tangent.

    f: a forward pass of NumPy arrays; of several results, the first counts
    arguments: arrays and anything else f takes; those of floats are read as float64
    tangents: one per argument, of its shape, or None for one that stays
    """
    stepped = [
        a if not is_differentiable(a) else a.astype(np.complex128) + (0 if t is None else 1j * STEP * np.asarray(t, np.float64))
        for a, t in zip(arguments, tangents, strict=True)
    ]
    with complex_numbers():
        y = f(*stepped)
    y = y[0] if isinstance(y, tuple) else y
    return np.real(y), np.imag(y) / STEP


def complex_step_gradients(f: Callable, arguments: Sequence, dy) -> tuple[np.ndarray, ...]:
    """Return the gradient of Σ dy·f with respect to every array of floats among the arguments, in order, in float64.

    f: a forward pass of NumPy arrays; of several results, the first counts
    arguments: arrays and anything else f takes
    dy: of the shape of f's result
    f runs once for every number in the arguments: use small ones.
    """
    gradients = []
    for position, argument in enumerate(arguments):
        if not is_differentiable(argument):
            continue
        gradient = np.empty(argument.shape)
        for index in np.ndindex(argument.shape):
            tangent = np.zeros(argument.shape)
            tangent[index] = 1
            _, change = complex_step(f, arguments, [tangent if p == position else None for p in range(len(arguments))])
            gradient[index] = np.sum(dy * change)
        gradients.append(gradient)
    return tuple(gradients)


def gradient_error(f: Callable, f_backward: Callable, arguments: Sequence) -> float:
    """Return how far a backward pass is from the complex step of its forward, in float64, at a fixed random dy.

    f: arguments -> (y, saved)    f_backward: (dy, saved) -> the gradient of every array of floats, in order
    The worst difference over all gradients, as a share of the largest number in that gradient or in dy.
    Raises ValueError if the gradients are not as many, or not of the shapes, as the arrays of floats.
    """
    arguments = [a.astype(np.float64) if is_differentiable(a) else a for a in arguments]
    y, saved = f(*arguments)
    dy = np.asarray(np.random.default_rng(0).standard_normal(y.shape))
    found = f_backward(dy, saved)
    found = found if isinstance(found, tuple) else (found,)
    errors = []
    for ours, exact in zip(found, complex_step_gradients(f, arguments, dy), strict=True):
        if ours.shape != exact.shape:
            raise ValueError(f"a gradient has shape {ours.shape}; its argument has {exact.shape}.")
        errors.append(np.max(np.abs(ours - exact)) / max(np.max(np.abs(exact)), np.max(np.abs(dy))))
    return float(np.max(errors))
