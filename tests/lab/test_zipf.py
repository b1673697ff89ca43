"""A learner whose exponents are known."""

import numpy as np
import pytest

from refllm.lab.fit import fit
from refllm.lab.runs import Runs
from refllm.lab.zipf import capacity_loss, data_loss, frequencies


@pytest.mark.parametrize(("s", "by_capacity", "by_data"), [(1.5, 0.5, 1 / 3), (2.0, 1.0, 0.5)])
def test_the_fit_finds_the_exponents_that_are_proved(s, by_capacity, by_data):
    p = frequencies(s, 1_000_000)
    N = np.unique(np.geomspace(10, 3000, 30).astype(int))
    D = np.geomspace(1e2, 1e5, 30)
    for x, loss, exponent in ((N.astype(float), capacity_loss(p, N), by_capacity), (D, data_loss(p, D), by_data)):
        runs = Runs(x, x, x, loss, np.arange(len(x)).astype(str), "nats/token")
        assert fit(runs, ("parameters",), False, delta=1.0).constants["alpha"] == pytest.approx(exponent, abs=0.011)


def test_losses_are_those_of_a_direct_count():
    p = frequencies(1.2, 50)
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(capacity_loss(p, np.array([0, 1, 49, 50])), [1, 1 - p[0], p[-1], 0], atol=1e-12)
    rng = np.random.default_rng(0)
    seen = rng.choice(50, size=(4000, 20), p=p)
    missing = [1 - p[np.unique(row)].sum() for row in seen]
    assert data_loss(p, np.array([20.0]))[0] == pytest.approx(np.mean(missing), abs=4 * np.std(missing) / np.sqrt(4000))
