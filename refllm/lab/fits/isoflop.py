"""The best size at each budget, from losses at equal compute: a parabola of the loss in ln N, and the law of its minima.

    L(ln N) ≈ c₂·(ln N)² + c₁·ln N + c₀          N*(C) = exp(−c₁ / 2c₂)          N* ~ C^a

This is approach 2 of Hoffmann 2022 (arXiv:2203.15556, section 3.2). Where runs were not trained to equal compute but have losses
along their way, a size's loss at C is read between its own neighbours, ln L along a line in ln C, never beyond them; seeds by
their geometric mean. A power law is such a line, and a floor bends it by little: for L = R + B/D^β with any R ≥ 0 the line lies
above ln L by at most (β·h)²/32 with neighbours h apart in ln D, 0.05 % for β = 0.37 and D a factor √2 apart.

Two biases are left. L(N, C/6N) is no parabola in ln N, so even without noise a minimum moves as the grid grows wider or less
centred (arXiv:2603.22339): for Hoffmann's own law and nine sizes around the best by 0.3 % from half to twice it, by 5 % from a
sixteenth to sixteen times. `parabola_bias` says by how much on the very sizes that were used, for a law fitted to the same runs.
And losses along the way are too high where the learning rate was still to fall (Hoffmann 2022, section 2, of Kaplan 2020); those
of `refllm lab sweep` are of averaged weights at a constant rate.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refllm.lab.fits.laws import LossLaw
from refllm.lab.fits.runs import Runs

SAME = 1.1  # budgets within this factor are one
ROUND = (1, 2, 3, 5, 7)  # times powers of ten: the budgets that losses along runs are read at


class Valley(NamedTuple):
    """The losses at one budget."""

    flops: float  # C, the geometric mean
    runs: Runs
    curve: tuple[float, float, float]  # c₂, c₁, c₀ in ln N
    parameters: float  # N*
    loss: float  # at N*
    inside: bool  # whether N* lies among the sizes: else it is extrapolated

    @property
    def tokens(self) -> float | None:
        """D at N*, on a line in ln N between the sizes; None where N* lies beyond them."""
        if not self.inside:
            return None
        order = np.argsort(self.runs.parameters, kind="stable")
        x, y = np.log(self.runs.parameters[order]), np.log(self.runs.tokens[order])
        return math.exp(float(np.interp(math.log(self.parameters), x, y)))


class IsoFlop(NamedTuple):
    """All budgets together."""

    valleys: tuple[Valley, ...]
    exponent: float  # a of N* ~ C^a, through the minima among the sizes
    log_scale: float  # ln N* at ln C = 0
    interpolated: bool  # whether losses were read between those along the runs
    without: int  # budgets at which the losses have no minimum, or one beyond the sizes

    def best(self, C: float) -> float:
        """N* at C by the law of the minima."""
        return math.exp(self.log_scale + self.exponent * math.log(C))


def isoflop(runs: Runs, at: Sequence[float] | None = None) -> IsoFlop:
    """Fit a parabola to every budget with at least three sizes, and a line through the minima that lie among them.

    Where at least half of the losses are at a budget that three sizes share, the budgets are these; else losses are read along
    the runs, at round budgets that three sizes reach.
    at: the budgets in FLOPs, instead of all that there are
    Raises ValueError where fewer than two budgets have a minimum among the sizes, with the reason.
    """
    parts = [part for part in budgets(runs) if _sizes(part) >= 3]
    equal = 2 * sum(len(part.loss) for part in parts) >= len(runs.loss)
    if at is not None and equal:
        parts = [part for part in parts if any(part.flops.min() / SAME <= C <= part.flops.max() * SAME for C in at)]
    elif not equal:
        parts = [part for C in (at or round_budgets(runs)) if _sizes(part := at_budget(runs, C)) >= 3]
    valleys = tuple(v for v in (_valley(part) for part in parts) if v is not None)
    minima = [v for v in valleys if v.inside]
    if len(minima) < 2:
        raise ValueError(_why_not(parts, len(minima)))
    slope, at_zero = np.polyfit([math.log(v.flops) for v in minima], [math.log(v.parameters) for v in minima], 1)
    return IsoFlop(valleys, float(slope), float(at_zero), not equal, len(parts) - len(minima))


def exponents_without_a_size(runs: Runs, found: IsoFlop) -> list[float]:
    """The exponent at the same budgets when each size is left out in turn, the smallest first: how much a
    single size decides. A size without which there are fewer than two minima is skipped."""
    exponents = []
    for N in np.unique(runs.parameters):
        try:
            exponents.append(isoflop(runs.chosen(runs.parameters != N), [v.flops for v in found.valleys]).exponent)
        except ValueError:  # the others do not suffice
            continue
    return exponents


def budgets(runs: Runs) -> list[Runs]:
    """The runs in groups of equal compute, the smallest first. Losses whose compute lies closer together without being equal,
    as along runs, are in no group."""
    order = np.argsort(runs.flops, kind="stable")
    C = runs.flops[order]
    groups = np.split(order, np.flatnonzero(C[1:] > SAME * C[:-1]) + 1)
    return [runs.chosen(group) for group in groups if runs.flops[group].max() <= SAME * runs.flops[group].min()]


def round_budgets(runs: Runs) -> list[float]:
    """The round budgets that at least three sizes reach, the smallest first."""
    low, high = (math.floor(math.log10(C)) for C in (runs.flops.min(), runs.flops.max()))
    candidates = [digit * 10.0**power for power in range(low, high + 1) for digit in ROUND]
    return [C for C in candidates if _sizes(at_budget(runs, C)) >= 3]


def at_budget(runs: Runs, C: float) -> Runs:
    """One loss for each size with runs that reach C, between their own losses before and after it."""
    found: dict[float, list[tuple[float, float]]] = {}
    for name in np.unique(runs.run):
        mine = runs.chosen(runs.run == name)
        for N in np.unique(mine.parameters):
            curve = mine.chosen(mine.parameters == N)
            curve = curve.chosen(np.argsort(curve.flops))
            if curve.flops[0] <= C <= curve.flops[-1]:
                x = np.log(curve.flops)
                between = [float(np.interp(math.log(C), x, np.log(y))) for y in (curve.tokens, curve.loss)]
                found.setdefault(float(N), []).append((between[0], between[1]))
    sizes = sorted(found)
    means = np.array([np.mean(found[N], axis=0) for N in sizes]).reshape(-1, 2)
    names = np.array([f"{N:g}" for N in sizes], dtype=str)
    return Runs(np.array(sizes), np.exp(means[:, 0]), np.full(len(sizes), float(C)), np.exp(means[:, 1]), names, runs.unit)


def parabola_bias(law: LossLaw, valley: Valley) -> float:
    """The parabola's bias: N* of a parabola through this law's losses at the valley's sizes, over the law's own N*.

    Raises ValueError where one of them has no minimum there.
    """
    found, own = _valley(valley.runs._replace(loss=law.loss(valley.runs.parameters, valley.runs.tokens))), minimum(law, valley)
    if found is None or own is None:
        raise ValueError("on these sizes the law has no valley, so the parabola's bias cannot be told.")
    return found.parameters / own


def minimum(law: LossLaw, valley: Valley) -> float | None:
    """The law's own N* at the valley's budget among its sizes; None where it lies beyond them.

    A token of a size takes as many FLOPs as the runs' do, which may be more than 6·N; between sizes it follows a line in
    ln N.
    """
    x, first = np.unique(np.log(valley.runs.parameters), return_index=True)
    per_token = np.log(valley.runs.flops / valley.runs.tokens)[first]
    grid = np.linspace(x[0], x[-1], 4001)
    loss = law.loss(np.exp(grid), valley.flops / np.exp(np.interp(grid, x, per_token)))
    i = int(np.argmin(loss))
    if i in (0, len(grid) - 1):
        return None
    before, here, after = loss[i - 1 : i + 2]
    return math.exp(grid[i] + (grid[1] - grid[0]) * 0.5 * (before - after) / (before - 2 * here + after))


def exponent_by(law: LossLaw, found: IsoFlop) -> float | None:
    """The a of a law's own minima at the same budgets and sizes; None where fewer than two lie among these."""
    minima = [(v.flops, N) for v in found.valleys if v.inside and (N := minimum(law, v)) is not None]
    if len(minima) < 2:
        return None
    C, N = np.log(np.array(minima)).T
    return float(np.polyfit(C, N, 1)[0])


