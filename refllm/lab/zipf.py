"""A learner with known exponents: it knows by heart what it has seen, of items as frequent as Zipf's law says (Hutter 2021,
arXiv:2102.04074).

    pᵢ ~ i^−s          L(N) = Σ_{i>N} pᵢ ~ N^−(s−1)          L(D) = Σᵢ pᵢ·(1 − pᵢ)^D ~ D^−(s−1)/s

L(N): it has room for the N commonest. L(D): after D draws it still errs on what it has not met.
"""

import numpy as np


def frequencies(s: float, items: int) -> np.ndarray:
    """pᵢ: (items,)."""
    weights = np.arange(1, items + 1, dtype=float) ** -s
    return weights / weights.sum()


def capacity_loss(p: np.ndarray, N: np.ndarray) -> np.ndarray:
    """The share of draws that N remembered items leave unanswered: (n,) for N (n,) integers."""
    tail = np.append(np.cumsum(p[::-1])[::-1], 0.0)  # tail[i] = Σ of all from i on
    return tail[N]


def data_loss(p: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The expected share of draws that D draws before have not shown: (n,) for D (n,)."""
    logs = np.log1p(-p)
    return np.array([float(np.sum(p * np.exp(d * logs))) for d in D])
