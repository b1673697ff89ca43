"""Sums of power laws fitted to the logarithm of the loss (Hoffmann 2022, arXiv:2203.15556, appendix D.3), in NumPy alone.

    ŷᵢ = ln Σⱼ exp(aⱼ − αⱼ·ln xᵢⱼ)          minimise Σᵢ wᵢ·H(ŷᵢ − yᵢ)

with Huber's H(r) = r²/2 for |r| ≤ δ, δ·(|r| − δ/2) beyond. A floor is a term without a variable. The sum, not the mean, is
minimised, and relative to its own size: tolerances meant for losses near one stop on a sum of 10⁻³ long before its minimum.

Levenberg–Marquardt on reweighted least squares: H is bounded above by the parabola of weight min(1, δ/|r|) that touches it
(Huber 1964), so a step that lowers the parabola's sum lowers H's. Many starts, or many weightings for a bootstrap, go side by
side as the first axis. The gradient needs no exponential that could overflow: with s the shares of the terms,

    ∂ŷ/∂aⱼ = sⱼ          ∂ŷ/∂αⱼ = −sⱼ·ln xⱼ
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DELTA = 1e-3  # where H turns from a parabola into a line: Hoffmann's


class Terms(NamedTuple):
    """A sum of power laws: one term for each variable, and perhaps a floor, a constant term at the end."""

    variables: int
    floor: bool

    @property
    def total(self) -> int:
        return self.variables + self.floor

    @property
    def n_parameters(self) -> int:
        return self.total + self.variables


def prediction(p, logs, terms: Terms):
    """ŷ: (S, n), and the share of each term, (S, n, J).

    p: (S, P): the offsets aⱼ of the J terms, then the exponents αⱼ of the variables    logs: (n, variables), ln x
    """
    offsets, exponents = p[:, : terms.total], p[:, terms.total :]
    t = np.repeat(offsets[:, None, :], len(logs), axis=1)  # (S, n, J)
    t[..., : terms.variables] -= exponents[:, None, :] * logs
    top = t.max(axis=-1, keepdims=True)
    e = np.exp(t - top)
    total = e.sum(axis=-1, keepdims=True)
    return (top + np.log(total))[..., 0], e / total


def huber(r, delta: float):
    """H of residuals of any shape."""
    size = np.abs(r)
    return np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))


def objective(p, logs, y, weights, terms: Terms, delta: float = DELTA):
    """Σᵢ wᵢ·H(ŷᵢ − yᵢ): (S,), for parameters (S, P), y (n,) and weights (n,) or (S, n)."""
    return (weights * huber(prediction(p, logs, terms)[0] - y, delta)).sum(axis=-1)


def derivatives(p, logs, y, weights, terms: Terms, delta: float = DELTA):
    """Its gradient (S, P), and the Hessian (S, P, P) of the parabolas that bound it."""
    predicted, shares = prediction(p, logs, terms)
    r = predicted - y
    jacobian = np.concatenate([shares, -shares[..., : terms.variables] * logs], axis=-1)  # ∂ŷ/∂p: (S, n, P)
    scaled = jacobian * (weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300)))[..., None]
    transposed = scaled.swapaxes(1, 2)
    return np.matmul(transposed, r[..., None])[..., 0], np.matmul(transposed, jacobian)


def minimise(starts, logs, y, weights, terms: Terms, delta: float = DELTA, iterations: int = 500, tolerance: float = 1e-13):
    """Descend from every start: parameters (S, P) and their objectives (S,).

    starts: (S, P)    weights: (n,) or (S, n)    tolerance: of an accepted step's decrease, relative to the objective
    """
    p = np.array(starts, dtype=float)
    S, n = len(p), len(y)
    weights = np.broadcast_to(weights, (S, n))
    best = objective(p, logs, y, weights, terms, delta)
    damping, active = np.full(S, 1e-3), np.flatnonzero(np.isfinite(best))
    for _ in range(iterations):
        if not active.size:
            break
        step = _step(p[active], logs, y, weights[active], damping[active], terms, delta)
        tried = p[active] + step
        with np.errstate(all="ignore"):
            value = objective(tried, logs, y, weights[active], terms, delta)
        accepted = np.isfinite(value) & (value <= best[active])
        small = best[active] - value <= tolerance * np.maximum(best[active], 1e-300)
        taken = active[accepted]
        p[taken], best[taken] = tried[accepted], value[accepted]
        damping[active] = np.where(accepted, np.maximum(damping[active] / 10, 1e-12), damping[active] * 4)
        done = (accepted & small & (np.abs(step).max(axis=-1) < 1e-7)) | (damping[active] > 1e12)
        active = active[~done]
    return p, best


def _step(p, logs, y, weights, damping, terms: Terms, delta: float):
    """A damped Gauss–Newton step: (S, P)."""
    g, hessian = derivatives(p, logs, y, weights, terms, delta)
    diagonal = np.einsum("sii->si", hessian)
    ridge = damping[:, None] * diagonal + 1e-15 * diagonal.max(axis=-1, keepdims=True) + 1e-300
    index = np.arange(p.shape[1])
    hessian[:, index, index] += ridge
    return -np.linalg.solve(hessian, g[..., None])[..., 0]


def grid(logs, y, terms: Terms, exponents: Sequence[float] = (0.1, 0.3, 0.6, 1.0), floors: Sequence[float] = (0.1, 0.5, 0.9)):
    """Starts (S, P) for data of any scale: every exponent for every variable, floors as shares of the least loss.

    The rest of the loss at the middle of the data is shared out evenly among the terms with a variable.
    """
    middle, level, least = np.median(logs, axis=0), float(np.median(np.exp(y))), float(np.exp(y.min()))
    starts = []
    for powers in itertools.product(exponents, repeat=terms.variables):
        for share in floors if terms.floor else (0.0,):
            floor = share * least
            each = np.log((level - floor) / terms.variables)
            offsets = [each + power * m for power, m in zip(powers, middle, strict=True)]
            starts.append([*offsets, *([np.log(floor)] if terms.floor else []), *powers])
    return np.array(starts)
