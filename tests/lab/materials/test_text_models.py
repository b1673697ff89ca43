"""What experiments on one text share."""

import numpy as np
import pytest

from refllm.lab.materials import text_models
from refllm.lab.running.learn import learn
from refllm.models import llama


def test_pieces_are_those_of_the_text_in_another_order():
    text = np.arange(100, dtype=np.uint8)
    pieces = text_models.pieces(text, 8, seed=0)
    assert (pieces == pieces[:, :1] + np.arange(8)).all()
    assert sorted(pieces[:, 0]) == list(range(0, 96, 8)) != pieces[:, 0].tolist()


def test_probabilities_have_the_loss_of_the_model():
    config = text_models.config_of(8, 11, 6)
    params = llama.initialise(config, 0)
    windows = np.random.default_rng(0).integers(0, 11, (2, 5, 6)).astype(np.int32)
    p = text_models.probabilities(params, config, windows[0], rows=2)
    assert p.shape == (5, 6, 11)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)
    loss = -np.log(np.take_along_axis(p, windows[1][..., None], axis=2)).mean()
    assert loss == pytest.approx(text_models.loss_of(params, config, (windows[0], windows[1])), rel=1e-6)  # float32, float64


def test_a_model_learns_by_the_recipe_of_its_width():
    config = text_models.config_of(8, 11, 6)
    rows = np.random.default_rng(0).integers(0, 11, (2, 7)).astype(np.int32)
    found = text_models.learned(config, 2, 6, 3, lambda step: (rows[:, :-1], rows[:, 1:]), [1, 5])
    recipe = text_models.training(8, 5, 2, 6, 3)
    wanted = learn("llama", config, recipe, lambda step: (rows[:, :-1], rows[:, 1:]), [1, 5], gain=0.5)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.step == other.step
        for name, value in other.averaged.items():
            np.testing.assert_array_equal(mine.averaged[name], value)


def test_narrower_models_learn_faster():
    rates = [text_models.training(width, 10, 4, 16, 0).learning_rate for width in (4, 24, 96)]
    assert rates == pytest.approx([1e-2, 4e-3, 4e-3 * 4**-0.71])
