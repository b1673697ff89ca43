"""The whole chain from losses to exponents, on a learner whose exponents are proved: it knows by heart what it has seen, of items
as frequent as Zipf's law says (Hutter 2021, arXiv:2102.04074).

    pᵢ ~ i^−s          L(N) = Σ_{i>N} pᵢ ~ N^−(s−1)          L(D) = Σᵢ pᵢ·(1 − pᵢ)^D ~ D^−(s−1)/s

L(N): it has room for the N commonest. L(D): after D draws it still errs on what it has not met.
"""

import numpy as np
import pytest

from refllm.lab.fits.fit import fit
from refllm.lab.fits.runs import Runs


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


@pytest.mark.parametrize(("s", "by_capacity", "by_data"), [(1.5, 0.5, 1 / 3), (2.0, 1.0, 0.5)])
def test_the_fit_finds_the_exponents_that_are_proved(s, by_capacity, by_data):
    p = frequencies(s, 1_000_000)
    N = np.unique(np.geomspace(10, 3000, 30).astype(int))
    D = np.geomspace(1e2, 1e5, 30)
    for x, loss, exponent in ((N.astype(float), capacity_loss(p, N), by_capacity), (D, data_loss(p, D), by_data)):
        runs = Runs(x, x, x, loss, np.arange(len(x)).astype(str), "nats/token")
        assert fit(runs, ("parameters",), False, delta=1.0).constants["alpha"] == pytest.approx(exponent, abs=0.01)


def test_losses_are_those_of_a_direct_count():
    p = frequencies(1.2, 50)
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(capacity_loss(p, np.array([0, 1, 49, 50])), [1, 1 - p[0], p[-1], 0], atol=1e-12)
    rng = np.random.default_rng(0)
    seen = rng.choice(50, size=(4000, 20), p=p)
    missing = [1 - p[np.unique(row)].sum() for row in seen]
    assert data_loss(p, np.array([20.0]))[0] == pytest.approx(np.mean(missing), abs=4 * np.std(missing) / np.sqrt(4000))
