"""What attempts buy, and cost."""

import numpy as np
import pytest

from refllm.lab.experiments import inference
from refllm.lab.materials.task_models import Recipe, train
from refllm.lab.materials.tasks import addition


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
    assert found.greedy.tolist() == [True, True, False]
    assert not inference.drawn(logits, np.array([[0, 1]] * 3), 4).greedy.any()  # one step of two is not enough
    assert found.scores[1][hits[1]] == pytest.approx(np.log(0.36))
    assert np.exp(found.scores[1]).max() == pytest.approx(0.36)
    same = found.scores[1][:, None] == found.scores[1][None, :]
    assert np.all(same[found.answers[1][:, None] == found.answers[1][None, :]])  # equal answers have equal scores


class Cost:
    training_flops, flops_per_token = 1e6, 100.0


def test_a_majority_cures_noise_and_nothing_else(logits):
    found = inference.drawn(np.repeat(logits, 40, axis=0), np.zeros((120, 2), dtype=int), 64)
    one, many = inference.rows(found, np.array([0.9, 0.4]), Cost, 5, (1, 64), questions=10)
    assert one["majority"] == pytest.approx((0.996 + 0.36) / 3, abs=0.05)
    assert many["majority"] == pytest.approx(2 / 3, abs=0.02)
    assert many["best"] == pytest.approx(2 / 3, abs=0.02)
    assert one["greedy"] == pytest.approx(2 / 3)
    assert (one["total_flops"], many["total_flops"]) == (1e6 + 5000, 1e6 + 64 * 5000)


def test_pass_at_k_and_its_loss_are_exact(logits):
    found = inference.drawn(logits, np.zeros((3, 2), dtype=int), 4)
    one, two = inference.rows(found, np.array([0.5, 0.0]), Cost, 5, (1, 2))
    assert (one["pass"], two["pass"]) == pytest.approx((0.25, 0.375))
    assert two["nats"] == pytest.approx(-np.log(0.375))
    (never,) = inference.rows(found, np.zeros(2), Cost, 5, (1,))
    assert never["nats"] is None


def test_noise_costs_what_greedy_answers_gain_and_a_majority_wins_it_back(logits):
    found = inference.drawn(np.repeat(logits, 50, axis=0), np.zeros((150, 2), dtype=int), 64)
    noise = inference.noise(found)
    cost, won = (np.reshape(noise[name], (3, 50)).mean(axis=1) for name in ("cost", "won"))
    assert cost == pytest.approx([1 - 0.998**2, 0.64, 0], abs=0.03)
    assert won == pytest.approx(cost, abs=0.03)
    single = inference.drawn(np.repeat(logits, 20, axis=0), np.zeros((60, 2), dtype=int), 1)
    noise = inference.noise(single)
    assert noise["cost"] == (single.greedy - single.hits[:, 0].astype(float)).tolist()
    assert 5 < sum(noise["cost"]) < 20
    assert noise["won"] == [0] * 60  # of one attempt the majority is itself


def test_the_cured_share_is_a_ratio_of_sums_with_the_interval_of_questions():
    """Of 400 questions whose cost is 1 half of the time and of which 3 in 4 are won back: a standard error of √(3/16/200)."""
    rng = np.random.default_rng(0)
    cost = (rng.random(400) < 0.5).astype(float)
    won = cost * (rng.random(400) < 0.75)
    found = inference.cure([[{"cost": cost, "won": won}]])
    assert found.share == pytest.approx(won.sum() / cost.sum())
    assert found.low < 0.75 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(3 / 16 / 200), rel=0.15)


def test_models_that_were_asked_the_same_are_resampled_together():
    """One wins what the other loses: the sum of both does not vary, nor does the share, unless they are drawn apart."""
    gain = np.random.default_rng(1).random(200)
    pair = [{"cost": np.ones(200), "won": gain}, {"cost": np.ones(200), "won": 1 - gain}]
    together = inference.cure([pair])
    apart = inference.cure([[pair[0]], [pair[1]]])
    assert (together.low, together.high) == pytest.approx((0.5, 0.5))
    assert apart.share == pytest.approx(0.5)
    assert apart.high - apart.low > 0.02


@pytest.mark.parametrize("cost", [[0.0] * 5, [1.0, -1.0, 0.5, -0.5, 0.1]])
def test_where_noise_costs_nothing_no_share_of_it_is_told(cost):
    assert inference.cure([[{"cost": cost, "won": [0.1] * 5}]]) is None


def test_a_models_attempts_have_its_probabilities():
    task = addition(1)
    trained = train(task, Recipe(8, steps=30, batch=16))
    found = inference.samples(task, trained, 200, 64)
    from refllm.lab.materials.task_models import outcomes

    expected = outcomes(task, trained, 2000).item_probability().mean()
    assert (found.answers == found.truth[:, None]).mean() == pytest.approx(expected, abs=0.02)
