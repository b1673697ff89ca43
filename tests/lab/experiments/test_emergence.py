"""Smooth losses and sharp scores."""

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import emergence
from refllm.lab.materials.tasks import Outcomes
from refllm.lab.reliability.yields import curve

TINY = emergence.Settings(widths=(4, 8), facts=10, facts_batch=4, sums=10, sums_batch=4, digits=2, fact_items=90, items=60)


def test_both_tasks_are_learned_at_every_size_and_outcomes_are_kept(tmp_path):
    result = conduct(emergence, TINY, tmp_path, report=lambda line: None)
    rows = result["tables"]["sizes"]
    assert [(row["task"], row["width"]) for row in rows] == [("addition", 4), ("addition", 8), ("facts", 4), ("facts", 8)]
    for row in rows:
        kept = np.load(tmp_path / "emergence" / "outcomes" / f"{row['task']}-d{row['width']}.npz")
        assert row["accuracy"] == pytest.approx(kept["right"].mean())
        assert row["nats_per_answer"] == pytest.approx(-np.log(kept["probability"]).mean())
        assert row["sampled_exact_match"] == pytest.approx(kept["probability"].prod(axis=1).mean())
    assert {row["length"] for row in result["tables"]["yields"] if row["task"] == "addition"} == {1, 2, 3}
    numbers = result["numbers"]
    assert set(numbers["laws"]) == {f"{task}: {law}" for task in ("facts", "addition") for law in ("p^n", "product")}
    facts = [row for row in result["tables"]["yields"] if row["task"] == "facts"]
    assert numbers["laws"]["facts: p^n"]["value"] == max(abs(row["measured"] - row["p^n"]) for row in facts)
    assert numbers["shapes"] == {}  # two sizes have none
    assert {row["items"] for row in rows if row["task"] == "facts"} == {90}
    for row in result["tables"]["inference"]:
        assert row["nats"] == pytest.approx(-np.log(row["pass"]))
    assert {p.name for p in (tmp_path / "emergence").glob("*.png")} == {
        "facts.png",
        "facts_yield.png",
        "addition.png",
        "addition_yield.png",
        "facts_inference.png",
        "addition_inference.png",
        "facts_cost.png",
        "addition_cost.png",
    }


def test_shapes_are_told_of_each_task_and_metric():
    rows = [
        {"task": task, "parameters": n, "nats_per_answer": 2 - 0.4 * i - 0.02 * (i % 2), "exact_match": float(i > 2)}
        for task in ("facts", "addition")
        for i, n in enumerate((1e3, 2e3, 4e3, 8e3, 16e3))
    ]
    found = emergence.shapes(rows)
    assert [found[f"facts: {metric}"]["shape"] for metric in ("nats_per_answer", "exact_match")] == ["a line", "a step"]
    assert len(found) == 4
    assert emergence.shapes(rows[:4]) == {}


def test_how_far_laws_are_off_counts_every_size_and_length():
    def row(task, measured):
        return {"task": task, "measured": measured, "p^n": 0.5, "product": 0.6, "p^n error": 0.01, "product error": 0.0}

    found = emergence.laws([row("facts", 0.5), row("facts", 0.4), row("addition", 0.7)])
    assert found["facts: p^n"]["value"] == pytest.approx(0.1)
    assert found["facts: p^n"]["low"] == pytest.approx(0.1 - 0.022414, abs=1e-6)
    assert found["facts: product"] == pytest.approx({"value": 0.2, "low": 0.2, "high": 0.2})
    assert found["addition: product"]["value"] == pytest.approx(0.1)


def test_what_greedy_choice_cures_is_the_doubt_at_right_answers():
    probability = np.array([[0.9, 0.9], [0.9, 0.1], [0.9, 0.9]])
    found = Outcomes(probability > 0.5, probability, np.zeros((3, 2), dtype=int))
    row = emergence.judged(found, curve(found.right, permutations=5))
    assert row["cured_by_greedy"] == pytest.approx(0.5 / 1.4)
    assert row["error_rate"] == pytest.approx(1.4 / 6)
