"""What attempts buy, and cost."""

import numpy as np
import pytest

from refllm.lab import inference
from refllm.lab.task_models import Recipe, train
from refllm.lab.tasks import addition


@pytest.fixture
def logits():
    """Three items of two steps and three tokens: sure and right, in doubt but leaning to the right, sure and wrong."""
    p = np.array([[[0.998, 0.001, 0.001]] * 2, [[0.6, 0.2, 0.2]] * 2, [[0.001, 0.998, 0.001]] * 2])
    return np.log(p)


def test_answers_are_drawn_with_the_models_probabilities_and_scored(logits):
    right = np.zeros((3, 2), dtype=int)
    found = inference.drawn(logits, right, 4000)
    hits = found.answers == found.truth[:, None]
    assert hits.mean(axis=1) == pytest.approx([0.998**2, 0.36, 1e-6], abs=0.02)
    assert found.greedy == pytest.approx(2 / 3)
    assert found.scores[1][hits[1]] == pytest.approx(np.log(0.36))
    assert np.exp(found.scores[1]).max() == pytest.approx(0.36)
    same = found.scores[1][:, None] == found.scores[1][None, :]
    assert np.all(same[found.answers[1][:, None] == found.answers[1][None, :]])  # equal answers have equal scores


class Cost:
    training_flops, flops_per_token = 1e6, 100.0


def test_a_majority_cures_noise_and_nothing_else(logits):
    found = inference.drawn(np.repeat(logits, 40, axis=0), np.zeros((120, 2), dtype=int), 64)
    one, many = inference.rows(found, Cost, 5, (1, 64), questions=10)
    assert one["majority"] == pytest.approx(one["pass"], abs=0.03)
    assert many["majority"] == pytest.approx(2 / 3, abs=0.02)
    assert many["best"] == pytest.approx(2 / 3, abs=0.02)
    assert many["pass"] == pytest.approx(2 / 3, abs=0.02)
    assert (one["total_flops"], many["total_flops"]) == (1e6 + 5000, 1e6 + 64 * 5000)


def test_a_models_attempts_have_its_probabilities():
    task = addition(1)
    trained = train(task, Recipe(8, steps=30, batch=16))
    found = inference.samples(task, trained, 200, 64)
    from refllm.lab.task_models import outcomes

    expected = outcomes(task, trained, 2000).item_probability().mean()
    assert (found.answers == found.truth[:, None]).mean() == pytest.approx(expected, abs=0.02)
