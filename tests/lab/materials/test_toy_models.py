"""The small models of the toy language: what they learn from, and that they learn it."""

import numpy as np
import pytest

from refllm.array_api import use
from refllm.lab.materials import toy_language, toy_models
from refllm.lab.materials.task_models import falling
from refllm.lab.materials.toy_models import BEGIN, MASK, Recipe
from refllm.models import architecture
from refllm.models.model import Model
from refllm.training.schedule import learning_rate

RECIPE = Recipe(longest=4, width=16, steps=150, batch=32, rate=5e-3, seed=0)


def test_texts_of_all_lengths_are_learned_from_other_ones_at_every_step():
    steps = [toy_models.texts_at(RECIPE, step) for step in range(60)]
    assert {texts.shape[1] for texts in steps} == {1, 2, 3, 4}
    assert {len(texts) for texts in steps} == {32}
    longest = [texts for texts in steps if texts.shape[1] == 4]
    assert not np.array_equal(longest[0], longest[1])
    np.testing.assert_array_equal(toy_models.texts_at(RECIPE, 7), steps[7])


def test_the_autoregressive_model_learns_each_letter_from_those_before_it():
    for step in range(20):
        tokens, targets = toy_models.next_letters(RECIPE, step)
        assert (tokens[:, 0] == BEGIN).all()
        np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
        np.testing.assert_array_equal(targets, toy_models.texts_at(RECIPE, step))


def test_the_masked_model_learns_letters_that_are_hidden_at_other_places_at_every_step():
    hidden, tokens_seen = {}, set()
    for step in range(80):
        tokens, targets = toy_models.hidden_letters(RECIPE, step)
        texts = toy_models.texts_at(RECIPE, step)
        tokens_seen |= set(tokens.ravel().tolist())
        np.testing.assert_array_equal(np.where(targets < 0, texts, targets), texts)
        assert (tokens[targets == -100] == texts[targets == -100]).all()
        assert (targets >= 0).any(axis=1).all()
        hidden.setdefault(texts.shape[1], []).append(targets >= 0)
    assert tokens_seen == {0, 1, 2, 3, MASK}
    assert not np.array_equal(hidden[4][0], hidden[4][1])


def test_the_learning_rate_is_constant_and_falls_over_the_last_third():
    t = falling(RECIPE.rate, RECIPE.steps, RECIPE.batch, context=4, seed=0)
    given = {name: getattr(t, name) for name in ("schedule", "steps", "warmup_steps", "decay_steps", "final_fraction")}
    rates = np.array([learning_rate(step, peak=t.learning_rate, **given) for step in range(RECIPE.steps)])
    assert rates[50:99] == pytest.approx(RECIPE.rate)
    assert (np.diff(rates[101:]) < 0).all()
    assert rates[-1] < 0.1 * RECIPE.rate


def test_the_autoregressive_model_learns_the_language():
    texts = toy_language.every_text(4)
    log_p = toy_language.log_likelihood(texts)
    found = toy_models.log_likelihood(toy_models.in_float64(toy_models.train_autoregressive(RECIPE)), texts)
    divergence = float((np.exp(log_p) * (log_p - found)).sum())  # nats a text; of the uniform distribution 2.4
    assert 0 < divergence < 0.3


def test_the_masked_model_learns_the_language():
    model = toy_models.in_float64(toy_models.train_masked(RECIPE._replace(steps=300)))
    texts = toy_language.every_text(3)
    weights = np.exp(toy_language.log_likelihood(texts))
    off = toy_language.pseudo_log_likelihood(3) - toy_models.pseudo_log_likelihood(model, texts)
    assert abs(float((weights * off).sum())) < 1  # nats a text; of guesses at random 2.9
    assert model.tokenizer.decode([0, 1]) == "a b"
    assert model.tokenizer.mask == MASK


def test_letters_with_large_logits_have_probabilities_too():
    config = architecture("gpt2").Config(5, 8, 1, 2, 4, 16)
    model = toy_models.in_float64(Model.initialise("gpt2", config, 0, "numpy"))
    params = dict(model.params)
    params["norm.gain"] = params["norm.gain"] * 1e5
    found = toy_models.letter_logs(Model(model.architecture, config, params), np.array([[BEGIN, 0, 1]]))
    assert found.min() < -1000
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("name", ["numpy", "mlx"])
def test_sums_are_of_float64_whatever_the_backend_has(name):
    if name == "mlx":
        pytest.importorskip("mlx.core", reason="the extra `mlx`")
    with use(name):
        config = architecture("gpt2").Config(toy_language.V + 1, 8, 1, 2, 3, 16)
        model = toy_models.in_float64(Model.initialise("gpt2", config, seed=0))
        assert model.params["embedding"].dtype == np.float64
        probabilities = np.exp(toy_models.log_likelihood(model, toy_language.every_text(3)))
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
