"""Rare facts."""

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import rare
from refllm.lab.materials import task_models
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = rare.Settings(widths=(4, 8), steps=10, batch=4, items=200)


def test_all_facts_are_asked_alike_though_they_came_by_zipfs_law(tmp_path):
    result = conduct(rare, TINY, tmp_path, report=lambda line: None)
    sizes, rows = result["tables"]["sizes"], result["tables"]["recall"]
    assert [size["width"] for size in sizes] == [4, 8]
    assert [row["parameters"] for row in rows] == sorted(row["parameters"] for row in rows)
    for size in sizes:
        mine = [row for row in rows if row["width"] == size["width"]]
        assert sum(row["asked"] for row in mine) == 200 * 8
        assert sum(row["asked"] * row["recall"] for row in mine) == pytest.approx(1600 * size["recall_of_all"])
        assert [row["seen"] for row in mine] == sorted(row["seen"] for row in mine)
        assert mine[0]["asked"] > mine[-1]["asked"]  # most facts are rare
    assert (tmp_path / "rare" / "recall.png").is_file()
    assert rare.judge_rare({"rare": result}).value == sizes[-1]["rarest_quarter"]


def test_common_facts_are_known_first():
    found = rare.learned(rare.Job(16, rare.Settings(steps=120, batch=32, items=1200)))
    rows = found["rows"]
    assert rows[-1]["recall"] > 0.8
    assert rows[0]["recall"] < 0.3
    assert found["size"]["recall_in_text"] > found["size"]["recall_of_all"] + 0.1


def test_the_rarest_quarter_is_the_last_of_the_facts(monkeypatch):
    recipes = []

    def train(task, recipe):
        recipes.append(recipe)
        return task_models.train(task, recipe)

    def outcomes(task, trained, items):
        found = task_models.outcomes(task, trained, items)
        return found._replace(right=found.features >= 1728)  # of 2,304

    monkeypatch.setattr(rare, "train", train)
    monkeypatch.setattr(rare, "outcomes", outcomes)
    settings = rare.Settings(steps=1, batch=2, items=200, seed=3)
    size = rare.learned(rare.Job(8, settings))["size"]
    assert size["rarest_quarter"] == 1
    assert size["recall_of_all"] == pytest.approx(0.25, abs=0.05)
    assert size["rarest_seen"] == pytest.approx(rare.times_seen(settings, 2304)[1728:].mean())
    assert recipes == [task_models.Recipe(8, steps=1, batch=2, seed=3)]


def test_times_seen_follow_the_law():
    seen = rare.times_seen(rare.Settings(zipf=1.0, steps=10, batch=3), 100)
    assert seen.sum() == pytest.approx(240)
    assert seen[0] / seen[9] == pytest.approx(10)


def test_classes_double():
    seen = np.array([1.0, 1.5, 2.0, 3.9, 4.0])
    rows = rare.by_frequency(np.array([True, False, True, True, False]), seen, 1)
    assert [(row["asked"], row["recall"]) for row in rows] == [(2, 0.5), (2, 1.0), (1, 0.0)]
    assert rows[0]["seen"] == pytest.approx(1.5**0.5)


def test_the_last_class_takes_what_is_asked_too_seldom():
    seen = np.repeat([1.0, 2.0, 4.0, 8.0], [51, 300, 5, 1])
    rows = rare.by_frequency(np.ones(357, dtype=bool), seen, 50 + 1)
    assert [row["asked"] for row in rows] == [51, 306]


def test_classes_stay_where_none_is_asked_often():
    assert [row["asked"] for row in rare.by_frequency(np.ones(3, dtype=bool), np.array([1.0, 2.0, 4.0]), 30)] == [1, 1, 1]


def test_half_known_is_where_recall_crosses_the_middle():
    rows = [{"seen": 1.0, "recall": 1 / 16}, {"seen": 4.0, "recall": 1 / 16}, {"seen": 16.0, "recall": 1.0}]
    assert rare.half_known(rows) == pytest.approx(8.0)
    assert rare.half_known([*rows, {"seen": 64.0, "recall": 1.0}]) == pytest.approx(8.0)
    assert rare.half_known(rows[:2]) is None
    early = [{"seen": 0.5, "recall": 1 / 16}, {"seen": 0.7, "recall": 1.0}]  # some rare fact that is known by chance
    assert rare.half_known(early + rows) == pytest.approx(8.0)


def result(shares, reach=0.02):
    sizes = [
        {"parameters": 1000 * 2**i, "rarest_quarter": p, "rarest_low": p - reach, "rarest_high": p + reach, "rarest_seen": 9.0}
        | {"recall_in_text": 0.5}
        for i, p in enumerate(shares)
    ]
    return {"rare": {"tables": {"sizes": sizes}}}


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((0.06, 0.1, 0.2, 0.4, 0.7), HOLDS),
        ((0.06, 0.07, 0.06, 0.07, 0.065), UNDECIDABLE),
        ((0.6, 0.5, 0.4, 0.3, 0.2), FAILS),
        ((0.06, 0.065, 0.07, 0.075, 0.08), UNDECIDABLE),
        ((0.06, 0.9), UNDECIDABLE),
        ((0.08, 0.075, 0.07, 0.065, 0.06), FAILS),
        ((0.6, 0.2), FAILS),
    ],
)
def test_recall_of_what_is_rare_must_rise(shares, verdict):
    assert rare.judge_rare(result(shares)).verdict == verdict


@pytest.mark.parametrize(
    ("setting", "says"),
    [({"widths": (8,)}, "no effect of scale"), ({"widths": (1, 8)}, "at least 2"), ({"zipf": 0.0}, "no fact is rarer")],
)
def test_settings_that_leave_nothing_to_measure_are_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        rare.Settings(**setting)
