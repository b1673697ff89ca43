"""The value of repeated data: D′, the effective data, is how much fresh data would give the same loss.

Of U data read in e epochs, that is with e − 1 repetitions (Muennighoff 2023, arXiv:2305.16264, section 3),

    D′ = U + U·R*·(1 − exp(−(e − 1)/R*))          R* = 15.39 where large models read web text

After R* repetitions another one is worth 1/e of a fresh epoch, and D′ never exceeds U·(1 + R*).
This law only rises. Where a model over-fits, its held-out loss rises again and D′ falls, which needs a term of its own
(Lovelace 2026, arXiv:2605.01640). So R* is fitted to the epochs up to the greatest D′; a fit to all is reported beside it.

Intervals are Student's, of ln D′ and ln R* over seeds: a bootstrap of few seeds never reaches beyond the outermost of them, and
between the outermost of four the true mean lies 7 times in 8.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refllm.lab.fits.fit import mean_interval

PUBLISHED = 15.39  # R* of Muennighoff 2023
RMS = "rms_of_ln_D'"


def equal_data(losses: np.ndarray, D: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """How much fresh data reach the losses (E,), given fresh losses (n,) after D (n,) rising: (E,) float64.

    Fresh losses are made monotone by their running minimum. Between two of them ln D is linear in the loss; below the last it is
    the last ln D, and above the first the first.
    """
    falling = np.minimum.accumulate(fresh)
    return np.exp(np.interp(-losses, -falling, np.log(D)))


def predicted(epochs: np.ndarray, constant: Any) -> np.ndarray:
    """D′/U after epochs (E,) by the law with R* = constant, which broadcasts against them."""
    return 1 + constant * -np.expm1(-(epochs - 1) / constant)


def fit(epochs: np.ndarray, effective: np.ndarray) -> float:
    """R*, by least squares of ln D′ over epochs (E,) and D′/U (E,), searched from 0.01 to 10,000."""
    low, high = np.log(0.01), np.log(1e4)
    for _ in range(4):  # each search a hundred times finer
        tried = np.linspace(low, high, 401)
        errors = np.sum((np.log(predicted(epochs, np.exp(tried)[:, None])) - np.log(effective)) ** 2, axis=1)
        best, step = tried[np.argmin(errors)], tried[1] - tried[0]
        low, high = max(low, best - 2 * step), min(high, best + 2 * step)
    return float(np.exp(best))


def geometric_interval(values: Any) -> tuple[Any, Any, Any]:
    """The geometric mean of positive values (seeds, …), two seeds or more, and its 95 % interval."""
    mean, low, high = map(np.exp, mean_interval(np.log(values)))
    return mean, low, high


def summary(effective: np.ndarray, numbers: Sequence[int]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each of these numbers of epochs, (E,) rising from 1, and the numbers of the fit, given D′/U (seeds, E)."""
    epochs = np.array(numbers, dtype=float)
    mean, low, high = geometric_interval(effective)
    rising = max(2, int(np.argmax(mean)) + 1)
    constant, least, most = geometric_interval([fit(epochs[:rising], one[:rising]) for one in effective])
    fitted, published = predicted(epochs, constant), predicted(epochs, PUBLISHED)
    columns = {"epochs": numbers, "effective_epochs": mean, "low": low, "high": high, "share_of_fresh": mean / epochs}
    columns |= {"fitted": fitted, "published": published}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(epochs))]
    found = {"R*": constant, "low": least, "high": most, "published_R*": PUBLISHED, "fitted_up_to_epoch": numbers[rising - 1]}
    found[RMS] = np.sqrt(np.mean(np.log(mean / fitted)[:rising] ** 2))
    found["R*_of_all_epochs"] = geometric_interval([fit(epochs, one) for one in effective])[0]
    return rows, found
