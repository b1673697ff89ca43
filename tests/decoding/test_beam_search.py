"""Beam search: against its definition, against all texts there are, and against transformers."""

import itertools
import math
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, generate
from refllm.decoding.beam_search import Beam, Beams, Hypothesis, beam_search, nothing_to_gain
from refllm.layers.cache_blocks import an_array
from refllm.models import llama
from refllm.models.model import Model

STOPPINGS = st.sampled_from(["enough", "likely", "certain"])
PENALTIES = st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.5])


def by_definition(model, prompt, n_tokens, beams, stop):
    """The specification's search, on the whole model without a cache."""
    settings = types.SimpleNamespace(**vars(beams), n_tokens=n_tokens, ends=list(stop))
    return definitions()["beam_search"](lambda tokens: model.logits([tokens])[0].tolist(), list(prompt), settings)


def error(model, prompt, text, dtype):
    """The error that the log-probability of a text may have: for each token, eps · (C + n) · largest logit, twice over.

    n counts the terms of all sums on the way through both layers of the models of conftest.py, C = 60 the functions between.
    """
    largest = np.max(np.abs(model.logits([[*prompt, *text]])))
    return len(text) * 2 * {"float64": 2.0**-52, "float32": 2.0**-23}[dtype] * (60 + 256) * largest


SEARCHES = [
    (Beams(1), ()),
    (Beams(4, length_penalty=0.0, n_best=4), ()),
    (Beams(4, length_penalty=1.5, n_best=4, stopping="certain"), (3, 5, 9)),
    (Beams(6, groups=3, diversity=0.5, n_best=6), (2, 11)),
]


@pytest.mark.parametrize(("beams", "stop"), SEARCHES)
def test_the_search_is_its_definition(backend, make_model, beams, stop):
    dtype, prompt = "float64" if "float64" in backend.xp.dtypes() else "float32", [3, 1, 4]
    exact = make_model("numpy", "float64")
    found = beam_search(make_model(backend.name, dtype), prompt, 4, beams, stop)
    expected = by_definition(exact, prompt, 4, beams, stop)
    assert [list(text.tokens) for text in found] == [tokens for tokens, _, _ in expected]
    for text, (tokens, logprob, score) in zip(found, expected, strict=True):
        bound = error(exact, prompt, tokens, dtype)
        assert abs(text.logprob - logprob) <= bound
        assert abs(text.score - score) <= bound / len(tokens) ** beams.length_penalty


@given(st.data(), STOPPINGS, PENALTIES, st.sampled_from([0.0, 0.3, 5.0]))
def test_the_search_is_its_definition_whatever_is_asked(make_model, data, stopping, length_penalty, diversity):
    groups, each = data.draw(st.integers(1, 3), "groups"), data.draw(st.integers(1, 3), "beams of a group")
    beams = Beams(
        groups * each,
        length_penalty,
        stopping,
        groups,
        diversity if groups > 1 else 0.0,
        data.draw(st.integers(1, groups * each), "best"),
    )
    prompt = data.draw(st.lists(st.integers(0, 22), min_size=1, max_size=4), "prompt")
    stop = data.draw(st.sets(st.integers(0, 22), max_size=8), "stop")
    model, n_tokens = make_model("numpy", "float64"), data.draw(st.integers(1, 4), "tokens")
    found, expected = beam_search(model, prompt, n_tokens, beams, stop), by_definition(model, prompt, n_tokens, beams, stop)
    assert [list(text.tokens) for text in found] == [tokens for tokens, _, _ in expected]


def small(V=4):
    """A Llama so small that all its texts can be told."""
    config = llama.Config(V, 8, 1, 2, 1, 4, 8, max_positions=16)
    rng = np.random.default_rng(7)
    params = {n: rng.standard_normal(s) / (1 if len(s) == 1 else s[0] ** 0.5) for n, s in llama.parameter_shapes(config).items()}
    return Model(llama, config, params)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(1, 3), st.sets(st.integers(0, 3), max_size=2), PENALTIES)
