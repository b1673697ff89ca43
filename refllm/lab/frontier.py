"""How to spend a budget: the best number of parameters and tokens, with intervals, beside the laws in print.

And why two published answers differ: Kaplan's N* ~ C^0.73 leaves embeddings out of N and C and looks at small models, which turns
Hoffmann's law into an apparent 0.74 to 0.78 (Pearce & Song 2024, arXiv:2406.12907).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refllm.lab.fit import Fit
from refllm.lab.laws import LOSS_LAWS, LossLaw


class Split(NamedTuple):
    """A budget's best split; the intervals are 95 %, None without a bootstrap."""

    law: str
    flops: float
    parameters: float
    tokens: float
    loss: float
    parameters_interval: tuple[float, float] | None = None
    tokens_interval: tuple[float, float] | None = None

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


def frontier(fitted: Fit, budgets: Sequence[float]) -> list[Split]:
    """The best split of each budget by a fit of L(N, D), with intervals where it has a bootstrap."""
    law, *others = fitted.loss_laws()
    splits = []
    for C in budgets:
        split = best(law, C, "these runs")
        if others:
            N, D = zip(*(other.optimum(C) for other in others), strict=True)
            split = split._replace(parameters_interval=fitted.interval(N), tokens_interval=fitted.interval(D))
        splits.append(split)
    return splits


def published(budgets: Sequence[float]) -> list[Split]:
    """The same by the laws in print, whose N and loss are those of other data and another vocabulary."""
    return [best(law, C, name) for C in budgets for name, law in LOSS_LAWS.items()]


def best(law: LossLaw, C: float, name: str) -> Split:
    """The best split of one budget."""
    N, D = law.optimum(C)
    return Split(name, float(C), float(N), float(D), float(law.loss(N, D)))


def parameter_exponent(fitted: Fit) -> tuple[float, tuple[float, float] | None]:
    """a of N* ~ C^a, and its 95 % interval where the fit has a bootstrap."""
    law, *others = fitted.loss_laws()
    return law.parameter_exponent, fitted.interval([other.parameter_exponent for other in others]) if others else None


TABLES = 47491.0  # N = N_E + 47491·N_E^(1/3): what embeddings add, by Pearce & Song's regression on Hoffmann's models


def apparent_exponent(law: LossLaw, sizes: int = 20) -> float:
    """The k of N_E* ~ C_E^k that somebody finds who leaves embeddings out of N and of C = 6·N_E·D, at Kaplan's sizes.

    Their simulation: `sizes` models N_E from 10^2.9 to 10^9.2, budgets C_E from 10^12.95 to 10^20.7, at each the best of them.
    """
    N_E = np.logspace(2.9, 9.2, sizes)
    N = N_E + TABLES * np.cbrt(N_E)
    C_E = np.logspace(12.95, 20.7, 200)
    D = C_E[:, None] / (6 * N_E)
    chosen = N_E[np.argmin(law.loss(N, D), axis=1)]
    return float(np.polyfit(np.log(C_E), np.log(chosen), 1)[0])
