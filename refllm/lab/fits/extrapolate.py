"""How far a law can be trusted: fitted to the smaller runs, it predicts the larger ones that it has not seen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refllm.lab.fits.fit import Fit, fit
from refllm.lab.fits.huber import DELTA
from refllm.lab.fits.runs import Runs


class Extrapolation(NamedTuple):
    """A law of the smaller runs at the larger ones."""

    fitted: Fit
    held_out: Runs
    predicted: np.ndarray  # (m,) losses

    @property
    def errors(self) -> np.ndarray:
        """(m,): (predicted − measured) / measured."""
        return self.predicted / self.held_out.loss - 1

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(self.errors**2)))


def extrapolate(
    runs: Runs,
    variables: Sequence[str],
    floor: bool | float = True,
    *,
    by: str = "parameters",
    largest: int = 1,
    delta: float = DELTA,
    resamples: int = 0,
    seed: int = 0,
) -> Extrapolation:
    """Fit to all runs but those with the `largest` greatest values of the column `by`, and predict these.

    Raises ValueError where too few values are left, and as `fit` does.
    """
    values = np.unique(runs.column(by))
    if not 1 <= largest < len(values):
        has = f"{len(values)} value{'s' if len(values) != 1 else ''} of {by}"
        raise ValueError(f"the runs have {has}; {largest} of them cannot be held out.")
    beyond = runs.column(by) >= values[-largest]
    fitted = fit(runs.chosen(~beyond), variables, floor, delta=delta, resamples=resamples, seed=seed)
    held_out = runs.chosen(beyond)
    return Extrapolation(fitted, held_out, fitted.loss(*(held_out.column(v) for v in variables)))


class Choice(NamedTuple):
    """A law with a floor and one without, judged where neither was fitted."""

    with_floor: Extrapolation | None  # None where the runs are too few for it
    without: Extrapolation

    @property
    def laws(self) -> dict[str, Extrapolation]:
        """Those that there are, by name."""
        return {"no floor": self.without} | ({} if self.with_floor is None else {"with a floor": self.with_floor})

    @property
    def floor(self) -> bool:
        """Whether the law with a floor predicts better."""
        return self.with_floor is not None and self.with_floor.rms < self.without.rms


def choose(runs: Runs, variables: Sequence[str], *, by: str = "parameters", largest: int = 1, delta: float = DELTA) -> Choice:
    """Both laws fitted to the smaller runs and judged at the larger. A fit's own residuals would always prefer the floor."""
    without = extrapolate(runs, variables, False, by=by, largest=largest, delta=delta)
    try:
        return Choice(extrapolate(runs, variables, True, by=by, largest=largest, delta=delta), without)
    except ValueError:
        return Choice(None, without)