def test_with_a_beam_for_every_text_the_search_is_exhaustive(prompt, T, stop, length_penalty):
    model, scored = small(), {}
    for letters in itertools.product(range(4), repeat=T):
        end = next((i for i, token in enumerate(letters) if token in stop), T - 1)
        text = letters[: end + 1]
        logits = model.logits([[*prompt, *text]])[0][len(prompt) - 1 : -1]
        logprob = math.fsum(row[t] - np.log(np.sum(np.exp(row))) for row, t in zip(logits, text, strict=True))
        scored[text] = logprob / len(text) ** length_penalty
    found = beam_search(model, prompt, T, Beams(4**T, length_penalty, "certain", n_best=4**T), stop)
    assert [text.tokens for text in found] == sorted(scored, key=lambda text: -scored[text])
    np.testing.assert_allclose([text.score for text in found], sorted(scored.values(), reverse=True), rtol=1e-12)


@pytest.mark.parametrize(
    ("stopping", "length_penalty", "worst", "ends"),
    [
        ("enough", 1.0, -9.0, True),
        ("likely", 1.0, -2.0, True),  # −4 nats in 2 tokens score −2, and in 8, with nothing more lost, −0.5
        ("likely", 1.0, -2.1, False),
        ("certain", 1.0, -0.5, True),
        ("certain", 1.0, -0.6, False),
        ("certain", 0.0, -4.0, True),
        ("certain", -1.0, -8.0, True),  # a longer text can only be worse
        ("certain", -1.0, -8.1, False),
    ],
)
def test_a_search_ends_where_its_rule_says(stopping, length_penalty, worst, ends):
    best, beams = Beam((1, 2), -3.0, 1.0, 0), Beams(2, length_penalty, stopping)
    assert nothing_to_gain(best, Hypothesis((1,), worst, worst), beams, 2, 8) == ends


@given(st.lists(st.integers(0, 22), min_size=1, max_size=5), PENALTIES, st.sets(st.integers(0, 22), max_size=4))
def test_one_beam_is_greedy(make_model, prompt, length_penalty, stop):
    model = make_model("numpy", "float64")
    (text,) = beam_search(model, prompt, 6, Beams(1, length_penalty, "enough"), stop)
    assert list(text.tokens) == [int(step.tokens[0]) for step in generate(model, prompt, 6, Sampler(0.0), 0, stop)]


def test_a_later_group_avoids_what_an_earlier_group_chose(backend, make_model):
    found = beam_search(make_model(backend.name), [3, 1], 3, Beams(6, groups=6, diversity=100.0, n_best=6, length_penalty=0.0))
    for step in zip(*(text.tokens for text in found), strict=True):
        assert len(set(step)) == 6
    assert all(text.score <= text.logprob for text in found)
    assert [text.score for text in found] == sorted([text.score for text in found], reverse=True)
    assert sorted(round((text.logprob - text.score) / 100) for text in found) == [0] * 6


@given(st.lists(st.integers(0, 22), min_size=1, max_size=5), st.sets(st.integers(0, 22), max_size=4), STOPPINGS)
def test_groups_without_a_penalty_are_the_same_search(make_model, prompt, stop, stopping):
    model = make_model("numpy", "float64")
    one = beam_search(model, prompt, 4, Beams(2, stopping=stopping, n_best=2), stop)
    three = beam_search(model, prompt, 4, Beams(6, stopping=stopping, groups=3, n_best=6), stop)
    assert [text.tokens for text in three] == [text.tokens for text in one for _ in range(3)]


