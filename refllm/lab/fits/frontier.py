"""How to spend a budget: the best number of parameters and tokens, with intervals, beside the published laws; and what changes
where the model will also be used (Sardana 2023, arXiv:2401.00448).

And why two published answers differ: Kaplan's N* ~ C^0.73 leaves embeddings out of N and C and looks at small models, which turns
Hoffmann's law into an apparent 0.74 to 0.78 (Pearce & Song 2024, arXiv:2406.12907).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from refllm.lab.fits.fit import Fit
from refllm.lab.fits.laws import KAPLAN_BEST, LOSS_LAWS, PF_DAY, LossLaw


class Split(NamedTuple):
    """A budget's best split; the intervals are 95 %, None where there are none."""

    law: str
    flops: float
    parameters: float
    tokens: float
    loss: float | None  # None where only N is published
    parameters_interval: tuple[float, float] | None = None
    tokens_interval: tuple[float, float] | None = None

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


class Lifetime(NamedTuple):
    """The least operations for a loss, those of inference included: 6·N·D + 2·N·inference_tokens."""

    law: str
    flops: float  # the training budget whose best loss is to be reached
    inference_tokens: float
    loss: float
    parameters: float
    tokens: float  # to train on
    total: float  # operations of training and inference
    total_of_best_training: float  # the same with the split that is best for training alone
    parameters_interval: tuple[float, float] | None = None

    @property
    def saved(self) -> float:
        """The share of all operations that looking ahead saves."""
        return 1 - self.total / self.total_of_best_training


def frontier(fitted: Fit, budgets: Sequence[float]) -> list[Split]:
    """The best split of each budget by a fit of L(N, D), with intervals where it has a bootstrap.

    Raises ValueError for a law without a best split.
    """
    law = _law(fitted)

    def split(C: float) -> Split:
        N = _interval(fitted, lambda one: one.optimum(C)[0])
        D = _interval(fitted, lambda one: one.optimum(C)[1])
        return best(law, C, "these runs")._replace(parameters_interval=N, tokens_interval=D)

    return [split(C) for C in budgets]


def published(budgets: Sequence[float]) -> list[Split]:
    """The best splits by the published laws, whose N and loss are those of other data and another vocabulary; Kaplan's N and
    D = C/6N leave embeddings out."""
    scale, exponent = KAPLAN_BEST
    splits = []
    for C in budgets:
        N = scale * (C / PF_DAY) ** exponent
        splits += [Split("Kaplan 2020", C, N, C / (6 * N), None), *(best(law, C, name) for name, law in LOSS_LAWS.items())]
    return splits


def best(law: LossLaw, C: float, name: str) -> Split:
    """The best split of a budget by one law. name: of the law"""
    N, D = law.optimum(C)
    return Split(name, float(C), float(N), float(D), float(law.loss(N, D)))


def lifetimes(fitted: Fit, budgets: Sequence[float], inference_tokens: float) -> list[Lifetime]:
    """How the loss that each training budget can buy is reached with the least operations of training and inference.

    Raises ValueError for a law without a best split.
    """
    law = _law(fitted)

    def of(C: float) -> Lifetime:
        interval = _interval(fitted, lambda one: lifetime(one, C, inference_tokens, "").parameters)
        return lifetime(law, C, inference_tokens, "these runs")._replace(parameters_interval=interval)

    return [of(C) for C in budgets]


def lifetime(law: LossLaw, C: float, inference_tokens: float, name: str) -> Lifetime:
    """The least operations for the loss that one law's best split of C reaches. name: of the law"""
    split = best(law, C, name)
    loss = float(law.loss(split.parameters, split.tokens))
    N, D = law.lifetime_optimum(loss, inference_tokens)
    total = 6 * N * D + 2 * N * inference_tokens
    return Lifetime(name, float(C), inference_tokens, loss, N, D, total, C + 2 * split.parameters * inference_tokens)


def parameter_exponent(fitted: Fit) -> tuple[float, tuple[float, float] | None]:
    """a of N* ~ C^a, and its 95 % interval where the fit has a bootstrap. Raises ValueError for a law without a best split."""
    return _law(fitted).parameter_exponent, _interval(fitted, lambda law: law.parameter_exponent)


def compute_factor(fitted: Fit, share: float = 0.5) -> tuple[float, tuple[float, float] | None]:
    """How many times the compute leaves `share` of the reducible loss at the best split, and its 95 % interval where the fit has
    a bootstrap. Raises ValueError for a law without a best split."""

    def factor(law: LossLaw) -> float:
        return share ** (-1 / law.compute_exponent)

    return factor(_law(fitted)), _interval(fitted, factor)


def _law(fitted: Fit) -> LossLaw:
    law = fitted.loss_laws()[0]
    for symbol, exponent in (("N", law.alpha), ("D", law.beta)):
        if exponent <= 0:
            raise ValueError(
                f"by these runs the loss does not fall with {symbol} (its exponent is {exponent:.2g}), so no split is best; "
                "leave out early losses (--min-tokens, --min-ratio), or train more sizes for longer."
            )
    return law


def _interval(fitted: Fit, of: Callable[[LossLaw], float]) -> tuple[float, float] | None:
    """The 95 % interval of a quantity of the bootstrap's laws; None without a bootstrap, and where more of its laws lack the
    quantity than an interval leaves out, because by them the loss does not fall or their constants overflow."""
    values = []
    for law in fitted.loss_laws()[1:]:
        try:
            with np.errstate(all="ignore"):
                value = float(of(law)) if law.alpha > 0 and law.beta > 0 else np.nan
        except (ArithmeticError, ValueError):
            continue
        if 0 < value < np.inf:
            values.append(value)
    left_out = len(fitted.samples) - len(values)
    return fitted.interval(values) if values and left_out <= fitted.beyond * len(fitted.samples) else None


EMBEDDINGS = 47491.0  # N = N_E + 47491·N_E^(1/3): what embeddings add, by Pearce & Song's regression on Hoffmann's models


def apparent_exponent(law: LossLaw, sizes: int = 20) -> float:
    """The k of N_E* ~ C_E^k that is found when embeddings are left out of N and of C = 6·N_E·D, at Kaplan's sizes.

    Pearce & Song's simulation: `sizes` models, N_E from 10^2.9 to 10^9.2, budgets C_E from 10^12.95 to
    10^20.7, at each the best of them.
    """
    N_E = np.logspace(2.9, 9.2, sizes)
    N = N_E + EMBEDDINGS * np.cbrt(N_E)
    C_E = np.logspace(12.95, 20.7, 200)
    D = C_E[:, None] / (6 * N_E)
    chosen = N_E[np.argmin(law.loss(N, D), axis=1)]
    return float(np.polyfit(np.log(C_E), np.log(chosen), 1)[0])
