"""The best size at each budget, from runs of equal compute: a parabola of the loss in ln N, and the law of its minima.

    L(ln N) ≈ c₂·(ln N)² + c₁·ln N + c₀          N*(C) = exp(−c₁ / 2c₂)          N* ~ C^a

This is approach 2 of Hoffmann 2022 (arXiv:2203.15556, section 3.2). It is biased even without noise: L(N, C/6N) is no parabola
in ln N, so a minimum moves as the grid grows wider or less centred, by 1 to 5 % for Hoffmann's own law (arXiv:2603.22339).
`parabola_bias` says by how much on the very grid that was used, for a law fitted to the same runs.
"""

import math
from typing import NamedTuple

import numpy as np

from refllm.lab.laws import LossLaw
from refllm.lab.runs import Runs

SAME = 1.1  # budgets within this factor are one


class Valley(NamedTuple):
    """The runs of one budget."""

    flops: float  # C, the geometric mean
    runs: Runs
    curve: tuple[float, float, float]  # c₂, c₁, c₀ in ln N
    parameters: float  # N*
    loss: float  # at N*
    inside: bool  # whether N* lies among the sizes: else it is extrapolated


class IsoFlop(NamedTuple):
    """All budgets together."""

    valleys: tuple[Valley, ...]
    exponent: float  # a of N* ~ C^a
    log_scale: float  # ln N* at ln C = 0


def isoflop(runs: Runs) -> IsoFlop:
    """Fit a parabola to every budget with at least three sizes, and a line through their minima.

    Raises ValueError where fewer than two budgets have a minimum.
    """
    valleys = tuple(v for v in (_valley(part) for part in budgets(runs)) if v is not None)
    if len(valleys) < 2:
        raise ValueError(
            f"{len(valleys)} budgets have three sizes or more and a minimum; the law of minima needs at least 2. "
            "Train several sizes with the same C = 6·N·D, or fit L(N, D) instead."
        )
    slope, at_zero = np.polyfit([math.log(v.flops) for v in valleys], [math.log(v.parameters) for v in valleys], 1)
    return IsoFlop(valleys, float(slope), float(at_zero))


def budgets(runs: Runs) -> list[Runs]:
    """The runs in groups of equal compute, the smallest first."""
    order = np.argsort(runs.flops, kind="stable")
    C = runs.flops[order]
    groups, start = [], 0
    for i in range(1, len(C) + 1):
        if i == len(C) or C[i] > SAME * C[start]:
            groups.append(runs.chosen(order[start:i]))
            start = i
    return groups


def _valley(runs: Runs) -> Valley | None:
    x = np.log(runs.parameters)
    if len(np.unique(x)) < 3:
        return None
    middle = float(x.mean())
    c2, c1, c0 = np.polyfit(x - middle, runs.loss, 2)
    if c2 <= 0:
        return None
    at = -c1 / (2 * c2)
    curve = (float(c2), float(c1 - 2 * c2 * middle), float(c0 - c1 * middle + c2 * middle**2))
    C = float(np.exp(np.log(runs.flops).mean()))
    inside = bool(x.min() <= middle + at <= x.max())
    return Valley(C, runs, curve, float(np.exp(middle + at)), float(c0 - c1**2 / (4 * c2)), inside)


def parabola_bias(law: LossLaw, valley: Valley) -> float:
    """What the parabola makes of this law without noise, on the valley's sizes: its N* over the law's own."""
    N = valley.runs.parameters
    D = valley.flops / (6 * N)
    noiseless = valley.runs._replace(tokens=D, flops=np.full(len(N), valley.flops), loss=law.loss(N, D))
    found = _valley(noiseless)
    if found is None:
        raise ValueError("on these sizes the law has no valley, so the parabola's bias cannot be told.")
    return found.parameters / float(law.optimum(valley.flops)[0])
