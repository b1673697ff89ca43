"""Claims 1 to 4, judged from a sweep: the loss is a power law; what a doubling gains and a halving costs; curves bend smoothly.

Kaplan 2020 (arXiv:2001.08361) and Hoffmann 2022 (arXiv:2203.15556) found it with models of 10³ to 10¹⁰ parameters. Here it is
tested on the user's own, with the spread between seeds as the noise.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.lab.experiments.sweep_facts import (
    along_runs,
    averaged,
    cheapest,
    curves,
    ends,
    error_of,
    late,
    long_curves,
    pooled,
    predicted,
    runs_of,
    seed_spread,
)
from refllm.lab.fits.extrapolate import extrapolate
from refllm.lab.fits.fit import Fit, fit, student
from refllm.lab.fits.laws import BESIROGLU, KAPLAN, compute_factors
from refllm.lab.fits.runs import Runs
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding, together, within

TOLERANCE = 0.03  # of the loss: the error that a law may have on held-out losses
STRAIGHT = 0.01  # root mean square of the residuals in ln loss
RESAMPLES = 2000  # the interval of claim 3 has long tails, for which fewer are too few
Z = NormalDist().inv_cdf(0.975)
Results = Mapping[str, Any]


def judge_power_law(results: Results) -> Finding:
    """Claim 1. The law in N is fitted to all sizes but the largest, in D to each size's losses but the last, of which the worst
    predicted counts, in C to the compute frontier without its most expensive point, each with a floor or without as `predicted`
    chooses. Each prediction's error has a 95 % interval: in N and C from √2·σ, the standard deviation of the difference of two
    losses that differ in their seeds alone; in D, where both losses come from the same runs, from the spread of the single runs'
    errors between seeds. The claim holds where every interval lies within ± TOLERANCE and all residuals (rms of ln loss) are at
    most STRAIGHT. It fails where an interval lies outside, or residuals exceed both twice STRAIGHT and 2·σ. Otherwise it is
    undecidable.
    """
    runs = late(runs_of(results["sweep"]))
    means, sigma = averaged(runs), seed_spread(runs)
    N, C = predicted(ends(means), "parameters"), predicted(cheapest(means), "flops")
    D = max((predicted(curve, "tokens") for curve in long_curves(means)), key=lambda found: abs(error_of(found)))
    apart = Z * math.sqrt(2) * sigma
    verdicts, said = [], []
    for symbol, law, reach in (("N", N, apart), ("D", D, Z * along_runs(runs, D)), ("C", C, apart)):
        error, floor = error_of(law), "with a floor" if law.fitted.terms.floor else "no floor"
        verdict = within(error, error - reach, error + reach, -TOLERANCE, TOLERANCE)
        verdicts += [verdict, straight(law.fitted.rms, sigma)]
        said.append(f"{symbol} {100 * error:+.1f} ± {100 * reach:.1f} % ({floor}, residuals {100 * law.fitted.rms:.2f} %)")
    plain = error_of(extrapolate(ends(means), ("parameters",), False, by="parameters"))
    percent = [100 * x for x in (error_of(N), error_of(N) - apart, error_of(N) + apart)]
    why = f"Errors of the predictions: {', '.join(said)}. Without a floor the law in N is off by {100 * plain:+.1f} %."
    return Finding(percent[0], percent[1], percent[2], "% off at the largest size", together(verdicts), why)


def straight(rms: float, sigma: float) -> str:
    """The verdict on whether residuals, the rms of ln loss, are small enough for a power law, given σ."""
    return HOLDS if rms <= STRAIGHT else UNDECIDABLE if rms <= 2 * max(STRAIGHT, sigma) else FAILS


def judge_doubling(results: Results) -> Finding:
    """Claim 2. A parabola fitted to ln L over log₂ N at D_max gives the gain of a doubling at the smallest and the largest size.
    The claim holds where the ratio of the two, with all of its 95 % interval from the parabola's standard errors, lies within
    2/3 … 3/2, and fails where all of the interval lies outside. Otherwise it is undecidable.
    """
    runs = late(runs_of(results["sweep"]))
    last = ends(runs)
    factor, low, high = doubling(last, "parameters")
    ratio = gain_ratio(np.log2(last.parameters), np.log(last.loss))
    tokens = [doubling(curve, "tokens")[0] for curve in curves(runs) if len(curve.loss) > 2]
    law = fit(averaged(runs), ("parameters", "tokens")).loss_laws()[0]
    why = (
        f"Total loss ×{factor:.3f} per doubling of N, ×{np.mean(tokens):.3f} of D; reducible loss ×{2**-law.alpha:.3f} and "
        f"×{2**-law.beta:.3f} over a floor of {law.E:.2g}. A doubling gains at the largest size {ratio[0]:.2f} times "
        f"what it does at the smallest ({ratio[1]:.2f} … {ratio[2]:.2f})."
    )
    return Finding(factor, low, high, "× the loss, per doubling of N", within(*ratio, 2 / 3, 3 / 2), why)


def doubling(runs: Runs, variable: str) -> tuple[float, float, float]:
    """The factor of the total loss per doubling of a variable, with its 95 % interval: from a line fitted to ln L over log₂."""
    x, y = np.log2(runs.column(variable)), np.log(runs.loss)
    coefficients, covariance = _polynomial(x, y, 1)
    reach = student(len(x) - 2) * math.sqrt(covariance[0, 0])
    slope = float(coefficients[0])
    return math.exp(slope), math.exp(slope - reach), math.exp(slope + reach)


def gain_ratio(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The slope at the greatest x over that at the least, of a parabola fitted to y (n,) over x (n,), with its 95 % interval."""
    coefficients, covariance = _polynomial(x - x.mean(), y, 2)
    first, last = float((x - x.mean()).min()), float((x - x.mean()).max())
    ratio = (coefficients[1] + 2 * coefficients[0] * last) / (coefficients[1] + 2 * coefficients[0] * first)
    rng = generator(0, "gain ratio")
    errors = rng.multivariate_normal(np.zeros(3), covariance, size=4000, method="cholesky" if covariance.any() else "svd")
    drawn = coefficients + errors * student(len(x) - 3) / Z
    ratios = (drawn[:, 1] + 2 * drawn[:, 0] * last) / (drawn[:, 1] + 2 * drawn[:, 0] * first)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(ratio), float(min(low, ratio)), float(max(high, ratio))


