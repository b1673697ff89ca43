"""The definitions of spec/lab/{reliability,units,likelihoods,data}.md against refllm, in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.lab.experiments import collapse, pairs
from refllm.lab.materials import effective_data, ngrams, toy_language, units
from refllm.lab.materials.arithmetic_coder import Encoder
from refllm.lab.reliability import battery, passk, yields
from refllm.models import ngram

SEEDS = st.integers(0, 2**32 - 1)


def of(name):
    return definitions()[name]


def assert_within(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def outcomes(seed, *shape):
    """Right or not, with items of their own reliability."""
    rng = np.random.default_rng(seed)
    return rng.random(shape) < rng.uniform(0.4, 1, (*shape[:-1], 1))


# reliability.md


@given(SEEDS, st.integers(2, 9), st.integers(1, 6))
def test_the_definitions_of_the_yield_agree_with_refllm(seed, items, steps):
    right = outcomes(seed, items, steps)
    rows, found = right.astype(int).tolist(), yields.curve(right, permutations=2)
    assert_within(found.measured, of("exact_matches")(rows))
    q = of("step_accuracies")(rows)
    assert_within(found.product, [of("product")(q[: n + 1]) for n in range(steps)])
    assert_within(found.power, [(sum(q) / steps) ** (n + 1) for n in range(steps)])
    assert_within([found.power_error[-1], found.product_error[-1]], of("distance_errors")(rows), 1e-9)
    mean, theta = yields.beta_binomial(right.sum(axis=1), steps)
    assert_within(found.spread, [of("beta_power")(mean, theta, n + 1) for n in range(steps)])
    assert_within(yields.reliability_needed(0.3, steps), of("reliability_needed")(0.3, steps))


@pytest.mark.parametrize("seed", range(3))
def test_the_definition_of_the_beta_binomial_agrees_with_refllm(seed):
    rng = np.random.default_rng(seed)
    successes = rng.binomial(12, rng.beta(3.0, 1.0, 60))
    mean, theta = yields.beta_binomial(successes, 12)

    def likelihood(m, t):
        return of("beta_log_likelihood")(successes.tolist(), 12, m, t)

    others = [(mean * 1.02, theta), (mean * 0.98, theta), (mean, theta * 1.1), (mean, theta * 0.9)]
    assert all(likelihood(mean, theta) > likelihood(*other) for other in others)


@given(SEEDS, st.integers(3, 8), st.integers(2, 5))
def test_the_definitions_of_the_battery_agree_with_refllm(seed, items, steps):
    attempts = outcomes(seed, 2, items, steps)
    attempts[0, :2, 0] = [True, False]  # so that something varies
    found = battery.battery(attempts, permutations=1)
    assert_within(found.dispersion, of("dispersion")(attempts[0].astype(int).tolist()))
    rng = np.random.default_rng(seed)
    p, features = rng.integers(1, 9, items * steps) / 8, rng.integers(0, 3, items * steps)
    p[:2], features[:3] = [0.25, 0.5], [0, 1, 1]
    assert_within(battery.persistent_share_exact(p), of("persistent_share")(p.tolist()))
    which = np.unique(features, return_inverse=True)[1]
    assert_within(battery.explained(p, which), of("explained")(p.tolist(), features.tolist()), 1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(1, 20), st.data())
def test_the_definitions_of_attempts_agree_with_refllm(p, n, data):
    k, c = data.draw(st.integers(1, n)), data.draw(st.integers(0, n))
    assert_within(passk.exact(p, k)[0], of("pass_at")(p, k))
    assert_within(passk.estimated([c], n, k), of("estimated_pass_at")(c, n, k))
    assert passk.total_flops(100, n, 7, k, c) == of("total_flops")(100, n, 7, k, c)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("answers", [[1, 1, 2, 3, 1], [2, 2, 1, 1, 3], [1, 2, 3, 4, 4]])
def test_the_definitions_of_majority_and_best_agree_with_refllm(answers, k):
    repeats, scores = 2000, [3, 1, 5, 4, 2]
    right = [answer == 1 for answer in answers]
    for found, expected in (
        (passk.majority([answers], [1], k, repeats), of("majority_at")(answers, 1, k)),
        (passk.best_of([scores], [right], k, repeats), of("best_at")(scores, right, k)),
    ):
        assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / repeats) + 1e-12


# units.md and likelihoods.md


@given(st.text(st.sampled_from("ab é\n水"), max_size=9), st.floats(0, 50))
def test_the_definition_of_surprise_agrees_with_refllm(text, nats):
    text = text + "a"
    found, expected = units.surprise(text, nats), of("surprise")(text, len(text.encode()), nats)
    assert_within(
        (found.per_byte, found.per_character, found.per_word), (expected.per_byte, expected.per_character, expected.per_word)
    )


@given(st.lists(st.tuples(st.sampled_from([(2, 1, 1), (1, 2, 1), (1, 4, 3)]), st.integers(0, 2)), min_size=1, max_size=12))
def test_a_code_lies_within_its_definitions_interval(text):
    encoder = Encoder()
    for frequencies, symbol in text:
        encoder.write(symbol, np.cumsum(frequencies))
    encoder.finish()
    low, width = of("code_interval")([s for _, s in text], [[f / sum(p) for f in p] for p, _ in text])
    begin, n = sum(bit * 0.5 ** (i + 1) for i, bit in enumerate(encoder.bits)), len(encoder.bits)
    assert low <= begin
    assert begin + 0.5**n <= low + width  # whatever follows
    assert n <= of("code_digits")([s for _, s in text], [[f / sum(p) for f in p] for p, _ in text]) + 1


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_definition_of_the_toy_language_agrees_with_refllm(length):
    texts, A = toy_language.every_text(length), toy_language.transitions().tolist()
    assert texts.tolist() == of("texts_of")(length, toy_language.V)
    assert_within(np.exp(toy_language.log_likelihood(texts)), [of("chain_probability")(x, A) for x in texts.tolist()])
    expected = [of("chain_pseudo_probability")(x, A) for x in texts.tolist()]
    assert_within(np.exp(toy_language.pseudo_log_likelihood(length)), expected)


# data.md


@given(st.lists(st.integers(0, 3), min_size=4, max_size=20), st.integers(1, 4))
def test_the_definition_of_a_tables_entries_agrees_with_refllm(stream, order):
    assert ngrams.entries(ngram.train(np.array(stream), order, 4)) == of("table_entries")(stream, order)


@given(st.lists(st.floats(1, 3), min_size=2, max_size=6), st.floats(0.5, 3.5), st.floats(0.1, 100), st.integers(1, 64))
def test_the_definitions_of_effective_data_agree_with_refllm(fresh, loss, R, epochs):
    D = [100.0 * 2**i for i in range(len(fresh))]
    found = effective_data.equal_data(np.array([loss, *fresh]), np.array(D), np.array(fresh))
    assert_within(found, [of("equal_data")(one, D, fresh) for one in (loss, *fresh)], 1e-9)
    assert_within(effective_data.predicted(np.array([epochs]), R), [of("effective_epochs")(epochs, R)], 1e-9)


@pytest.mark.parametrize("values", [(2.0, 4.0), (2.0, 4.0, 8.0), (1.0, 3.0, 2.0, 5.0)])
def test_the_definition_of_an_interval_geometric_interval_agrees_with_refllm(values):
    found, expected = effective_data.geometric_interval(np.array(values)), of("geometric_interval")(values)
    assert_within(np.log(found), np.log(expected), 1e-6 if len(values) < 4 else 0.01)  # as exact as Student's t


@pytest.mark.parametrize("regime", collapse.REGIMES)
def test_the_definitions_of_generations_agree_with_refllm(regime):
    data, written, real = np.random.default_rng(0).integers(0, 3, (3, 5, 8), dtype=np.uint8)
    found = collapse.following(regime, data, written, real)
    assert found.tolist() == of("next_data")(regime, data.tolist(), written.tolist(), real.tolist())
    share = collapse.measures(found, np.array([0]))["distinct"]
    assert share == of("distinct_share")(found.tolist(), 4)


@given(st.lists(st.sampled_from(["I", "love", "street"]), max_size=5))
def test_the_definition_of_pairs_agrees_with_refllm(tokens):
    expected = of("training_pairs")(tokens, pairs.BEGIN, pairs.END)
    assert [[list(context), target] for context, target in pairs.pairs(tokens)] == expected
