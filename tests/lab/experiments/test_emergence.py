"""Smooth losses and sharp scores."""

import dataclasses

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import emergence
from refllm.lab.materials.tasks import Outcomes
from refllm.lab.reliability.line_or_step import line_or_step
from refllm.lab.reliability.yields import curve

TINY = emergence.Settings(
    widths=(4, 8), facts=10, facts_batch=4, sums=10, sums_batch=4, digits=2, fact_items=90, items=60, seeds=2
)


def test_both_tasks_are_learned_at_every_size_and_seed_and_outcomes_are_kept(tmp_path):
    result = conduct(emergence, TINY, tmp_path, report=lambda line: None)
    rows = result["tables"]["sizes"]
    sizes = [("addition", 4), ("addition", 8), ("facts", 4), ("facts", 8)]
    assert [(row["task"], row["width"], row["seed"]) for row in rows] == [(*size, seed) for size in sizes for seed in (0, 1)]
    assert len({row["nats_per_answer"] for row in rows}) == 8
    for table, times in (("yields", (3, 8)), ("inference", (4, 4))):
        models = [(row["task"], row["width"], row["seed"]) for row in result["tables"][table]]
        assert models == [(t, d, seed) for t, d in sizes for seed in (0, 1) for _ in range(times[t == "facts"])]
    for row in rows:
        suffix = {0: "", 1: "-seed1"}[row["seed"]]
        kept = np.load(tmp_path / "emergence" / "outcomes" / f"{row['task']}-d{row['width']}{suffix}.npz")
        assert row["accuracy"] == pytest.approx(kept["right"].mean())
        assert row["nats_per_answer"] == pytest.approx(-np.log(kept["probability"]).mean())
        assert row["sampled_exact_match"] == pytest.approx(kept["probability"].prod(axis=1).mean())
    assert {row["length"] for row in result["tables"]["yields"] if row["task"] == "addition"} == {1, 2, 3}
    numbers = result["numbers"]
    assert set(numbers["laws"]) == {f"{task}: {law}" for task in ("facts", "addition") for law in ("p^n", "product")}
    means = result["tables"]["means"]
    assert [(row["task"], row["width"]) for row in means] == sizes
    for i, row in enumerate(means):
        for name in ("exact_match", *emergence.AVERAGED):
            assert row[name] == pytest.approx(np.mean([model[name] for model in rows[2 * i : 2 * i + 2]]))
        assert row.keys() >= set(emergence.SUMMARY["means"])
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
    told = {"tables": result["tables"], "numbers": {"shapes": {"facts: nats_per_answer": {"shape": "a step"}}}}
    drawn = emergence.figures(told)
    assert [axes.get_title() for axes in drawn["facts"].axes] == ["loss: a step over ln N", ""]


@pytest.fixture
def here(monkeypatch):
    """Models are trained in this process, one after another."""
    monkeypatch.setattr(emergence, "each", lambda function, jobs, *_: ((name, function(job)) for name, job in jobs))


def test_the_least_seed_is_the_setting_and_each_model_has_a_name_of_its_own(tmp_path, here):
    result = emergence.run(dataclasses.replace(TINY, widths=(4,), seed=1), tmp_path, 1, lambda line: None)
    assert [row["seed"] for row in result["tables"]["sizes"]] == [1, 2, 1, 2]
    names = {path.stem for path in (tmp_path / "outcomes").iterdir()}
    assert names == {f"{task}-d4-seed{seed}" for task in emergence.TASKS for seed in (1, 2)}


@pytest.mark.parametrize("changed", [{"seeds": 0}, {"widths": (1, 4)}, {"fact_items": 1}, {"items": 1}, {"seed": -1}])
def test_settings_that_make_no_models_or_judge_none_are_refused(changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        dataclasses.replace(TINY, **changed)


def models(losses):
    """Rows of models of facts, given the losses of each seed, and of sums alike."""
    return [
        {"task": task, "parameters": 1000 * 2**i, "seed": seed, "nats_per_answer": loss, "exact_match": float(i > 2)}
        for task in emergence.TASKS
        for seed, values in enumerate(losses)
        for i, loss in enumerate(values)
    ]


def test_shapes_are_told_of_each_task_and_metric():
    rows = models([[2 - 0.4 * i - 0.02 * (i % 2) for i in range(5)]])
    found = emergence.shapes(rows)
    assert [found[f"facts: {metric}"]["shape"] for metric in ("nats_per_answer", "exact_match")] == ["a line", "a step"]
    assert [found[f"facts: {metric}"]["jumps"] for metric in ("nats_per_answer", "exact_match")] == [0, 1]
    assert len(found) == 4
    assert emergence.shapes([row for row in rows if row["parameters"] < 16000]) == {}
    assert emergence.shapes([]) == {}


def test_seeds_that_jump_at_different_sizes_jump_alone_and_not_in_the_mean():
    jumps = [[2.0 + 0.01 * (i % 2) if i < place else 0.01 * (i % 3) for i in range(8)] for place in (2, 4, 6)]
    found = emergence.shapes(models(jumps)[::-1])["facts: nats_per_answer"]
    assert (found["seeds"], found["jumps"]) == (3, 3)
    assert found["shape"] == "a line"
    mean = line_or_step(np.log(1000.0 * 2 ** np.arange(8)), np.mean(jumps, axis=0))
    assert (found["line"], found["step"]) == pytest.approx((mean.line, mean.step))


def test_a_seed_whose_loss_is_neither_a_line_nor_a_step_does_not_jump():
    neither = [2.0, 2.0, 1.75, 1.5, 1.25, 0.0, 0.0, 0.0]
    x = np.log(1000.0 * 2 ** np.arange(8))
    assert line_or_step(x, neither).name == "neither"
    assert emergence.shapes(models([neither]))["facts: nats_per_answer"]["jumps"] == 0


def test_all_models_of_a_task_are_asked_the_same_questions_and_judged_together(tmp_path, here, monkeypatch):
    groups, asked = [], []
    monkeypatch.setattr(emergence.inference, "cure", groups.extend)
    samples = emergence.inference.samples

    def listened(task, *others):  # the model, and how it is asked
        asked.append((task.name, *others[1:]))
        return samples(task, *others)

    monkeypatch.setattr(emergence.inference, "samples", listened)
    emergence.run(dataclasses.replace(TINY, widths=(4,)), tmp_path, 1, lambda line: None)
    assert [len(group) for group in groups] == [2, 2]
    assert len(set(asked)) == 2


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
