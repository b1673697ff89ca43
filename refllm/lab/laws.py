"""Laws of loss in the number of parameters N, of training tokens D and of operations C, and those in print.

    L(x) = E + (k/x)^γ                    one variable, with a floor E or without
    L(N, D) = E + A/N^α + B/D^β           Hoffmann 2022, arXiv:2203.15556, equation 2

What is above the floor is the reducible loss. With C = 6·N·D operations to spend, the least loss is at

    N* = G·(C/6)^a     D* = (C/6)^b / G     a = β/(α+β)     b = α/(α+β)     G = (αA / βB)^(1/(α+β))

(their equation 4), and there the reducible loss falls as C^−γ with γ = αβ/(α+β), N's term being the share b' = β/(α+β) of it.
"""

import math
from typing import NamedTuple

import numpy as np


class PowerLaw(NamedTuple):
    """L(x) = E + e^a · x^−γ."""

    floor: float  # E; 0 for a law without one
    log_scale: float  # a
    exponent: float  # γ

    def loss(self, x):
        """The loss at x, a number or an array."""
        return self.floor + np.exp(self.log_scale - self.exponent * np.log(x))

    def per_doubling(self) -> float:
        """What doubling x multiplies the reducible loss by."""
        return 2**-self.exponent

    def factor_to_halve(self) -> float:
        """How many times x halves the reducible loss."""
        return 2 ** (1 / self.exponent) if self.exponent > 0 else math.inf


class LossLaw(NamedTuple):
    """L(N, D) = E + A/N^α + B/D^β, in the loss's unit per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, N, D):
        """The loss of N parameters trained on D tokens."""
        return self.E + self.A / np.asarray(N) ** self.alpha + self.B / np.asarray(D) ** self.beta

    @property
    def parameter_exponent(self) -> float:
        """a of N* ~ C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def compute_exponent(self) -> float:
        """γ of the reducible loss ~ C^−γ at the best split."""
        return self.alpha * self.beta / (self.alpha + self.beta)

    def optimum(self, C):
        """The N and D that C = 6·N·D operations are best spent on."""
        a = self.parameter_exponent
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return G * (np.asarray(C) / 6) ** a, (np.asarray(C) / 6) ** (1 - a) / G

    def frontier(self, C) -> PowerLaw:
        """The loss at the best split as a law in C; C: any budget, for the law's scale."""
        N, D = self.optimum(C)
        reducible = float(self.loss(N, D) - self.E)
        return PowerLaw(self.E, math.log(reducible) + self.compute_exponent * math.log(float(C)), self.compute_exponent)

    def parameter_share(self, C) -> float:
        """The share of N's term in the reducible loss at the best split, which is β/(α+β) at every C."""
        N, D = self.optimum(C)
        return float((self.A / N**self.alpha) / (self.loss(N, D) - self.E))


# In nats per token. N counts all parameters.
HOFFMANN = LossLaw(
    1.69337, math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083
)  # the source of the paper's appendix D.3
BESIROGLU = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # their data fitted again: Besiroglu 2024, arXiv:2404.10102, table 1
MUENNIGHOFF = LossLaw(1.87, 521.0, 1488.0, 0.353, 0.353)  # Muennighoff 2023, arXiv:2305.16264
LOSS_LAWS = {"Hoffmann 2022": HOFFMANN, "Besiroglu 2024": BESIROGLU, "Muennighoff 2023": MUENNIGHOFF}

# Kaplan 2020, arXiv:2001.08361, section 1.2; nats per token, N without embeddings, C in PF-days. (k/x)^γ has log_scale γ·ln k.
PF_DAY = 1e15 * 86400.0  # operations
KAPLAN = {
    "parameters": PowerLaw(0.0, 0.076 * math.log(8.8e13), 0.076),
    "tokens": PowerLaw(0.0, 0.095 * math.log(5.4e13), 0.095),
    "flops": PowerLaw(0.0, 0.050 * math.log(3.1e8 * PF_DAY), 0.050),
}
KAPLAN_PARAMETER_EXPONENT = 0.73  # N* ~ C^0.73
HOFFMANN_PARAMETER_EXPONENTS = {"approach 1": 0.50, "approach 2": 0.49, "approach 3": 0.46}  # their table 2


def compute_factors(share: float = 0.5) -> dict[str, float]:
    """How many times the compute leaves `share` of the reducible loss, by each law that is around.

    "quadratic": loss ~ C^−1/2, one factor scaled and the other free    "quartic": loss ~ C^−1/4, α = β = 1/2 at the best split
    """
    exponents = {"quadratic": 0.5, "quartic": 0.25}
    exponents |= {name: law.compute_exponent for name, law in LOSS_LAWS.items()}
    exponents["Kaplan 2020"] = KAPLAN["flops"].exponent
    return {name: share ** (-1 / exponent) for name, exponent in exponents.items()}
