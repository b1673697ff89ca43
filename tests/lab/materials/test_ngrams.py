"""Many texts under one n-gram model."""

import numpy as np
import pytest

from refllm.lab.materials import ngrams
from refllm.models import ngram

STREAM = np.random.default_rng(0).zipf(1.6, 600) % 7


@pytest.mark.parametrize("order", [1, 2, 4])
def test_distributions_are_those_of_the_model_after_each_text(order):
    model = ngram.train(STREAM, order, 9)
    texts = np.random.default_rng(1).integers(0, 9, (20, 5))
    state = ngrams.start(model, 20)
    np.testing.assert_allclose(ngrams.distributions(model, state)[0], ngram.distribution(model, ()), rtol=1e-12)
    for t in range(5):
        state = ngrams.read(model, state, texts[:, t])
        wanted = [ngram.distribution(model, text[: t + 1]) for text in texts]
        np.testing.assert_allclose(ngrams.distributions(model, state), wanted, rtol=1e-12)


def test_predictions_in_windows_have_the_models_log_probabilities():
    model = ngram.train(STREAM, 4, 7)
    windows = STREAM[:90].reshape(10, 9)
    p = ngrams.predictions(model, windows[:, :-1])
    mine = np.log(np.take_along_axis(p, windows[:, 1:, None], axis=2)[..., 0])
    wanted = [ngram.log_probabilities(model, window[1:], window[:1]) for window in windows]
    np.testing.assert_allclose(mine, wanted, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_model_shortened_is_the_one_trained_at_that_order(order):
    short, wanted = ngrams.shortened(ngram.count(STREAM, 5, 7), order), ngram.train(STREAM, order, 7)
    assert len(short.levels) == len(wanted.levels) == order
    for mine, other in zip(short.levels, wanted.levels, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_entries_are_the_different_ngrams_of_all_orders():
    tokens = STREAM.tolist()
    seen = {tuple(tokens[i : i + n]) for n in (1, 2, 3) for i in range(len(tokens) - n + 1)}
    assert ngrams.entries(ngram.train(STREAM, 3, 7)) == len(seen)


def test_samples_follow_the_model_and_tell_its_surprise():
    model = ngram.train(STREAM, 3, 7)
    drawn = ngrams.sample(model, 40, 50, seed=1)
    assert drawn.tokens.shape == (40, 50)
    logs = [ngram.log_probabilities(model, row) for row in drawn.tokens]
    assert drawn.surprise == pytest.approx(-np.mean(logs), rel=1e-12)
    first, second = ngrams.sample(model, 20000, 2, seed=2).tokens.T
    likeliest = np.bincount(first).argmax()
    for column, context in ((first, ()), (second[first == likeliest], [likeliest])):
        error = 4 * 0.5 / column.size**0.5  # four standard errors
        shares = np.bincount(column, minlength=7) / column.size
        np.testing.assert_allclose(shares, ngram.distribution(model, context), atol=error)


def test_the_same_address_draws_the_same_texts():
    model = ngram.train(STREAM, 2, 7)
    one, same, other = (ngrams.sample(model, 4, 9, 0, step).tokens for step in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
