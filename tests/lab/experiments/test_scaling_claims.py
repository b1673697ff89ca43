"""Claims about laws of scale, judged on sweeps whose law is known."""

import math
import re

import numpy as np
import pytest

from refllm.lab.experiments import scaling_claims as claims
from refllm.lab.experiments.sweep_facts import along_runs, averaged, cheapest, ends, late, predicted, runs_of, seed_spread
from refllm.lab.fits.laws import LossLaw
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

SIZES, LAST = (3e3, 7e3, 1.6e4, 3.5e4, 8e4, 1.7e5), 2.0**21
LAW = LossLaw(0.3, 12.0, 40.0, 0.3, 0.3)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """What stands clear of a border does so with a tenth of the resamples too."""
    monkeypatch.setattr(claims, "RESAMPLES", 200)


def sweep(loss, noise=0.002, seeds=2, sizes=SIZES, snapshots=10):
    """A sweep's result: losses of `loss(N, D)` that seeds shift, each for a whole run, and a tenth as much at each snapshot."""
    rng, rows = np.random.default_rng(0), []
    for N in sizes:
        for seed in range(seeds):
            shift = rng.standard_normal()
            for D in sorted(LAST / 2 ** (i / 2) for i in range(snapshots)):
                chance = math.exp(noise * (shift + 0.1 * rng.standard_normal()))
                row = {"parameters": N, "tokens": D, "flops": 6 * N * D, "loss": float(loss(N, D)) * chance}
                rows.append(row | {"run": f"{N:g}-{seed}", "seed": seed, "unit": "nats/character"})
    return {"sweep": {"tables": {"runs": rows}}}


def test_only_late_losses_of_fed_models_enter_a_law():
    runs = runs_of(sweep(LAW.loss, sizes=(3e3, 1e6))["sweep"])
    kept = late(runs)
    assert set(kept.parameters) == {3e3}
    assert kept.tokens.min() == pytest.approx(LAST / 4)
    assert set(ends(runs).tokens) == {LAST}
    with pytest.raises(ValueError, match="no model of the sweep read 5 tokens a parameter"):
        late(runs_of(sweep(LAW.loss, sizes=(1e6, 2e6))["sweep"]))


def test_the_frontier_keeps_what_no_smaller_budget_reaches():
    runs = averaged(runs_of(sweep(LAW.loss, noise=0.0)["sweep"]))
    front = cheapest(runs)
    for C, loss in zip(runs.flops, runs.loss, strict=True):
        beaten = np.any((runs.flops < C) & (runs.loss <= loss))
        assert beaten == (C not in front.flops)


def test_the_seed_spread_is_that_of_the_last_losses():
    result = sweep(LAW.loss, noise=0.02, seeds=60)["sweep"]
    assert seed_spread(runs_of(result)) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ValueError, match="no size has a second seed"):
        seed_spread(runs_of(sweep(LAW.loss, seeds=1)["sweep"]))


def test_a_seeds_mean_is_its_sizes_loss():
    means = averaged(runs_of(sweep(LAW.loss, noise=0.02, seeds=400, snapshots=1)["sweep"]))
    assert means.loss == pytest.approx(LAW.loss(means.parameters, means.tokens), rel=0.005)


@pytest.mark.parametrize("law", [LAW, LossLaw(1e-9, 3.0, 3.0, 0.1, 0.1)])
def test_a_power_law_is_recognised(law):
    finding = claims.judge_power_law(sweep(law.loss))
    assert finding.verdict == HOLDS
    assert finding.low < finding.value < finding.high
    assert abs(finding.value) < 1


@pytest.mark.parametrize("law", [LAW, LossLaw(1e-9, 3.0, 3.0, 0.1, 0.1)])
def test_the_loss_that_judges_a_law_has_no_say_in_its_floor(law):
    means = ends(averaged(late(runs_of(sweep(law.loss)["sweep"]))))
    largest = means.parameters == means.parameters.max()
    laws = [
        predicted(means._replace(loss=np.where(largest, factor * means.loss, means.loss)), "parameters").fitted
        for factor in (0.8, 0.95, 1.0, 1.05, 1.2)
    ]
    assert len({fitted.terms.floor for fitted in laws}) == 1
    assert len({fitted.p.tobytes() for fitted in laws}) == 1
    assert laws[0].terms.floor == (law is LAW)


def test_what_shifts_whole_runs_leaves_the_prediction_along_them_sure():
    finding = claims.judge_power_law(sweep(LAW.loss, noise=0.02, seeds=3))
    N, D = (float(re.search(rf"{symbol} [+-][\d.]+ ± ([\d.]+) %", finding.why)[1]) for symbol in "ND")
    assert D < N / 3


