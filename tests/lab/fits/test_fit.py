"""Laws fitted to runs, with their intervals and what they warn of."""

import numpy as np
import pytest

from refllm.lab.fits.fit import fit, mixed, share_beyond, student
from refllm.lab.fits.laws import BESIROGLU, LossLaw, PowerLaw
from refllm.lab.fits.runs import Runs


def line(n=12, noise=0.0, seed=0, exponent=0.3, floor=0.0, runs_each=1):
    x = np.geomspace(1e3, 1e6, n)
    loss = (PowerLaw(floor, exponent * np.log(100), exponent).loss(x)) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(n)
    )
    return Runs(x, x, 6 * x * x, loss, (np.arange(n) // runs_each).astype(str), "nats/token")


def test_a_planted_law_is_found(planted):
    found = fit(planted(), ("parameters", "tokens"))
    for symbol, value in zip(("E", "A", "B", "alpha", "beta"), BESIROGLU, strict=True):
        assert found.constants[symbol] == pytest.approx(value, rel=1e-4)
    assert found.rms < 1e-6
    assert found.loss_laws()[0].beta == found.constants["beta"]


@pytest.mark.parametrize("floor", [0.0, 1.5])
@pytest.mark.parametrize("variable", ["parameters", "tokens", "flops"])
def test_a_law_in_one_variable_is_found(variable, floor):
    runs = line(floor=floor)
    found = fit(runs, (variable,), floor > 0)
    exponent = {"parameters": "alpha", "tokens": "beta", "flops": "gamma"}[variable]
    assert found.constants[exponent] == pytest.approx(0.15 if variable == "flops" else 0.3, rel=1e-4)
    assert found.constants.get("E", 0.0) == pytest.approx(floor, rel=1e-4)
    np.testing.assert_allclose(found.loss(runs.column(variable)), runs.loss, rtol=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Binomial(120, 0.95) lies between 106 and 120 but for one time in 500."""
    hits = 0
    for seed in range(120):
        found = fit(line(noise=5e-3, seed=seed), ("parameters",), False, delta=0.01, resamples=100, seed=seed)
        low, high = found.intervals["alpha"]
        hits += low <= 0.3 <= high
    assert 106 <= hits <= 120


def test_intervals_in_two_variables_hold_the_truth(planted):
    hits = dict.fromkeys(("E", "alpha", "beta"), 0)
    for seed in range(12):
        found = fit(planted(seed=seed, noise=5e-3, sizes=7), ("parameters", "tokens"), resamples=60, seed=seed)
        for name in hits:
            low, high = found.intervals[name]
            hits[name] += low <= getattr(BESIROGLU, name) <= high
    assert min(hits.values()) >= 9  # of 12; fewer has a probability below 0.003 at 95 %


def test_runs_are_resampled_whole():
    """With every loss given three times over, as of one run, the intervals must not shrink."""
    once = line(noise=2e-2, seed=1)
    thrice = Runs(*(np.repeat(column, 3) for column in once[:5]), once.unit)
    narrow, wide = (fit(r, ("parameters",), False, delta=1.0, resamples=400).intervals["alpha"] for r in (once, thrice))
    assert np.ptp(wide) == pytest.approx(np.ptp(narrow), rel=0.15)
    alone = thrice._replace(run=np.arange(len(thrice.loss)).astype(str))
    assert np.ptp(fit(alone, ("parameters",), False, delta=1.0, resamples=400).intervals["alpha"]) < 0.75 * np.ptp(narrow)


def test_every_resample_is_another_draw():
    found = fit(line(noise=1e-2), ("parameters",), False, delta=1.0, resamples=600)
    assert len(np.unique(found.samples[:, -1])) > 590


def test_a_band_holds_its_line():
    runs = line(noise=1e-2)
    found = fit(runs, ("parameters",), False, delta=1.0, resamples=200)
    low, high = found.band(runs.parameters)
    assert np.all((low < found.loss(runs.parameters)) & (found.loss(runs.parameters) < high))
    assert high[-1] - low[-1] < 0.1 * runs.loss[-1]


def test_the_expanded_share_is_students():
    """t₀.₉₇₅(10) = 2.228 in any table; the share tends to 2.5 % for many runs."""
    from statistics import NormalDist

    assert share_beyond(12, 2) == pytest.approx(NormalDist().cdf(-2.228 * np.sqrt(12 / 10)), rel=2e-3)
    assert share_beyond(100_000, 2) == pytest.approx(0.025, rel=1e-3)
    assert share_beyond(5, 5) == 0


def test_a_floor_far_below_the_losses_is_told_to_be_unknown():
    found = fit(line(noise=1e-2, exponent=0.08), ("parameters",), True, resamples=100)
    assert any("E is not identifiable" in sentence or "E went to zero" in sentence for sentence in found.warnings)
    clear = fit(line(n=40, noise=1e-4, floor=1.5, exponent=0.5), ("parameters",), True, resamples=100)
    low = fit(line(n=40, noise=1e-4, floor=0.5), ("parameters",), True, resamples=100)
    assert clear.warnings == low.warnings == ()


def test_a_floor_that_went_to_zero_may_rise_in_the_bootstrap():
    """From a floor of nothing no descent leads back, and every resample would end there too."""
    gone = []
    for seed in range(8):
        found = fit(line(noise=1e-2, seed=seed), ("parameters",), True, delta=1.0, resamples=50)
        low, high = found.intervals["E"]
        assert all(value == 0 or value > 1e-9 for value in (found.constants["E"], low, high))  # none of 10⁻²²
        gone += [(low, high)] if found.constants["E"] == 0 else []
    assert gone
    assert all(low == 0 < high for low, high in gone)


def test_too_few_runs_for_intervals_are_told():
    runs = line(9, noise=1e-2, runs_each=3)
    found = fit(runs, ("parameters",), True, resamples=50)
    assert "3 runs are too few for intervals of 3 constants: the true intervals are wider than these." in found.warnings
    assert not any("too few" in sentence for sentence in fit(runs, ("parameters",), False, resamples=50).warnings)
    assert not any("too few" in sentence for sentence in fit(runs, ("parameters",), True).warnings)


def test_a_loss_that_does_not_fall_is_told():
    runs = line(noise=1e-3)
    found = fit(runs._replace(loss=runs.loss[::-1]), ("parameters",), False)
    assert found.warnings == (f"the loss does not fall with N: alpha is {found.constants['alpha']:.3g}.",)
    assert found.constants["alpha"] < 0
    assert fit(runs, ("parameters",), False).warnings == ()


def test_what_else_tells_losses_apart_is_told():
    """A law in one variable takes all losses for equals; the best at each compute are those that no cheaper one reaches."""
    runs = line()
    assert mixed(runs, ("parameters",)) == (
        "L(N) ignores that these losses have 1e+03 to 1e+06 tokens; fit it to the last losses (--last), or fit L(N, D).",
    )
    assert mixed(runs, ("tokens",))[0].startswith(
        "L(D) ignores that these losses have 1e+03 to 1e+06 parameters; fit it to the loss"
    )
    assert mixed(runs, ("flops",)) == mixed(runs, ("parameters", "tokens")) == ()
    assert mixed(runs._replace(tokens=np.full(12, 5.0)), ("parameters",)) == ()
    assert mixed(runs._replace(parameters=np.linspace(1, 1.09, 12)), ("tokens",)) == ()
    worse = runs.loss.copy()
    worse[[3, 4]] = worse[[0, 1]]  # the second lower than the one before it, but not than the third
    order = np.random.default_rng(0).permutation(12)
    (told,) = mixed(runs._replace(loss=worse).chosen(order), ("flops",))
    assert told == "L(C) is a law of the best loss at each C, and 2 of these 12 are no lower than a cheaper one."
    assert mixed(runs._replace(loss=worse), ("parameters", "tokens")) == ()


def test_a_floor_that_is_known_is_kept():
    found = fit(line(floor=1.5), ("parameters",), 1.5)
    assert found.constants["E"] == 1.5
    assert found.rms < 1e-9
    assert found.constants["alpha"] == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize(
    ("runs", "variables", "floor", "says"),
    [
        (line(2), ("parameters",), False, "2 runs cannot fit 2 constants; give at least 3"),
        (line(5), ("parameters", "tokens"), True, "5 runs cannot fit 5 constants; give at least 6"),
        (line(12, floor=1.5), ("parameters",), 1.9, "lies at or below the floor 1.9; a floor is below every loss"),
        (
            line(12)._replace(parameters=np.full(12, 5.0)),
            ("parameters", "tokens"),
            True,
            "have 1 value of parameters; a law in N",
        ),
        (line(12)._replace(parameters=np.repeat([1.0, 2.0, 3.0], 4)), ("parameters",), True, "have 3 values of parameters"),
    ],
)
def test_what_cannot_be_fitted_is_refused(runs, variables, floor, says):
    with pytest.raises(ValueError, match=says):
        fit(runs, variables, floor)


def test_a_law_asked_for_in_the_wrong_variables_is_refused():
    found = fit(line(), ("parameters",), False)
    with pytest.raises(ValueError, match="a law in parameters; one in 2 of the variables"):
        found.loss_laws()
    with pytest.raises(ValueError, match="no bootstrap"):
        found.band(1e3)
    assert isinstance(found.power_laws()[0], PowerLaw)
    assert isinstance(BESIROGLU, LossLaw)


@pytest.mark.oracle
def test_students_t_is_scipys():
    from scipy import stats

    for v in (1, 2, 3, 5, 30):
        assert student(v) == pytest.approx(stats.t.ppf(0.975, v), rel=1e-12 if v < 3 else 0.01)
