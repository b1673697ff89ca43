"""Valleys of equal compute."""

import numpy as np
import pytest

from refllm.lab.fits.isoflop import (
    at_budget,
    budgets,
    exponent_by,
    exponents_without_a_size,
    isoflop,
    minimum,
    parabola_bias,
    round_budgets,
)
from refllm.lab.fits.laws import BESIROGLU, HOFFMANN, LossLaw
from refllm.lab.fits.runs import Runs


def valleys(law, width, shift=1.0, noise=0.0, points=9):
    """Runs at five budgets, sizes from N*/width to N*·width, or around another centre."""
    rows = [
        (N, C / (6 * N), C)
        for C in np.geomspace(1e18, 1e21, 5)
        for N in law.optimum(C)[0] * shift * np.geomspace(1 / width, width, points)
    ]
    N, D, C = np.array(rows).T
    loss = law.loss(N, D) * np.exp(noise * np.random.default_rng(0).standard_normal(len(N)))
    return Runs(N, D, C, loss, np.arange(len(N)).astype(str), "nats/token")


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU])
def test_a_centred_grid_gives_the_exponent_exactly(law):
    found = isoflop(valleys(law, 4))
    assert found.exponent == pytest.approx(law.parameter_exponent, abs=1e-6)
    assert all(valley.inside for valley in found.valleys)