def test_a_prediction_along_runs_is_as_unsure_as_their_seeds_make_it():
    rng, noise, seeds, spreads = np.random.default_rng(1), 0.004, 3, []
    for _ in range(20):
        rows = []
        for N in SIZES[:4]:
            for seed in range(seeds):
                shift = rng.standard_normal()  # of a whole run: it sets no prediction along it off
                for D in sorted(LAST / 2 ** (i / 2) for i in range(5)):
                    chance = math.exp(0.05 * shift + (noise * rng.standard_normal() if D == LAST else 0.0))
                    row = {"parameters": N, "tokens": D, "flops": 6 * N * D, "loss": 3 * D**-0.1 * chance}
                    rows.append(row | {"run": f"{N:g}-{seed}", "unit": "nats/character"})
        runs = runs_of({"tables": {"runs": rows}})
        law = predicted(averaged(runs.chosen(runs.parameters == SIZES[0])), "tokens")
        spreads.append(along_runs(runs, law))
    assert np.sqrt(np.mean(np.square(spreads))) == pytest.approx(noise / math.sqrt(seeds), rel=0.2)


def test_a_loss_that_stops_falling_is_no_power_law():
    finding = claims.judge_power_law(sweep(lambda N, D: LAW.loss(min(N, 6e4), D) * (1 if N < 1e5 else 1.2)))
    assert finding.verdict == FAILS
    assert finding.value < -10


def test_sizes_off_the_line_are_no_power_law_even_where_the_largest_is_met():
    def zigzag(N, D):
        return LAW.loss(N, D) * {SIZES[1]: 1.06, SIZES[2]: 0.94}.get(N, 1.0)

    finding = claims.judge_power_law(sweep(zigzag, noise=0.0005))
    assert abs(finding.value) < 3
    assert finding.verdict == FAILS


@pytest.mark.parametrize(
    ("rms", "sigma", "verdict"),
    [(0.005, 0.0, HOLDS), (0.015, 0.001, UNDECIDABLE), (0.03, 0.001, FAILS), (0.03, 0.02, UNDECIDABLE)],
)
def test_residuals_count_where_seeds_do_not_explain_them(rms, sigma, verdict):
    assert claims.straight(rms, sigma) == verdict


def test_seeds_that_differ_by_much_leave_a_power_law_undecided():
    assert claims.judge_power_law(sweep(LAW.loss, noise=0.03)).verdict == UNDECIDABLE


def test_a_doubling_buys_a_constant_fraction_of_a_pure_power_law():
    finding = claims.judge_doubling(sweep(lambda N, D: 6 * N**-0.1 * D**-0.05))
    assert finding.verdict == HOLDS
    assert finding.low < 2**-0.1 < finding.high
    assert finding.low * finding.high == pytest.approx(finding.value**2)
    assert f"×{2**-0.05:.3f} of D" in finding.why


def test_a_floor_takes_the_gain_of_a_doubling_away():
    finding = claims.judge_doubling(sweep(lambda N, D: 1.0 + 500 / N, noise=0.0005))
    assert finding.verdict == FAILS
    assert claims.judge_doubling(sweep(lambda N, D: 1.0 + 8 * N**-0.3, noise=0.0002)).verdict == FAILS  # by less
    assert claims.judge_doubling(sweep(lambda N, D: 6 * N**-0.02, noise=0.02)).verdict == UNDECIDABLE


@pytest.mark.parametrize(("alpha", "verdict", "factor"), [(0.5, HOLDS, 16), (1.0, HOLDS, 4), (0.3, FAILS, 2 ** (2 / 0.3))])
def test_the_compute_that_halves_is_that_of_the_law(alpha, verdict, factor):
    law = LossLaw(0.5, 40.0 if alpha > 0.3 else 12.0, 300.0 if alpha > 0.3 else 40.0, alpha, alpha)
    finding = claims.judge_halving(sweep(law.loss, noise=1e-5))
    assert finding.value == pytest.approx(factor, rel=0.05)
    assert finding.verdict == verdict


def test_an_unknown_floor_leaves_the_compute_that_halves_undecided():
    finding = claims.judge_halving(sweep(LossLaw(0.5, 40.0, 300.0, 0.5, 0.5).loss, noise=0.02))
    assert finding.verdict == UNDECIDABLE
    assert finding.low <= finding.value <= finding.high


def test_a_kink_in_one_curve_is_seen():
    assert claims.judge_smooth(sweep(LAW.loss)).verdict == HOLDS

    def kinked(N, D):
        return LAW.loss(N, D) * (0.94 if D > 0.6 * LAST and SIZES[2] == N else 1)

    finding = claims.judge_smooth(sweep(kinked))
    assert finding.verdict == FAILS
    assert claims.judge_smooth(sweep(LAW.loss, noise=0.3)).verdict == UNDECIDABLE


def test_every_claim_says_how_it_decides():
    assert [claim.number for claim in claims.CLAIMS] == [1, 2, 3, 4]
    for claim in claims.CLAIMS:
        assert "if" in claim.formula
        assert claim.needs == ("sweep",)


def test_laws_are_drawn():
    drawn = claims.figures(sweep(LAW.loss))
    assert set(drawn) == {"law_in_N", "law_in_D", "law_in_C", "residuals_of_N_and_D", "losses_by_N_and_C"}
    with pytest.raises(ValueError, match="four losses late in training"):
        claims.figures(sweep(LAW.loss, snapshots=2))