def _polynomial(x: np.ndarray, y: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """A polynomial by least squares and its covariance. Raises ValueError for too few points."""
    if len(x) < degree + 2 or len(np.unique(x)) < degree + 1:
        raise ValueError(f"{len(x)} losses are too few to tell a curve from noise; give the sweep more sizes or seeds.")
    powers = np.vander(x, degree + 1)
    coefficients = np.polyfit(x, y, degree)
    variance = float(((y - powers @ coefficients) ** 2).sum()) / (len(x) - degree - 1)
    return coefficients, variance * np.linalg.inv(powers.T @ powers)


def judge_halving(results: Results) -> Finding:
    """Claim 3. By L(N, D) = E + A/N^α + B/D^β the reducible loss at the best split of compute falls as C^−γ, γ = αβ/(α+β), so
    2^(1/γ) times the compute halves it. The claim holds where one of 4 and 16 lies in the 95 % interval of this factor and the
    ends of the interval are less than four times apart. It fails where neither does. Otherwise it is undecidable.
    """
    runs = late(runs_of(results["sweep"]))
    found = fit(runs, ("parameters", "tokens"), resamples=RESAMPLES)
    factors = [2 ** (1 / law.compute_exponent) if law.compute_exponent > 0 else math.inf for law in found.loss_laws()]
    low, high = found.interval(np.minimum(factors[1:], 1e30))
    value = min(factors[0], 1e30)
    low, high = min(low, value), max(high, value)
    inside = [name for name, factor in (("quadratic", 4), ("quartic", 16)) if low <= factor <= high]
    verdict = FAILS if not inside else HOLDS if len(inside) == 1 and high < 4 * low else UNDECIDABLE
    law = found.loss_laws()[0]
    why = f"α = {law.alpha:.2f}, β = {law.beta:.2f}, E = {law.E:.2g}, γ = {law.compute_exponent:.3f}; {_floor(found)}"
    return Finding(value, low, high, "× the compute halves the reducible loss", verdict, why)


def _floor(found: Fit) -> str:
    low, high = found.intervals["E"]
    return f"the floor lies somewhere in {low:.2g} … {high:.2g}."


def judge_smooth(results: Results) -> Finding:
    """Claim 4. Second differences of ln L over snapshots evenly spaced in ln D, less each curve's mean, are zero but for noise
    where curves bend smoothly. The noise is their standard deviation between the seeds of one size. The claim fails where the
    largest exceeds what 5 % of as many normal variables would (Bonferroni). It holds where it does not, and this threshold is at
    most TOLERANCE of the loss, so that such a kink would have shown. Otherwise it is undecidable.
    """
    found = runs_of(results["sweep"])
    lines = curves(late(found))
    bends = {curve.run[0]: centred(np.diff(np.log(curve.loss), 2)) for curve in lines if len(curve.loss) > 3}
    if not bends:
        raise ValueError("no curve has four losses late in training; give the sweep more snapshots.")
    sizes = {curve.run[0]: curve.parameters[0] for curve in lines}
    noise = pooled([np.stack(mine) for mine in _by_size(bends, sizes) if len(mine) > 1])
    kinks = np.concatenate(list(bends.values())) / noise
    threshold = NormalDist().inv_cdf(1 - 0.025 / len(kinks))
    largest = float(np.abs(kinks).max())
    seen = threshold * noise
    verdict = HOLDS if largest <= threshold and seen <= TOLERANCE else FAILS if largest > threshold else UNDECIDABLE
    why = (
        f"Of {len(kinks)} second differences the largest is {largest:.1f} seed spreads, "
        f"{100 * largest * noise:.2f} % of the loss. "
        f"Noise alone reaches {threshold:.1f}, and hides kinks up to {100 * seen:.1f} %."
    )
    return Finding(largest, None, None, "seed spreads, the largest bend", verdict, why)


def centred(x: np.ndarray) -> np.ndarray:
    """x less its mean."""
    return x - x.mean()


def _by_size(bends: Mapping[str, np.ndarray], sizes: Mapping[str, float]) -> list[list[np.ndarray]]:
    return [[bend for run, bend in bends.items() if sizes[run] == n] for n in dict.fromkeys(sizes.values())]


def figures(results: Results) -> dict[str, Any]:
    """The laws of claim 1, in N, D (of the largest size) and C, with bands; the residuals of L(N, D), and its contours.

    Raises ValueError where the sweep has too few losses.
    """
    from refllm.lab import plots

    runs = late(runs_of(results["sweep"]))
    means, found = averaged(runs), {}
    largest = means.chosen(means.parameters == max(curve.parameters[0] for curve in long_curves(means)))
    for name, mine, variable in (
        ("law_in_N", ends(means), "parameters"),
        ("law_in_D", largest, "tokens"),
        ("law_in_C", cheapest(means), "flops"),
    ):
        law = fit(mine, (variable,), predicted(mine, variable).fitted.terms.floor, resamples=200)
        found[name] = plots.fitted(law, mine, variable)
    both = fit(runs, ("parameters", "tokens"))
    return found | {"residuals_of_N_and_D": plots.residuals(both, runs), "losses_by_N_and_C": plots.contours(both, runs)}


_FACTORS = compute_factors()

CLAIMS = (
    Claim(
        1,
        "Test loss is a power law in the number of parameters, in data and in compute.",
        "L(x) = E + (k/x)^γ, E fitted or 0; holds if residuals ≤ 1 % and the largest, held out, is predicted within 3 %",
        f"no floor, γ = {KAPLAN['parameters'].exponent} (N), {KAPLAN['tokens'].exponent} (D), {KAPLAN['flops'].exponent:.3f} (C):"
        " Kaplan 2020",
        ("sweep",),
        judge_power_law,
    ),
    Claim(
        2,
        "Each doubling improves performance by a consistent fraction.",
        "2^−slope of ln L over ln N; holds if the gain at the largest size is 2/3 to 3/2 of that at the smallest",
        f"total ×{KAPLAN['parameters'].per_doubling():.3f} for N, ×{KAPLAN['tokens'].per_doubling():.3f} for D: Kaplan 2020; "
        f"reducible ×{2**-BESIROGLU.alpha:.3f} and ×{2**-BESIROGLU.beta:.3f}: Besiroglu 2024",
        ("sweep",),
        judge_doubling,
    ),
    Claim(
        3,
        "Cross-entropy falls with the square of compute; or, at the best split, with its fourth power.",
        "2^(1/γ), γ = αβ/(α+β); 4 if quadratic, 16 if quartic; holds if one of them, fails if neither lies in the interval",
        f"×{_FACTORS['Hoffmann 2022']:.0f}: Hoffmann 2022; ×{_FACTORS['Besiroglu 2024']:.0f}: Besiroglu 2024; "
        f"×{_FACTORS['Kaplan 2020']:.1e}: Kaplan 2020",
        ("sweep",),
        judge_halving,
    ),
    Claim(
        4,
        "If a curve bends, it bends smoothly.",
        "max |Δ² ln L − mean| / seed spread over ln D; holds if noise alone reaches as far and a kink of 3 % would have shown",
        "",
        ("sweep",),
        judge_smooth,
    ),
)
