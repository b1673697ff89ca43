"""The definitions of decoding/{sampling,cuts,penalties,mirostat,llama2c_random}.md against refllm, in float64.

Uniforms and limits are fractions at which no sum of a few equal probabilities lies.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance import specification
from refllm.conformance.specification import definitions
from refllm.decoding import cuts, generate, llama2c_random, mirostat, penalties, remember
from refllm.decoding.sampler import Mirostat, Sampler
from refllm.decoding.sampling import distribution, sample, uniforms
from refllm.models import architecture
from refllm.models.model import Model

V = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


def or_none(*values):
    return st.sampled_from([None, *values])


CUTS = {
    "temperature": (cuts.temperature, [0.5, 2.0]),
    "top_k": (cuts.top_k, [1, 3]),
    "top_p": (cuts.top_p, [0.0301, 0.31, 0.9, 1.0]),
    "min_p": (cuts.min_p, [0, 0.0701, 0.51, 1]),
    "typical": (cuts.typical, [0.0301, 0.23, 0.87, 1.0]),
    "epsilon_cut": (cuts.epsilon_cut, [0.0131, 0.19, 0.9]),
    "eta_cut": (cuts.eta_cut, [0.0171, 0.31, 0.9]),
}
SAMPLERS = st.builds(
    Sampler,
    temperature=st.sampled_from([0, 0.5, 2.0]),
    top_k=or_none(1, 3),
    top_p=or_none(0.31, 0.9, 1.0),
    min_p=or_none(0, 0.0701, 0.51),
    typical_p=or_none(0.23, 0.87, 1.0),
    epsilon=or_none(0.0131, 0.19),
    eta=or_none(0.0171, 0.31),
    repetition_penalty=st.sampled_from([1, 0.7, 1.5]),
    presence_penalty=st.sampled_from([0, 0.5]),
    frequency_penalty=st.sampled_from([0, 0.25]),
    no_repeat_ngram=or_none(1, 2, 3),
    logit_bias=st.sampled_from([{}, {0: 0.5}, {0: -np.inf}]),
) | st.builds(Sampler, temperature=st.sampled_from([0.5, 2.0]), mirostat=st.just((1.3, 0.4)))


def drawn(seed, *shape):
    """Multiples of 1/8, so that equal logits are common."""
    return np.random.default_rng(seed).integers(-24, 25, shape) / 8


def uniforms_drawn(seed, B):
    return np.random.default_rng(seed).integers(0, 255, B) / 256 + 1 / 1021


def assert_within(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CUTS)
@given(SEEDS, V, st.integers(0, 3), st.booleans())
def test_a_cuts_definition_agrees_with_refllm(name, seed, v, which, holes):
    function, limits = CUTS[name]
    logits, limit = drawn(seed, 3, v), limits[which % len(limits)]
    if holes:
        logits[:, 1::2] = -np.inf
    assert_within(function(logits, limit), [definitions()[name](row, limit) for row in logits.tolist()])


@given(SEEDS, V, st.integers(0, 6), st.integers(1, 4))
def test_the_penalties_definitions_agree_with_refllm(seed, v, S, n):
    rng, logits = np.random.default_rng(seed), drawn(seed, 3, v)
    history, allowed = rng.integers(0, v, (3, S), dtype=np.int32), rng.random((3, v)) < 0.5
    counts = penalties.count_tokens(history, v)
    rows, texts = logits.tolist(), history.tolist()

    def defined(name, *arguments):
        return [definitions()[name](*row) for row in zip(rows, *arguments, strict=True)]

    def thrice(value):
        return [value] * 3

    assert_within(penalties.allow(logits, allowed), defined("allow", allowed.tolist()))
    assert_within(penalties.bias(logits, ((0, 1.5),)), defined("bias", thrice([[0, 1.5]])))
    assert_within(penalties.repetition(logits, counts > 0, 1.3), defined("repetition", texts, thrice(1.3)))
    expected = defined("presence_and_frequency", texts, thrice(0.3), thrice(0.2))
    assert_within(penalties.presence_and_frequency(logits, counts, 0.3, 0.2), expected)
    assert_within(penalties.no_repeat_ngram(logits, history, n), defined("no_repeat_ngram", texts, thrice(n)))


@given(SEEDS, V, st.floats(0, 6))
def test_mirostats_definitions_agree_with_refllm(seed, v, mu):
    logits, rng = drawn(seed, 3, v), np.random.default_rng(seed)
    thresholds, tokens, aim = mu + rng.random(3), rng.integers(0, v, 3, dtype=np.int32), Mirostat(1.3, 0.4)
    rows = list(zip(logits.tolist(), thresholds.tolist(), tokens.tolist(), strict=True))
    assert_within(mirostat.surprise_cut(logits, thresholds), [definitions()["surprise_cut"](z, m) for z, m, _ in rows])
    expected = [definitions()["corrected"](m, z, token, aim) for z, m, token in rows]
    assert_within(mirostat.corrected(thresholds, logits, tokens, aim), expected)


@given(SEEDS, V, st.integers(0, 4), SAMPLERS, st.booleans())
def test_the_samplers_definition_agrees_with_refllm(seed, v, T, sampler, restricted):
    v, rng = max(v, 2) if sampler.biases else v, np.random.default_rng(seed)
    prompts = rng.integers(0, v, (3, T), dtype=np.int32)
    ours = remember(sampler, prompts, None, load("numpy").xp, v)
    theirs = [definitions()["remember"](sampler, row) for row in prompts.tolist()]
    for step in range(4):
        logits, numbers = drawn(seed + step, 3, v), uniforms_drawn(seed + step, 3)
        allowed = rng.random((3, v)) < (0.7 if restricted else 2)
        allowed[:, -1] = True
        rows = list(zip(logits.tolist(), numbers.tolist(), theirs, allowed.tolist(), strict=True))
        exact = 1e-12 if sampler.mirostat is None else np.inf  # a threshold in float32 decides otherwise here and there
        p = distribution(logits, sampler, ours, allowed)
        assert np.all(np.abs(p - [definitions()["distribution"](z, sampler, m, may) for z, _, m, may in rows]) <= exact)
        found, ours = sample(logits, numbers, sampler, ours, allowed)
        pairs = [definitions()["sample"](z, u, sampler, m, may) for z, u, m, may in rows]
        assert found.tolist() == [token for token, _ in pairs]
        theirs = [memory for _, memory in pairs]


@given(SEEDS, V, st.sampled_from([0.5, 1.0, 2.0]), or_none(0.0501, 0.37, 0.9, 1.0), st.integers(1, 2**64 - 1))
def test_the_definition_of_llama2cs_draws_agrees_with_refllm(seed, v, temperature, top_p, generator_seed):
    numbers = [llama2c_random.number(generator_seed, step) for step in range(5)]
    assert numbers == definitions()["llama2c_numbers"](generator_seed, 5)
    logits, drawn_by = drawn(seed, 3, v), uniforms_drawn(seed, 3)
    found, define = llama2c_random.draw(logits, drawn_by, temperature, top_p), definitions()["llama2c_draw"]
    assert found.tolist() == [define(z, u, temperature, top_p) for z, u in zip(logits.tolist(), drawn_by.tolist(), strict=True)]


PENALISED = Sampler(0.9, repetition_penalty=1.3, frequency_penalty=0.2, no_repeat_ngram=2, top_p=0.9, logit_bias={2: 1.0})


@pytest.mark.parametrize("sampler", [PENALISED, Sampler(mirostat=(2.0, 0.3))], ids=["penalised", "mirostat"])
def test_generation_that_reads_the_text_is_its_definition(sampler):
    sizes = {"d_model": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_head": 2, "d_ff": 6}
    config = architecture("llama").Config(vocab_size=5, max_positions=12, **sizes)
    params = {n: x * 1.0 for n, x in architecture("llama").initialise(config, 3).items()}
    params["lm_head"] = params["lm_head"] * 60  # so that tokens are neither sure nor alike
    model, lists = Model(architecture("llama"), config, params), specification.plain(params)
    numbers = [float(uniforms(7, step, 1)[0]) for step in range(8)]
    expected = definitions()["continued"](lambda t: definitions()["llama"](lists, t, config), [3, 1], 8, numbers, sampler)
    assert [int(step.tokens[0]) for step in generate(model, [3, 1], 8, sampler, seed=7)] == expected
