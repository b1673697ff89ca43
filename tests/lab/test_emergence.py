"""Smooth losses and sharp scores."""

import numpy as np
import pytest

from refllm.lab import emergence
from refllm.lab.experiment import conduct
from refllm.lab.tasks import Outcomes

TINY = emergence.Settings(widths=(4, 8), facts=10, facts_batch=4, sums=10, sums_batch=4, digits=2, items=60)


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
    assert set(result["numbers"]["shapes"]) == {
        f"{t}: {m}" for t in ("facts", "addition") for m in ("nats_per_answer", "exact_match")
    }
    assert {p.name for p in (tmp_path / "emergence").glob("*.png")} == {
        "facts.png",
        "facts_yield.png",
        "addition.png",
        "addition_yield.png",
        "facts_inference.png",
        "addition_inference.png",
    }


@pytest.mark.parametrize(
    ("y", "shape"), [([1.0, 0.8, 0.6, 0.4, 0.2], "smooth"), ([0, 0, 0, 1, 1], "sharp"), ([0.1, 0, 0.1, 0.1, 1.0], "sharp")]
)
def test_a_line_and_a_step_are_told_apart(y, shape):
    assert emergence.smooth_or_sharp([1e3, 2e3, 4e3, 8e3, 16e3], y)["shape"] == shape


def test_what_greedy_choice_cures_is_the_doubt_at_right_answers():
    probability = np.array([[0.9, 0.9], [0.9, 0.1], [0.9, 0.9]])
    found = Outcomes(probability > 0.5, probability, np.zeros((3, 2), dtype=int))
    assert emergence.judged(found)["cured_by_greedy"] == pytest.approx(0.5 / 1.4)