def _sizes(runs: Runs) -> int:
    return len(np.unique(runs.parameters))


def _valley(runs: Runs) -> Valley | None:
    x = np.log(runs.parameters)
    middle = float(x.mean())
    c2, c1, c0 = np.polyfit(x - middle, runs.loss, 2)
    if c2 <= 0:
        return None
    at = -c1 / (2 * c2)
    curve = (float(c2), float(c1 - 2 * c2 * middle), float(c0 - c1 * middle + c2 * middle**2))
    C = float(runs.flops[0] * np.exp(np.log(runs.flops / runs.flops[0]).mean()))  # exact where all are equal
    inside = bool(x.min() <= middle + at <= x.max())
    return Valley(C, runs, curve, float(np.exp(middle + at)), float(c0 - c1**2 / (4 * c2)), inside)


def _why_not(parts: Sequence[Runs], minima: int) -> str:
    """Why there is no law of minima, and what to do."""
    if not parts:
        return (
            "no budget is reached by three sizes, so no minimum can be found; train at least three sizes to the same compute, "
            "or fit L(N, D) instead: refllm lab frontier."
        )
    best = [part.parameters[np.argmin(part.loss)] for part in parts]
    smallest = sum(part.parameters.min() == N for part, N in zip(parts, best, strict=True))
    largest = sum(part.parameters.max() == N for part, N in zip(parts, best, strict=True))
    ends = list(dict.fromkeys(f"{part.flops.mean():.2g}" for part in (parts[0], parts[-1])))
    tried = (
        f"{minima} of {len(parts)} budgets ({' to '.join(ends)} FLOPs) have their minimum among the sizes, and a law needs two"
    )
    if smallest > largest:
        return (
            f"{tried}: at {smallest} the smallest size that gets so far is the best, since so little compute is better spent on "
            "tokens; train smaller sizes, or these for longer."
        )
    if largest:
        return f"{tried}: at {largest} the largest size is the best; train larger sizes, or look at smaller budgets."
    return f"{tried}: the losses show no minimum; train more sizes and seeds, or fit L(N, D) instead: refllm lab frontier."