def test_among_equals_the_earlier_beam_and_the_lower_id_come_first(backend):
    model = Model.initialise("llama", small(5).config, seed=0, backend=backend)
    flat = {n: x * 0.0 for n, x in model.params.items()}
    found = beam_search(Model(llama, model.config, flat), [2], 2, Beams(4, n_best=4))
    assert [text.tokens for text in found] == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_the_prompt_is_read_once_and_its_blocks_are_shared(make_model):
    model, shapes, caches = make_model("numpy", max_positions=600), [], []

    def forward(params, tokens, config, cache, **options):
        shapes.append(tokens.shape)
        caches.append(cache)
        return model.architecture.forward(params, tokens, config, cache, **options)

    watched = types.SimpleNamespace(**{**vars(model.architecture), "forward": forward})
    beam_search(Model(watched, model.config, model.params), [1, 2, 3] * 100, 4, Beams(5))
    assert shapes == [(1, 300), (5, 1), (5, 1), (5, 1)]
    for layer in caches[-1].layers:
        if layer.window is None:
            assert [an_array(block).shape[0] for block in layer.keys] == [1, 5]  # the prompt's whole block, and what follows


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n": 0}, "n=0 beams in groups=1 groups cannot be"),
        ({"n": 4, "groups": 3}, "groups must divide n"),
        ({"n": 4, "n_best": 5}, "n_best=5 texts cannot come of n=4 beams; ask for 1 … 4"),
        ({"n": 4, "n_best": 0}, "ask for 1 … 4"),
        ({"n": 4, "length_penalty": math.nan}, "length_penalty=nan must be a finite number"),
        ({"n": 4, "stopping": "early"}, "stopping='early' is not a rule to stop by; choose one of enough, likely, certain"),
        ({"n": 4, "groups": 2, "diversity": -1.0}, "diversity=-1.0 must be 0 or a positive number of nats"),
        ({"n": 4, "diversity": 1.0}, "there is one; ask for groups=2 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        Beams(**settings)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_prompt_and_broken_logits_are_refused_with_a_sentence(make_model):
    model = make_model("numpy")
    for prompt, says in (
        ([], "the prompt is empty"),
        ([1, 23], "holds the id 23"),
        ([1] * 16, "do not fit|does not fit|no room"),
    ):
        with pytest.raises(ValueError, match=says):
            beam_search(model, prompt, 3, Beams(2))
    broken = Model(model.architecture, model.config, {n: x * np.float32(np.inf) for n, x in model.params.items()})
    with pytest.raises(ValueError, match="the logits of token 1 are not finite numbers"):
        beam_search(broken, [1], 3, Beams(2))


EARLY = {"enough": True, "likely": False, "certain": "never"}


@pytest.mark.oracle
@pytest.mark.parametrize("stopping", EARLY)
def test_the_texts_and_scores_are_those_of_transformers(transformers_in_float64, tmp_path, stopping):
    import torch

    config = llama.Config(19, 8, 2, 2, 1, 4, 8, max_positions=32)
    rng = np.random.default_rng(3)
    shapes = llama.parameter_shapes(config)
    params = {n: 1.5 * rng.standard_normal(s) / (1 if len(s) == 1 else s[0] ** 0.5) for n, s in shapes.items()}
    model = Model(llama, config, params)
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    for n, length_penalty, stop in itertools.product((2, 5), (-1.0, 0.0, 1.5), ((), (1, 6, 8))):
        prompt = rng.integers(0, 19, 4).tolist()
        found = beam_search(model, prompt, 6, Beams(n, length_penalty, stopping, n_best=n), stop)
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),  # without it 0, the padding, would not be seen
            num_beams=n,
            num_return_sequences=n,
            length_penalty=length_penalty,
            early_stopping=EARLY[stopping],
            eos_token_id=list(stop) or None,
            pad_token_id=0,
            max_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for text, ids, score in zip(found, expected.sequences.tolist(), expected.sequences_scores.tolist(), strict=True):
            assert list(text.tokens) == ids[len(prompt) :][: len(text.tokens)]
            assert set(ids[len(prompt) + len(text.tokens) :]) <= {0, *stop}  # what a shorter text is filled up with
            assert abs(text.score - score) <= 1e-12 * abs(score)
