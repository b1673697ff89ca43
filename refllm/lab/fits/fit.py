"""A law fitted to runs: its constants with bootstrap intervals, its residuals, and what the data do not determine.

Runs are resampled whole (Efron 1979): several losses along one training run err together and are drawn together. Percentiles of
few runs are too narrow, so they are taken further out, as far as Student's t says (Hesterberg 2015, arXiv:1411.5279, section 5.3:
the expanded percentile interval):

    share beyond each end = Φ(−t₀.₉₇₅(ν) · √(n/ν))          n runs, ν = n − the number of constants
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.fits.huber import DELTA, Terms, grid, minimise, objective, prediction
from refllm.lab.fits.laws import LossLaw, PowerLaw
from refllm.lab.fits.runs import Runs

SYMBOLS = {"parameters": "N", "tokens": "D", "flops": "C"}
SCALES, EXPONENTS = {"N": "A", "D": "B", "C": "K"}, {"N": "alpha", "D": "beta", "C": "gamma"}
ALIKE = 1.1  # numbers within this factor count as equal
GONE = 1e-3  # of the least loss: a floor below it has gone to zero
ZERO = math.log(1e-9)  # and is called zero where its logarithm is below this
UNKNOWN = 0.5  # half an interval's width beyond this share of its constant: the data do not determine it


class Fit(NamedTuple):
    """A law L = E + Σ scale / x^exponent of some variables."""

    variables: tuple[str, ...]  # columns of Runs
    floor: float | None  # a floor that was given; None where it was fitted, 0 where there is none
    terms: Terms
    constants: dict[str, float]  # by symbol: E, A and alpha of N, B and beta of D, K and gamma of C
    intervals: dict[str, tuple[float, float]]  # 95 %, by symbol; empty without a bootstrap
    samples: np.ndarray  # (R, P) parameters of the bootstrap, as `huber` has them
    beyond: float  # the share of samples beyond each end of an interval
    p: np.ndarray  # (P,) those of the fit
    residuals: np.ndarray  # (n,) ln measured − ln fitted
    objective: float
    warnings: tuple[str, ...]

    @property
    def rms(self) -> float:
        """Root mean square of the residuals: the share of the loss by which the law misses it."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def loss(self, *values: Any) -> np.ndarray:
        """The law's loss at values of its variables, in their order: arrays of one shape."""
        return losses(self.p, self.terms, self.floor, *values)[0]

    def band(self, *values: Any) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of that loss. Raises ValueError for a fit without a bootstrap."""
        if not len(self.samples):
            raise ValueError("this fit has no bootstrap, so it has no intervals; fit it with resamples.")
        return spread(losses(self.samples, self.terms, self.floor, *values), self.beyond)

    def interval(self, samples: Any) -> tuple[float, float]:
        """The 95 % interval of something computed from each of the bootstrap's laws, (R,)."""
        low, high = spread(samples, self.beyond)
        return float(low), float(high)

    def power_laws(self) -> list[PowerLaw]:
        """The law in one variable, then those of the bootstrap. Raises ValueError for a law in more."""
        self._must_have(1)
        return [PowerLaw(self._floor(p), float(p[0]), float(p[-1])) for p in (self.p, *self.samples)]

    def loss_laws(self) -> list[LossLaw]:
        """The law in N and D, then those of the bootstrap. Raises ValueError for another law."""
        self._must_have(2)
        return [LossLaw(self._floor(p), *(float(x) for x in (*np.exp(p[:2]), *p[-2:]))) for p in (self.p, *self.samples)]

    def _must_have(self, variables: int) -> None:
        if len(self.variables) != variables:
            raise ValueError(f"this is a law in {' and '.join(self.variables)}; one in {variables} of the variables is needed.")

    def _floor(self, p: np.ndarray) -> float:
        return float(np.exp(p[self.terms.variables])) if self.terms.floor else float(self.floor or 0.0)


