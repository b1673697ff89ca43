"""Laws judged at runs that they have not seen."""

import numpy as np
import pytest

from refllm.lab.fits.extrapolate import choose, extrapolate
from refllm.lab.fits.laws import PowerLaw
from refllm.lab.fits.runs import Runs


def curve(floor, noise=2e-3, n=10, seed=0):
    x = np.geomspace(1e4, 1e8, n)
    loss = PowerLaw(floor, np.log(30), 0.25).loss(x) * np.exp(noise * np.random.default_rng(seed).standard_normal(n))
    return Runs(x, x, 6 * x * x, loss, np.arange(n).astype(str), "nats/token")


def test_the_largest_are_predicted_from_the_others():
    runs = curve(0.0)
    found = extrapolate(runs, ("parameters",), False, largest=2)
    assert found.held_out.parameters.tolist() == runs.parameters[-2:].tolist()
    assert found.rms < 0.01
    changed = runs._replace(loss=np.append(runs.loss[:-2], [9.0, 9.0]))
    assert extrapolate(changed, ("parameters",), False, largest=2).predicted == pytest.approx(found.predicted)
    assert np.all(extrapolate(changed, ("parameters",), False, largest=2).errors < -0.5)


@pytest.mark.parametrize("floor", [0.0, 2.0])
def test_the_law_that_predicts_better_is_chosen(floor):
    wins = sum(choose(curve(floor, seed=seed), ("parameters",), largest=3).floor for seed in range(12))
    assert wins >= 11 if floor else wins <= 8  # without a floor the two laws nearly agree, so chance decides


def test_a_floor_is_not_asked_of_too_few_runs():
    found = choose(curve(1.0, n=4), ("parameters",))
    assert found.with_floor is None
    assert not found.floor


def test_all_values_cannot_be_held_out():
    with pytest.raises(ValueError, match="the runs have 10 values of parameters; 10 of them cannot be held out"):
        extrapolate(curve(0.0), ("parameters",), largest=10)
