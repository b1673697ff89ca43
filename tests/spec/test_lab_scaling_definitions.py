"""The definitions of spec/lab/fits.md and sweeps.md against refllm, in float64."""

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import use
from refllm.conformance.specification import definitions, spec_folder, tables
from refllm.lab.experiments import sweep, sweep_facts
from refllm.lab.fits import fit, frontier, huber, isoflop, laws
from refllm.lab.fits.runs import table
from refllm.lab.materials import corpus, text_models
from refllm.lab.running.learn import learn
from refllm.models import accounting, architecture
from refllm.training.config import TrainingConfig
from refllm.training.flat import pack
from refllm.training.step import learner

SEEDS = st.integers(0, 2**32 - 1)
LAWS = st.builds(laws.LossLaw, st.floats(0, 3), st.floats(10, 1e4), st.floats(10, 1e4), st.floats(0.1, 1), st.floats(0.1, 1))


def of(name):
    return definitions()[name]


def assert_within(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def drawn_law(seed):
    """A law like those in print."""
    return laws.LossLaw(1.5, *np.random.default_rng(seed).uniform([300, 300, 0.3, 0.25], [2000, 2000, 0.4, 0.4]).tolist())


# fits.md


@given(LAWS, st.floats(1e3, 1e10), st.floats(1e3, 1e12))
def test_the_definitions_of_laws_of_loss_agree_with_refllm(law, N, D):
    assert_within(law.loss(N, D), of("loss_law")(N, D, law))
    assert_within(law.optimum(6 * N * D), of("best_split")(6 * N * D, law), 1e-9)
    assert_within(law.compute_exponent, of("compute_exponent")(law))
    curve = laws.PowerLaw(law.E, math.log(law.A), law.alpha)
    assert_within(curve.loss(N), of("power_law")(N, SimpleNamespace(floor=law.E, scale=law.A, exponent=law.alpha)))


def test_laws_in_print_are_those_of_the_page():
    for name, law in laws.LOSS_LAWS.items():
        assert_within(laws.compute_factors()[name], of("times_to_halve")(of("compute_exponent")(law)))
    for name, x in (("parameters", 1e9), ("tokens", 1e10), ("flops", 1e20)):
        by = {"flops": "compute"}.get(name, name)
        assert_within(laws.KAPLAN[name].loss(x), of(f"kaplan_by_{by}")(x))
    text = (spec_folder() / "lab" / "fits.md").read_text(encoding="utf-8")
    (grid,) = (grid for grid in tables(text) if grid[0][0] == "In print")
    stated = [[float(cell) for cell in (*row[1:6], row[7])] for row in grid[1:4]]
    found = [[*law, laws.compute_factors()[name]] for name, law in laws.LOSS_LAWS.items()]
    np.testing.assert_allclose(np.array(found)[:, :5], np.array(stated)[:, :5], rtol=1e-6)  # A and B are printed to six digits
    np.testing.assert_allclose(np.array(found)[:, 5], np.array(stated)[:, 5], atol=0.05)


@given(SEEDS, st.sampled_from([0.0, 1e9, 1e13]))
def test_the_definition_of_lifetime_flops_agrees_with_refllm(seed, S):
    law, loss = drawn_law(seed), 1.5 + float(np.random.default_rng(seed).uniform(0.2, 1))
    N, D = law.lifetime_optimum(loss, S)
    assert_within(D, of("tokens_to_reach")(loss, N, law), 1e-9)
    least = of("lifetime_flops")(loss, N, S, law)
    assert all(of("lifetime_flops")(loss, N * factor, S, law) >= least * (1 - 1e-12) for factor in (0.99, 1.01, 2))


@given(SEEDS, st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_objectives_definition_agrees_with_refllm(seed, delta):
    rng = np.random.default_rng(seed)
    p = SimpleNamespace(**dict(zip(("a", "b", "e", "alpha", "beta"), rng.uniform(0.1, 1, 5).tolist(), strict=True)))
    N, D, L = rng.uniform(1, 9, (3, 4))
    logs, vector = np.log(np.stack([N, D], axis=1)), [[p.a, p.b, p.e, p.alpha, p.beta]]
    found = huber.objective(np.array(vector), logs, np.log(L), np.ones(4), huber.Terms(2, True), delta)
    assert_within(found, [of("fit_objective")(list(zip(N, D, L, strict=True)), p, delta)])
    floorless = huber.objective(np.array(vector)[:, [0, 1, 3, 4]], logs, np.log(L), np.ones(4), huber.Terms(2, False), delta)
    p.e = -np.inf
    assert_within(floorless, [of("fit_objective")(list(zip(N, D, L, strict=True)), p, delta)])


@pytest.mark.parametrize("v", [1, 2, 3, 4, 7, 30])
def test_the_definition_of_expanded_percentiles_agrees_with_refllm(v):
    tolerance = 1e-6 if v < 3 else 0.01
    assert_within(fit.student(v), of("student")(v), tolerance)
    if v > 1:  # with one degree of freedom the share is smaller than float64 can tell from 0
        found, expected = (NormalDist().inv_cdf(share(v + 2, 2)) for share in (fit.share_beyond, of("share_beyond")))
        assert_within(found, expected, tolerance)


@given(SEEDS, st.sampled_from([2.0, 4.0, 16.0]))
def test_the_definition_of_a_parabolas_minimum_agrees_with_refllm(seed, factor):
    law, rows = drawn_law(seed), []
    for C in (1e18, 1e20):
        N = law.optimum(C)[0] * factor ** np.array([-1, -0.5, 0, 0.5, 1])
        rows += [{"parameters": n, "flops": C, "tokens": C / 6 / n, "loss": law.loss(n, C / 6 / n)} for n in N]
    for C, valley in zip((1e18, 1e20), isoflop.isoflop(table(rows, {"nats/token"})).valleys, strict=True):
        x, y = np.log(valley.runs.parameters).tolist(), valley.runs.loss.tolist()
        middle = sum(x) / 5
        assert_within(np.log(valley.parameters), middle + of("parabola_minimum")([v - middle for v in x], y), 1e-6)
        assert_within(isoflop.parabola_bias(law, valley), of("parabola_bias")(C, factor, law), 1e-6)


def test_the_definition_of_a_loss_at_a_budget_agrees_with_refllm():
    rows = [
        {"parameters": n, "flops": C, "tokens": C / 6 / n, "loss": 4 / C**0.1 + 1 / n**0.2, "run": f"{n}"}
        for n in (10**4, 10**5)
        for C in (1e12, 3e12, 1e13)
    ]
    found = isoflop.at_budget(table(rows, {"nats/token"}), 5e12)
    expected = [
        of("loss_at_budget")(5e12, [1e12, 3e12, 1e13], [row["loss"] for row in rows if row["parameters"] == n])
        for n in (10**4, 10**5)
    ]
    assert_within(found.loss, expected)


@pytest.mark.parametrize("law", laws.LOSS_LAWS.values(), ids=laws.LOSS_LAWS)
def test_the_definition_of_the_apparent_exponent_agrees_with_refllm(law):
    assert_within(frontier.apparent_exponent(law), of("apparent_exponent")(law), 1e-9)


@pytest.mark.parametrize("width", [12, 24, 64])
def test_the_definition_of_a_llamas_flops_agrees_with_accounting(width):
    c, llama = text_models.config_of(width, 96, 64), architecture("llama")
    expected = of("llama_flops")(c.d_model, c.n_heads, c.d_head, c.n_layers, c.d_ff, c.vocab_size, 64)
    found = accounting.forward_flops(llama, c, (64 + 1) // 2)
    assert found == (expected.blocks, expected.attention, expected.head)
    assert found.training == of("training_flops")(expected)
    if width == 12:  # the page's example
        N = accounting.parameters(llama, c)
        assert (N.total, N.non_embedding, found.training) == (4668, 3516, 36864)


# sweeps.md


@given(SEEDS, st.integers(1, 40), st.integers(1, 9))
def test_the_definitions_of_the_recipe_agree_with_refllm(seed, count, context):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(context + 2, 200))
    windows, _ = corpus.evaluation(np.arange(n), count=count, context=context)
    assert windows[:, 0].tolist() == of("window_starts")(n, count, context)
    grid = sweep.Settings(batch=count, context=context)
    assert_within(sweep.training_of(sweep.Task(24, 0, 1e-3, 10, grid)).beta2, of("beta2_of")(count, context))
    rates, losses = (1e-3, 2e-3, 4e-3, 8e-3)[: 2 + count % 3], rng.uniform(1, 3, 4).tolist()
    found = sweep.lowest(rates, losses[: len(rates)])
    assert_within(found, of("lowest_rate")(list(rates), losses[: len(rates)]), 1e-6)
    best = (losses[0] / 100, losses[1] / 100)
    assert_within(sweep.Tuning((24, 64), best, []).rate(48), of("rate_at")(48, [24, 64], best))
    groups = [rng.uniform(1, 3, size).tolist() for size in (3, 1, 2)]
    rows = [
        {"parameters": 10 ** (4 + i), "tokens": 10**7, "seed": j, "loss": loss}
        for i, group in enumerate(groups)
        for j, loss in enumerate(group)
    ]
    assert_within(sweep_facts.seed_spread(table(rows, {"nats/token"})), of("pooled_spread")(groups))


@pytest.mark.parametrize("horizon", [0.0, 9.0])
def test_the_running_means_definition_agrees_with_refllm(horizon):
    gpt2, settings = architecture("gpt2"), {"context": 3, "batch": 2, "steps": 5, "learning_rate": 0.1, "dtype": "float64"}
    config = gpt2.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=2, max_positions=3, d_ff=8)
    training = TrainingConfig(**settings)

    def batch_at(step):
        ids = np.random.default_rng(step).integers(0, 5, (2, 4), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    with use("numpy"):
        layout = learner(gpt2, config, training).layout
        found = list(learn("gpt2", config, training, batch_at, range(1, 6), horizon=horizon))
    weights = np.stack([pack(snapshot.raw, layout) for snapshot in found], axis=1).tolist()
    for t, snapshot in enumerate(found, 1):
        assert_within(pack(snapshot.averaged, layout), [of("power_mean")(values[:t], horizon) for values in weights], 1e-9)
