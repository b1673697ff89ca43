"""What the claims about scale take from a sweep's losses: those that laws are fitted to, and the spread between seeds.

Losses enter a law where the model has read D ≥ D_max/4 and D ≥ 5·N tokens: earlier, losses fall faster than any law with a
floor, and with fewer tokens a model is limited by its data. The law in N is fitted to the losses at D_max, the law in C to the
compute frontier. The seed spread σ is the standard deviation of ln loss between seeds of one size at D_max, pooled over sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refllm.lab.fits.extrapolate import Extrapolation, choose, extrapolate
from refllm.lab.fits.runs import Runs, table

TOKENS_PER_PARAMETER = 5.0
LATE = 0.25  # of D_max


def runs_of(result: Mapping[str, Any]) -> Runs:
    """All losses of a sweep's result."""
    rows = result["tables"]["runs"]
    return table(rows, {row["unit"] for row in rows}, "the sweep")


def late(runs: Runs) -> Runs:
    """The losses that may enter a law. Raises ValueError where none may."""
    keep = (runs.tokens >= LATE * runs.tokens.max() * (1 - 1e-9)) & (runs.tokens >= TOKENS_PER_PARAMETER * runs.parameters)
    if not keep.any():
        raise ValueError(f"no model of the sweep read {TOKENS_PER_PARAMETER:g} tokens a parameter; give it more steps.")
    return runs.chosen(keep)


def ends(runs: Runs) -> Runs:
    """The losses at D_max."""
    return runs.chosen(runs.tokens >= runs.tokens.max() * (1 - 1e-9))


def cheapest(runs: Runs) -> Runs:
    """The compute frontier: the seeds' mean losses that are lower than at any smaller C."""
    means = averaged(runs)
    order = np.argsort(means.flops, kind="stable")
    least, keep = math.inf, []
    for i in order:
        if means.loss[i] < least:
            least = float(means.loss[i])
            keep.append(i)
    return means.chosen(np.array(keep))


def averaged(runs: Runs) -> Runs:
    """One loss for each size and number of tokens: the geometric mean over the seeds."""
    keys = np.stack([runs.parameters, runs.tokens], axis=1)
    distinct, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    logs = np.bincount(which, weights=np.log(runs.loss)) / np.bincount(which)
    return runs.chosen(first)._replace(loss=np.exp(logs), run=np.array([f"{n:g}" for n, _ in distinct]))


def curves(runs: Runs) -> list[Runs]:
    """The losses of every training run, in the order of its tokens."""
    found = [runs.chosen(runs.run == name) for name in dict.fromkeys(runs.run.tolist())]
    return [curve.chosen(np.argsort(curve.tokens)) for curve in found]


def seed_spread(runs: Runs) -> float:
    """σ, the standard deviation of ln loss between seeds at D_max. Raises ValueError where no size has two seeds."""
    last = ends(runs)
    groups = [np.log(last.loss[last.parameters == n]) for n in np.unique(last.parameters)]
    return pooled([group for group in groups if len(group) > 1])


def pooled(groups: Sequence[np.ndarray]) -> float:
    """The standard deviation within groups (S, …) about each group's mean of S. Raises ValueError where there are none."""
    freedom = sum((len(group) - 1) * group[0].size for group in groups)
    if not freedom:
        raise ValueError("no size has a second seed, so the spread of seeds is unknown; train each size with two seeds or more.")
    return math.sqrt(sum(float(((group - group.mean(axis=0)) ** 2).sum()) for group in groups) / freedom)


def long_curves(means: Runs) -> list[Runs]:
    """For every size with at least four late losses, these: enough for a law in D. Raises ValueError where no size has them."""
    sizes = [means.chosen(means.parameters == n) for n in np.unique(means.parameters)]
    if not (found := [curve for curve in sizes if len(curve.loss) > 3]):
        raise ValueError("no size has four losses late in training; give the sweep more snapshots.")
    return found


def predicted(runs: Runs, variable: str) -> Extrapolation:
    """The prediction of the loss at the largest x by a law fitted to all smaller x. Whether it has a floor is decided without the
    largest: of both forms, fitted to all but the two largest x, the better prediction of the second largest is chosen. There
    is no floor where these are too few to fit both.
    """
    x = runs.column(variable)
    try:
        floor = choose(runs.chosen(x < x.max()), (variable,), by=variable).floor
    except ValueError:
        floor = False
    return extrapolate(runs, (variable,), floor, by=variable)


def along_runs(runs: Runs, law: Extrapolation) -> float:
    """The standard error, between seeds, of a prediction in D from the mean over the seeds of one size: the standard deviation of
    the single runs' prediction errors within sizes, over the square root of this size's number of seeds.
    """
    errors: dict[float, list[float]] = {}
    for curve in curves(runs):
        if len(curve.loss) > 3:
            errors.setdefault(curve.parameters[0], []).append(error_of(predicted(curve, "tokens")))
    spread = pooled([np.array(mine) for mine in errors.values() if len(mine) > 1])
    return spread / math.sqrt(len(errors[law.held_out.parameters[0]]))


def error_of(found: Extrapolation) -> float:
    """The error of a prediction that is largest in magnitude, with its sign, as a share of the loss."""
    return float(found.errors[np.argmax(np.abs(found.errors))])
