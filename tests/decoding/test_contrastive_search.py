"""Contrastive search: against its definition on the whole model, and against greedy decoding."""

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, generate
from refllm.decoding.contrastive_search import Contrast, contrastive_search
from refllm.layers.cache_blocks import an_array
from refllm.models.model import Model


def forward(model, tokens):
    return model.architecture.forward(model.params, model.tokens([tokens]), model.config)


def by_definition(model, prompt, n_tokens, contrast):
    """The specification's search, on the whole model without a cache."""
    return definitions()["contrastive_search"](
        lambda tokens: forward(model, tokens).logits[0].tolist(),
        lambda tokens: forward(model, tokens).features[0].tolist(),
        prompt,
        n_tokens,
        contrast.k,
        contrast.alpha,
    )


def score_of(model, before, token, alpha):
    """The log-probability and the score of a token behind others, by the definitions."""
    logits = forward(model, before).logits[0, -1].tolist()
    *seen, own = forward(model, [*before, token]).features[0].tolist()
    logprob = definitions()["log_probabilities"](logits)[token]
    return logprob, definitions()["contrast"](np.exp(logprob), own, seen, alpha)


def bound(model, tokens, dtype):
    """The error that a logit of the models of conftest.py may have, or the cosine of two features, eight times over.

    eps · (C + n) · largest logit, n the terms of all sums on the way through both layers, C = 60 the functions between.
    """
    largest = max(1.0, np.max(np.abs(forward(model, tokens).logits)))
    return 8 * {"float64": 2.0**-52, "float32": 2.0**-23}[dtype] * (60 + 256) * largest


@pytest.mark.parametrize("contrast", [Contrast(1, 0.5), Contrast(4, 0.6), Contrast(23, 1.0), Contrast(6, 0.2)])
def test_the_search_from_the_cache_is_its_definition_without_one(backend, make_model, contrast):
    dtype, prompt = "float64" if "float64" in backend.xp.dtypes() else "float32", [3, 1, 4]
    exact, model = make_model("numpy", "float64"), make_model(backend.name, dtype)
    choices = list(contrastive_search(model, prompt, 5, contrast))
    tokens = [choice.token for choice in choices]
    assert tokens == by_definition(exact, prompt, 5, contrast)
    for i, choice in enumerate(choices):
        logprob, score = score_of(exact, prompt + tokens[:i], choice.token, contrast.alpha)
        error = bound(exact, prompt + tokens, dtype)
        assert abs(choice.logprob - logprob) <= error
        assert abs(choice.score - score) <= error


@given(st.lists(st.integers(0, 22), min_size=1, max_size=5), st.integers(1, 23), st.sampled_from([0.0, 0.1, 0.6, 0.9, 1.0]))
def test_the_search_is_its_definition_whatever_is_asked(make_model, prompt, k, alpha):
    model = make_model("numpy", "float64")
    found = [choice.token for choice in contrastive_search(model, prompt, 3, Contrast(k, alpha))]
    assert found == by_definition(model, prompt, 3, Contrast(k, alpha))


def greedy(model, prompt, n_tokens, stop=()):
    return [int(step.tokens[0]) for step in generate(model, prompt, n_tokens, Sampler(0.0), 0, stop)]


def test_without_a_penalty_it_is_greedy(backend, make_model):
    model = make_model(backend.name)
    expected = greedy(model, [7, 8], 8)
    assert [choice.token for choice in contrastive_search(model, [7, 8], 8, Contrast(5, 0.0))] == expected


@given(st.lists(st.integers(0, 22), min_size=1, max_size=5), st.sampled_from([0.0, 0.6, 1.0]), st.sets(st.integers(0, 22)))
def test_one_candidate_is_greedy(make_model, prompt, alpha, stop):
    model = make_model("numpy", "float64")
    found = [choice.token for choice in contrastive_search(model, prompt, 8, Contrast(1, alpha), stop)]
    assert found == greedy(model, prompt, 8, stop)


def test_a_long_prompt_is_read_in_pieces_to_the_same_end(make_model):
    model, prompt = make_model("numpy", "float64", max_positions=160), np.random.default_rng(0).integers(0, 23, 150).tolist()
    found = [choice.token for choice in contrastive_search(model, prompt, 2, Contrast(4, 0.6))]
    assert found == by_definition(model, prompt, 2, Contrast(4, 0.6))


def test_the_candidates_share_the_blocks_of_the_text(make_model):
    model, caches = make_model("numpy", max_positions=600), []

    def watching(params, tokens, config, cache, **options):
        caches.append((tokens.shape, cache))
        return model.architecture.forward(params, tokens, config, cache, **options)

    watched = types.SimpleNamespace(**{**vars(model.architecture), "forward": watching})
    steps = contrastive_search(Model(watched, model.config, model.params), [1, 2, 3] * 100, 3, Contrast(5, 0.6))
    assert len(list(steps)) == 3
    assert [shape for shape, _ in caches] == [(1, 64)] * 4 + [(1, 44)] + [(5, 1)] * 3
    for layer in caches[-1][1].layers:
        assert {an_array(block).shape[0] for block in layer.keys} == {1}


@pytest.mark.parametrize(
    ("k", "alpha", "says"),
    [
        (0, 0.5, "k=0 leaves no candidate; it must be at least 1"),
        (4, 1.1, "alpha=1.1 is not a weight; it must be from 0 to 1"),
        (4, float("nan"), "alpha=nan is not a weight"),
    ],
)
def test_weights_that_cannot_be_are_refused_with_a_sentence(k, alpha, says):
    with pytest.raises(ValueError, match=says):
        Contrast(k, alpha)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_prompt_and_broken_logits_are_refused_with_a_sentence(make_model):
    model = make_model("numpy")
    for prompt, k, says in (
        ([], 2, "the prompt is empty"),
        ([1, 23], 2, "the id 23"),
        ([1], 24, "k=24 candidates are more than"),
    ):
        with pytest.raises(ValueError, match=says):
            contrastive_search(model, prompt, 3, Contrast(k, 0.5))
    broken = Model(model.architecture, model.config, {n: x * np.float32(np.inf) for n, x in model.params.items()})
    with pytest.raises(ValueError, match="the logits of token 1 are not finite numbers"):
        list(contrastive_search(broken, [1], 3, Contrast(2, 0.5)))
