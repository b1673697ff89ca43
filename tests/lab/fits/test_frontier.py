"""How to spend a budget, and why two papers differ."""

import numpy as np
import pytest

from refllm.lab.fits.fit import fit
from refllm.lab.fits.frontier import apparent_exponent, frontier, lifetime, lifetimes, parameter_exponent, published
from refllm.lab.fits.laws import BESIROGLU, HOFFMANN, PF_DAY


def test_a_planted_laws_split_is_found_with_its_interval(planted):
    found = fit(planted(noise=3e-3), ("parameters", "tokens"), resamples=200)
    (split,) = frontier(found, [1e20])
    N, D = BESIROGLU.optimum(1e20)
    assert split.parameters_interval[0] < N < split.parameters_interval[1]
    assert split.tokens_interval[0] < D < split.tokens_interval[1]
    assert split.parameters_interval[1] < 1.3 * split.parameters_interval[0]
    assert split.parameters * split.tokens == pytest.approx(1e20 / 6, rel=1e-9)
    value, (low, high) = parameter_exponent(found)
    assert low < value < high
    assert low < BESIROGLU.parameter_exponent < high


def test_without_a_bootstrap_there_is_no_interval(planted):
    found = fit(planted(), ("parameters", "tokens"))
    assert frontier(found, [1e20])[0].parameters_interval is None
    assert parameter_exponent(found)[1] is None


def test_the_laws_in_print_stand_beside():
    found = published([1e20, 100 * PF_DAY])
    assert [split.law for split in found[:4]] == ["Kaplan 2020", "Hoffmann 2022", "Besiroglu 2024", "Muennighoff 2023"]
    assert [split.flops for split in found] == [1e20] * 4 + [100 * PF_DAY] * 4
    assert all(6 * split.parameters * split.tokens == pytest.approx(split.flops) for split in found)
    kaplan = found[4]
    assert kaplan.parameters == pytest.approx(1.3e9 * 100**0.73)
    assert kaplan.loss is None


def test_a_lifetime_of_inference_is_planned_with_its_interval(planted):
    found = fit(planted(noise=3e-3), ("parameters", "tokens"), resamples=200)
    (one,) = lifetimes(found, [1e20], 1e12)
    truth = lifetime(BESIROGLU, 1e20, 1e12, "truth")
    assert one.parameters_interval[0] < truth.parameters < one.parameters_interval[1]
    assert one.parameters_interval[0] < one.parameters < one.parameters_interval[1]
    N, D = BESIROGLU.optimum(1e20)
    assert truth.total_of_best_training == pytest.approx(6 * N * D + 2 * N * 1e12)
    assert truth.total == pytest.approx(6 * truth.parameters * truth.tokens + 2 * truth.parameters * 1e12)
    assert BESIROGLU.loss(truth.parameters, truth.tokens) == pytest.approx(truth.loss) == BESIROGLU.loss(N, D)
    assert 0 < truth.saved == 1 - truth.total / truth.total_of_best_training
    assert lifetimes(fit(planted(), ("parameters", "tokens")), [1e20], 1e12)[0].parameters_interval is None


@pytest.mark.parametrize("symbol", ["N", "D"])
def test_a_loss_that_does_not_fall_has_no_best_split(planted, symbol):
    runs = planted()
    x = runs.parameters if symbol == "N" else runs.tokens
    found = fit(runs._replace(loss=runs.loss * x**0.2), ("parameters", "tokens"), False)
    for ask in (lambda: frontier(found, [1e20]), lambda: lifetimes(found, [1e20], 1e9), lambda: parameter_exponent(found)):
        with pytest.raises(ValueError, match=f"the loss does not fall with {symbol} .its exponent is -"):
            ask()


def test_resamples_without_a_best_split_leave_no_interval(planted):
    found = fit(planted(noise=3e-3), ("parameters", "tokens"), resamples=40)
    for column, value in ((-1, -0.1), (-2, -0.1), (0, -1e4)):
        samples = found.samples.copy()
        samples[:20, column] = value
        broken = found._replace(samples=samples)
        assert frontier(broken, [1e20])[0].parameters_interval is None
        assert lifetimes(broken, [1e20], 1e10)[0].parameters_interval is None
        assert (parameter_exponent(broken)[1] is None) == (column != 0)


def test_leaving_embeddings_out_turns_hoffmanns_law_into_kaplans():
    """Pearce & Song 2024 print 0.78 and 0.74; Kaplan found 0.73."""
    assert apparent_exponent(BESIROGLU) == pytest.approx(0.775, abs=0.01)
    assert apparent_exponent(HOFFMANN) == pytest.approx(0.741, abs=0.01)
    assert BESIROGLU.parameter_exponent < 0.52
    assert np.isfinite(apparent_exponent(HOFFMANN, sizes=50))