def fit(
    runs: Runs,
    variables: Sequence[str],
    floor: bool | float = True,
    *,
    delta: float = DELTA,
    resamples: int = 0,
    seed: int = 0,
) -> Fit:
    """Fit the loss as a sum of power laws of the variables, columns of Runs.

    floor: True fits it, False is none, a number is its known value
    delta: Huber's, in ln loss    resamples: of the bootstrap, 0 for no intervals
    Raises ValueError for too few runs, a variable with fewer than three values, or losses at or below a given floor.
    """
    variables, terms = tuple(variables), Terms(len(variables), floor is True)
    known = float(floor) if not isinstance(floor, bool) else 0.0
    _check(runs, variables, terms, known)
    logs, y = np.log(np.stack([runs.column(v) for v in variables], axis=1)), np.log(runs.loss - known)
    every, ones = grid(logs, y, terms), np.ones(len(y))
    found, values = minimise(every, logs, y, ones, terms, delta)
    p = found[np.argmin(values)]
    starts = p[None]
    if terms.floor and np.exp(p[len(variables)]) < GONE * runs.loss.min():  # nothing leads back from there: begin above it too
        starts = np.stack([p, every[np.argmin(objective(every, logs, y, ones, terms, delta))]])
    samples = bootstrap(starts, runs, logs, y, terms, delta, resamples, seed)
    beyond = share_beyond(len(np.unique(runs.run)), terms.n_parameters)
    intervals = {}
    for name, column in _constants(samples, variables, terms, known).items() if resamples else ():
        low, high = spread(column, beyond)
        intervals[name] = (float(low), float(high))
    constants = {name: float(column[0]) for name, column in _constants(p[None], variables, terms, known).items()}
    residuals = np.log(runs.loss) - np.log(losses(p, terms, known, *(runs.column(v) for v in variables))[0])
    told = warnings(constants, intervals, runs, terms)
    given = None if floor is True else known
    return Fit(variables, given, terms, constants, intervals, samples, beyond, p, residuals, float(values.min()), told)


def spread(samples: Any, beyond: float) -> tuple[Any, Any]:
    """The percentiles of samples (R, …) that leave a share beyond each end."""
    low, high = np.percentile(samples, (100 * beyond, 100 * (1 - beyond)), axis=0)
    return low, high


def share_beyond(n: int, constants: int) -> float:
    """The share of samples beyond each end of a 95 % interval, for constants fitted to n runs; 0 where nothing is left over."""
    v = n - constants
    if v < 1:
        return 0.0
    return NormalDist().cdf(-student(v) * math.sqrt(n / v))


def student(v: int) -> float:
    """The 97.5 % point of Student's t with v degrees of freedom: exact for 1 and 2, within 1 % beyond; infinite for none."""
    if v <= 2:
        return math.inf if v < 1 else math.tan(0.475 * math.pi) if v == 1 else 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = NormalDist().inv_cdf(0.975)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / v**i for i, term in enumerate(terms))  # Abramowitz & Stegun 1964, equation 26.7.5


def mean_interval(values: Any) -> tuple[Any, Any, Any]:
    """The mean of values (n, …), two or more, and its 95 % interval by Student's t."""
    n = len(values)
    mean, reach = np.mean(values, axis=0), student(n - 1) * np.std(values, axis=0, ddof=1) / math.sqrt(n)
    return mean, mean - reach, mean + reach


def losses(p: np.ndarray, terms: Terms, floor: float | None, *values: Any) -> np.ndarray:
    """The losses (S, …) of laws with parameters (S, P) or (P,), at values of their variables."""
    shape = np.shape(values[0])
    logs = np.log(np.stack([np.ravel(v) for v in values], axis=1).astype(float))
    return (np.exp(prediction(np.atleast_2d(p), logs, terms)[0]) + (floor or 0.0)).reshape(-1, *shape)


