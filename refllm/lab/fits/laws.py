"""Laws of loss in the number of parameters N, of training tokens D and of operations C, and the published ones.

    L(x) = E + (k/x)^γ                    one variable, with a floor E or without
    L(N, D) = E + A/N^α + B/D^β           Hoffmann 2022, arXiv:2203.15556, equation 2

What is above the floor is the reducible loss. With C = 6·N·D operations to spend, the least loss is at

    N* = G·(C/6)^a     D* = (C/6)^b / G     a = β/(α+β)     b = α/(α+β)     G = (αA / βB)^(1/(α+β))

(their equation 4), and there the reducible loss falls as C^−γ with γ = αβ/(α+β), N's term being the share β/(α+β) of it.

A model that will also read and write S tokens in its lifetime spends 2·N·S operations on them. The least 6·N·D + 2·N·S among all
(N, D) of one loss (Sardana 2023, arXiv:2401.00448, section 2) lies where the share q of D's term in the reducible loss satisfies

    3·D·(α·(1−q) / (β·q) − 1) = S          N = (A / (1−q)r)^(1/α)          D = (B / q·r)^(1/β)          r = L − E

by differentiating along the curve of equal loss, on which dln D/dln N = −αA·N^−α / βB·D^−β. The left side falls as q rises to
α/(α+β), where it is zero: without inference it is the optimum above, and q sinks, D grows and N shrinks as S rises.
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

    def lifetime_optimum(self, loss: float, inference_tokens: float) -> tuple[float, float]:
        """The N and D of this loss with the least operations of training and inference, 6·N·D + 2·N·inference_tokens.

        Raises ValueError for a loss that is not above the floor.
        """
        if not loss > self.E:
            raise ValueError(f"a loss of {loss:.4g} is not above the floor of {self.E:.4g}; no N and D reach it.")
        r, a, b = loss - self.E, self.alpha, self.beta

        def log_tokens(log_q: float) -> float:
            return (math.log(self.B / r) - log_q) / b

        def worth(log_q: float) -> float:
            """The logarithm of the inference that a share is best for: it falls as the share rises."""
            odds = a * -math.expm1(log_q) / (b * math.exp(log_q))
            return math.log(3) + log_tokens(log_q) + math.log(max(odds - 1, 1e-300))

        high, step = math.log(a / (a + b)), 1.0
        if inference_tokens <= 0:
            low = high
        else:
            while worth(high - step) < math.log(inference_tokens):
                step *= 2
            low = high - step
        while (middle := (low + high) / 2) not in (low, high):
            low, high = (middle, high) if worth(middle) > math.log(inference_tokens) else (low, middle)
        return math.exp(math.log(self.A / (r * -math.expm1(low))) / a), math.exp(log_tokens(low))


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
KAPLAN_BEST = 1.3e9, 0.73  # N* = 1.3·10⁹ · (C / PF-day)^0.73, without embeddings: their figure 14
HOFFMANN_PARAMETER_EXPONENTS = {"approach 1": 0.50, "approach 2": 0.49, "approach 3": 0.46}  # N* ~ C^a: their table 2


def compute_factors(share: float = 0.5) -> dict[str, float]:
    """How many times the compute leaves `share` of the reducible loss, by each law to compare with.

    "quadratic": loss ~ C^−1/2, one factor scaled and the other free    "quartic": loss ~ C^−1/4, α = β = 1/2 at the best split
    """
    exponents = {"quadratic": 0.5, "quartic": 0.25}
    exponents |= {name: law.compute_exponent for name, law in LOSS_LAWS.items()}
    exponents["Kaplan 2020"] = KAPLAN["flops"].exponent
    return {name: share ** (-1 / exponent) for name, exponent in exponents.items()}