@pytest.mark.parametrize(("width", "bias"), [(2, 1.003), (4, 1.013), (8, 1.030), (16, 1.054)])
def test_the_parabola_is_biased_by_what_is_told(width, bias):
    """For Hoffmann's rounded constants, 15 sizes evenly spaced in ln N; measured once by another program."""
    law = HOFFMANN._replace(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    valley = isoflop(valleys(law, width, points=15)).valleys[0]
    assert valley.parameters / law.optimum(valley.flops)[0] == pytest.approx(bias, abs=1.5e-3)
    assert parabola_bias(law, valley) == pytest.approx(valley.parameters / law.optimum(valley.flops)[0], rel=1e-6)


def test_a_valleys_curve_passes_through_its_minimum_and_its_runs():
    for valley in isoflop(valleys(BESIROGLU, 2)).valleys:
        x = np.log(valley.parameters)
        assert np.polyval(valley.curve, x) == pytest.approx(valley.loss, rel=1e-9)
        assert valley.loss < np.polyval(valley.curve, x + 0.3)
        np.testing.assert_allclose(np.polyval(valley.curve, np.log(valley.runs.parameters)), valley.runs.loss, rtol=1e-3)


def test_a_minimum_outside_the_sizes_is_marked_and_left_out_of_the_law():
    good, bad = valleys(BESIROGLU, 3), valleys(BESIROGLU, 3, shift=6.0)
    first = bad.chosen(bad.flops < 2e18)
    mixed = Runs(*(np.concatenate(pair) for pair in zip(first[:5], good.chosen(good.flops > 2e18)[:5], strict=True)), good.unit)
    found = isoflop(mixed)
    assert [valley.inside for valley in found.valleys] == [False, True, True, True, True]
    assert found.without == 1
    assert found.exponent == pytest.approx(BESIROGLU.parameter_exponent, abs=1e-6)
    assert found.best(1e20) == pytest.approx(found.valleys[3].parameters, rel=0.5)


def test_budgets_are_told_apart():
    runs = valleys(BESIROGLU, 4)
    assert [len(part.loss) for part in budgets(runs)] == [9] * 5
    dense = runs._replace(flops=np.geomspace(1e18, 1e19, len(runs.loss)))
    assert budgets(dense) == []
    near = runs._replace(flops=runs.flops * np.tile(np.linspace(0.96, 1.04, 9), 5))
    assert [len(part.loss) for part in budgets(near)] == [9] * 5
    apart = runs.chosen(np.arange(2))._replace(flops=np.array([1e18, 1.3e18]))
    assert [len(part.loss) for part in budgets(apart)] == [1, 1]


def test_budgets_may_be_chosen():
    runs = valleys(BESIROGLU, 4)
    found = isoflop(runs, [1e18, 1.05e21])
    assert [valley.flops for valley in found.valleys] == pytest.approx([1e18, 1e21])
    assert not found.interpolated


def along(law, sizes=7, snapshots=10, seeds=(0,), noise=0.0, per_token=6.0):
    """Losses along runs of many sizes, D a factor √2 apart, as a sweep has them; a token takes per_token·N^0.95 FLOPs."""
    rng = np.random.default_rng(1)
    rows = []
    for N in np.geomspace(5e3, 3e5, sizes):
        for seed in seeds:
            off = noise * rng.standard_normal()
            rows += [
                (N, D, per_token * N**0.95 * D, law.loss(N, D) * np.exp(off), f"{N:g}-{seed}")
                for D in 1e5 * 2 ** (np.arange(snapshots) / 2)
            ]
    N, D, C, loss, run = zip(*rows, strict=True)
    return Runs(*(np.array(x) for x in (N, D, C, loss)), np.array(run), "nats/character")


SMALL = LossLaw(0.9, 16.5, 89.0, 0.38, 0.405)  # near what a sweep of minutes finds


def test_losses_along_runs_are_read_between_neighbours():
    """The line lies above a law with a floor by at most (β·h)²/32; at the runs' own compute it is exact."""
    runs = along(SMALL)
    for C in (2e10, 1e11, 3.3e11):
        part = at_budget(runs, C)
        np.testing.assert_allclose(part.tokens, C / (6 * part.parameters**0.95), rtol=1e-9)
        above = np.log(part.loss / SMALL.loss(part.parameters, part.tokens))
        assert np.all(above >= -1e-12)
        assert above.max() <= (SMALL.beta * np.log(2) / 2) ** 2 / 32
        assert above.max() > 1e-5
    turned = at_budget(runs.chosen(np.arange(len(runs.loss))[::-1]), 1e11)
    np.testing.assert_allclose(turned.loss, at_budget(runs, 1e11).loss, rtol=1e-12)
    own = at_budget(runs, runs.flops[13])
    assert own.loss[own.parameters == runs.parameters[13]] == pytest.approx(runs.loss[13], rel=1e-12)


def test_no_size_is_read_beyond_its_own_losses():
    runs = along(SMALL)
    for C in (1e10, 1e11, 1e12):
        reach = [N for N in np.unique(runs.parameters) if np.ptp(np.sign(runs.flops[runs.parameters == N] - C)) == 2]
        assert at_budget(runs, C).parameters.tolist() == reach
    assert len(at_budget(runs, 1e30).loss) == 0


def test_seeds_enter_by_their_geometric_mean():
    runs = along(SMALL, seeds=(0, 1), noise=0.1)
    each = [at_budget(runs.chosen(np.char.endswith(runs.run, f"-{seed}")), 1e11).loss for seed in (0, 1)]
    np.testing.assert_allclose(at_budget(runs, 1e11).loss, np.sqrt(each[0] * each[1]), rtol=1e-12)


def test_the_budgets_of_a_sweep_are_round_and_reached_by_three_sizes():
    runs = along(SMALL)
    found = round_budgets(runs)
    assert {f"{C:.1e}"[0] for C in found} == set("12357")
    assert all(f"{C:.6e}"[1:8] == ".000000" for C in found)
    assert all(len(at_budget(runs, C).loss) >= 3 for C in found)
    third_lowest = np.sort([runs.flops[runs.parameters == N].min() for N in np.unique(runs.parameters)])[2]
    assert third_lowest <= found[0] <= 2 * third_lowest


def test_a_sweeps_law_of_minima_is_that_of_the_law_it_follows():
    """On the sweep's own FLOPs, which are not 6·N·D; the parabola's bias is what is left."""
    found = isoflop(along(SMALL))
    assert found.interpolated
    assert found.exponent == pytest.approx(exponent_by(SMALL, found), abs=0.02)
    inside = [valley for valley in found.valleys if valley.inside and minimum(SMALL, valley) is not None]
    assert len(inside) >= 4
    for valley in inside:
        C, sizes = valley.flops, np.geomspace(5e3, 3e5, 200_001)
        own = sizes[np.argmin(SMALL.loss(sizes, C / (6 * sizes**0.95)))]
        assert minimum(SMALL, valley) == pytest.approx(own, rel=1e-3)
        assert valley.parameters / own == pytest.approx(parabola_bias(SMALL, valley), rel=0.05)


def test_the_exponent_without_a_size_tells_what_hangs_on_one():
    runs = along(SMALL)
    found = isoflop(runs)
    clean = exponents_without_a_size(runs, found)
    assert len(clean) == 7
    assert np.ptp(clean) < 0.08
    largest = runs.parameters == runs.parameters.max()
    off = runs._replace(loss=np.where(largest, 0.97, 1) * runs.loss)
    assert clean[-1] == exponents_without_a_size(off, found)[-1]
    assert np.ptp(exponents_without_a_size(off, found)) > 2 * np.ptp(clean)
    few = valleys(BESIROGLU, 4, points=3)
    assert exponents_without_a_size(few, isoflop(few)) == pytest.approx([BESIROGLU.parameter_exponent] * 15, abs=1e-6)


def test_at_equal_compute_the_laws_own_minima_have_its_own_exponent():
    found = isoflop(valleys(BESIROGLU, 4))
    assert exponent_by(BESIROGLU, found) == pytest.approx(BESIROGLU.parameter_exponent, abs=1e-6)
    for valley in isoflop(valleys(BESIROGLU, 4, shift=1.3)).valleys:  # finer than the grid searched, with points 7·10⁻⁴ apart
        assert minimum(BESIROGLU, valley) == pytest.approx(BESIROGLU.optimum(valley.flops)[0], rel=1e-5)
    left_out = found._replace(valleys=tuple(v._replace(inside=False) for v in found.valleys))
    assert exponent_by(BESIROGLU, left_out) is None


def test_budgets_that_two_sizes_reach_are_left_out():
    runs = along(SMALL, sizes=5)
    found = isoflop(runs, [8e9, 3e10, 5e10, 1e11])
    assert len(at_budget(runs, 8e9).loss) == 2
    assert [valley.flops for valley in found.valleys] == pytest.approx([3e10, 5e10, 1e11])
    assert found.without == 0


def test_where_no_minimum_lies_among_the_sizes_the_reason_is_told():
    with pytest.raises(
        ValueError, match=r"0 of 5 budgets .1e\+18 to 1e\+21 FLOPs. have .* at 5 the smallest size .* train smaller"
    ):
        isoflop(valleys(BESIROGLU, 3, shift=6.0))
    with pytest.raises(ValueError, match="at 5 the largest size is the best; train larger"):
        isoflop(valleys(BESIROGLU, 3, shift=1 / 6))
    with pytest.raises(ValueError, match=r"1 of 1 budgets .1e\+18 FLOPs. have"):
        isoflop(valleys(BESIROGLU, 4), [1e18])
    hill = np.array([2.9, 3.0, 3.1, 3.15, 2.89, 3.15, 3.1, 3.0, 2.9])
    hill = valleys(BESIROGLU, 4)._replace(loss=np.tile(hill, 5))
    with pytest.raises(ValueError, match="the losses show no minimum; train more sizes and seeds"):
        isoflop(hill)
    with pytest.raises(ValueError, match="no budget is reached by three sizes"):
        isoflop(along(SMALL, sizes=2))
    with pytest.raises(ValueError, match="no budget is reached by three sizes"):
        isoflop(along(SMALL), [1e30])


def test_a_law_without_a_minimum_there_has_no_bias_to_tell():
    (valley,) = isoflop(valleys(BESIROGLU, 4)).valleys[:1]
    with pytest.raises(ValueError, match="the law has no valley"):
        parabola_bias(BESIROGLU._replace(A=1e9), valley)