def bootstrap(starts, runs: Runs, logs, y, terms: Terms, delta: float, resamples: int, seed: int) -> np.ndarray:
    """The parameters (R, P) of fits to runs drawn with replacement: the best of the descents from each of the starts (K, P)."""
    if not resamples:
        return np.empty((0, terms.n_parameters))
    _, which = np.unique(runs.run, return_inverse=True)
    n = which.max() + 1
    draws = generator(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), size=resamples)
    parts = []
    for part in np.array_split(draws, -(-resamples // 250)):
        weights = part[:, which].astype(float)
        ends = [minimise(np.repeat(p[None], len(part), axis=0), logs, y, weights, terms, delta, 200, 1e-10) for p in starts]
        best = np.argmin([values for _, values in ends], axis=0)
        parts.append(np.stack([found for found, _ in ends])[best, np.arange(len(part))])
    return np.concatenate(parts)


def _constants(p: np.ndarray, variables: Sequence[str], terms: Terms, floor: float) -> dict[str, np.ndarray]:
    """The columns of parameters (S, P) as constants by symbol."""
    found = {}
    if terms.floor or floor:
        found["E"] = (
            np.where(p[:, terms.variables] > ZERO, np.exp(p[:, terms.variables]), 0.0) if terms.floor else np.full(len(p), floor)
        )
    for j, name in enumerate(variables):
        symbol = SYMBOLS[name]
        with np.errstate(over="ignore"):
            found[SCALES[symbol]] = np.exp(p[:, j])
        found[EXPONENTS[symbol]] = p[:, terms.total + j]
    return found


def warnings(constants: dict[str, float], intervals: dict[str, tuple[float, float]], runs: Runs, terms: Terms) -> tuple[str, ...]:
    """A sentence for each constant that the data do not determine, but for the scales A, B and K, which follow the exponents."""
    told, least, n = [], float(runs.loss.min()), len(np.unique(runs.run))
    if intervals and n <= terms.n_parameters:
        told.append(
            f"{n} runs are too few for intervals of {terms.n_parameters} constants: the true intervals are wider than these."
        )
    for variable in SYMBOLS.values():
        if constants.get(EXPONENTS[variable], 1.0) <= 0:
            told.append(f"the loss does not fall with {variable}: {EXPONENTS[variable]} is {constants[EXPONENTS[variable]]:.3g}.")
    for name, (low, high) in intervals.items():
        if name not in SCALES.values() and high > low:
            wide = (high - low) / 2 > UNKNOWN * abs(constants[name])
            if wide or (name == "E" and low < 0.05 * least):
                told.append(f"{name} is not identifiable from these runs: its 95 % interval is {low:.3g} … {high:.3g}.")
    if constants.get("E", least) < GONE * least:
        told.append("the floor E went to zero: over this range the losses do not show one.")
    return tuple(told)


def mixed(runs: Runs, variables: Sequence[str]) -> tuple[str, ...]:
    """A warning where a law in one variable is fitted to losses that differ in another one too; else none."""
    other = {"parameters": "tokens", "tokens": "parameters"}.get(variables[0]) if len(variables) == 1 else None
    if other is not None:
        low, high = float(runs.column(other).min()), float(runs.column(other).max())
        todo = "the last losses (--last)" if other == "tokens" else "the losses of one size"
        law = f"L({SYMBOLS[variables[0]]}) ignores that these losses have {low:.3g} to {high:.3g} {other}"
        return (f"{law}; fit it to {todo}, or fit L(N, D).",) if high > ALIKE * low else ()
    losses = runs.loss[np.argsort(runs.flops, kind="stable")]
    beaten = int((losses[1:] >= np.minimum.accumulate(losses)[:-1]).sum())
    if tuple(variables) == ("flops",) and beaten:
        return (
            f"L(C) is a law of the best loss at each C, and {beaten} of these {len(losses)} are no lower than a cheaper one.",
        )
    return ()


def _check(runs: Runs, variables: Sequence[str], terms: Terms, floor: float) -> None:
    n, needed = len(runs.loss), terms.n_parameters + 1
    if n < needed:
        raise ValueError(f"{n} runs cannot fit {terms.n_parameters} constants; give at least {needed}.")
    for name in variables:
        distinct, least = len(np.unique(runs.column(name))), 3 + (terms.floor and len(variables) == 1)
        if distinct < least:
            values = "value" if distinct == 1 else "values"
            raise ValueError(f"the runs have {distinct} {values} of {name}; a law in {SYMBOLS[name]} needs at least {least}.")
    if np.any(runs.loss <= floor):
        below = float(runs.loss.min())
        raise ValueError(f"a loss of {below:.4g} lies at or below the floor {floor:.4g}; a floor is below every loss.")
