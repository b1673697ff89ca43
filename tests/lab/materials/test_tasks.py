"""Tasks with one right answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.materials import tasks

TASKS = [
    tasks.facts(),
    tasks.facts(6, 4, 3, zipf=1.2),
    tasks.addition(3),
    tasks.running_sum(5, True),
    tasks.running_sum(5, False),
    tasks.counting(9),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(st.integers(0, 1000))
def test_only_answers_are_targets_and_each_follows_the_token_that_predicts_it(task, step):
    tokens, targets = task.batch(0, step, 4)
    assert tokens.shape == targets.shape == (4, task.context)
    counted = targets != -100
    assert counted.sum(axis=1).tolist() == [len(task.answers)] * 4
    np.testing.assert_array_equal(counted[0].nonzero()[0] + 1, task.answers)
    later = counted[:, :-1]
    np.testing.assert_array_equal(targets[:, :-1][later], tokens[:, 1:][later])
    assert 0 <= tokens.min() <= tokens.max() < task.vocab_size
    assert targets.max() < task.vocab_size


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_items_are_the_same_for_all_and_apart_from_training(task):
    one, other = task.items(50), task.items(50)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert one.features.shape == (50, len(task.answers))
    assert not np.array_equal(one.tokens[:, :-1], task.batch(0, 0, 50)[0])


def digits(row):
    return int("".join(map(str, row)))


def test_sums_are_right_and_features_tell_how_far_a_carry_has_come():
    items = tasks.addition(6).items(500)
    for row in items.tokens.tolist():
        assert row[6] == tasks.PLUS
        assert row[13] == tasks.EQUALS
        assert digits(row[:6]) + digits(row[7:13]) == digits(row[:13:-1])
    nines = tasks.addition(6).draw(NineNine(), 1)
    assert (nines.features[0] % 8).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (nines.features[0] // 8).tolist() == list(range(7))


class NineNine:
    """Digits of 999999 + 000001, in place of random ones: the carry of the lowest place goes all the way up."""

    def integers(self, low, high, shape):
        return np.array([[[9, 9, 9, 9, 9, 9]], [[0, 0, 0, 0, 0, 1]]])


def test_a_fact_has_one_value_always():
    items = tasks.facts(8, 5, 4).items(400)
    values = items.tokens.reshape(400, 4, 3)
    known = {}
    for (a, b, v), fact in zip(values.reshape(-1, 3).tolist(), items.features.ravel().tolist(), strict=True):
        assert fact == a * 8 + (b - 8)
        assert known.setdefault(fact, v) == v
    assert len(set(known.values())) == 5


def test_rare_facts_come_as_often_as_zipf_says():
    facts = tasks.facts(10, 4, 8, zipf=1.0).items(20_000).features.ravel()
    counts = np.bincount(facts, minlength=100)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)


def test_running_sums_and_counts_are_right():
    for row in tasks.running_sum(6, True).items(20).tokens.tolist():
        assert row[7:] == [sum(row[: i + 1]) % 10 for i in range(6)]
    for row in tasks.running_sum(6, False).items(20).tokens.tolist():
        assert row[7:] == [sum(row[:6]) % 10]
    for row in tasks.counting(9).items(20).tokens.tolist():
        assert row[-1] == 3 + row[:9].count(1)


def test_a_model_is_judged_by_its_logits_at_the_answers():
    task = tasks.addition(2)
    items = task.items(7)

    def knows_all_but_the_last(tokens):
        logits = np.zeros((*tokens.shape, 12))
        answers = items.tokens[: len(tokens), 1:]
        np.put_along_axis(logits, answers[..., None], 3.0, axis=-1)
        logits[:, -1] = 0
        logits[:, -1, 11] = 1.0
        return logits

    found = tasks.judge(task, items, knows_all_but_the_last)
    assert found.right.tolist() == [[True, True, False]] * 7
    sure = np.exp(3) / (np.exp(3) + 11)
    np.testing.assert_allclose(found.probability[:, :2], sure)
    np.testing.assert_allclose(found.probability[:, 2], 1 / (11 + np.e))
    np.testing.assert_allclose(found.item_probability(), sure**2 / (11 + np.e))
    assert found.attempts(4000).mean(axis=0)[0] == pytest.approx(found.probability[0], abs=0.03)
