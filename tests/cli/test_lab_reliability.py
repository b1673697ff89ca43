"""Yields, causes of errors and attempts, of one's own outcomes."""

import csv
import json

import numpy as np
import pytest


@pytest.fixture
def votes(tmp_path):
    """Two items, one of which is right three times in four, the other once; the best scored is right in the second only."""
    rows = [
        {"answers": ["7", "7", "8", "7"], "answer": "7", "scores": [1, 2, 3, 0]},
        {"answers": [1, 2, 2, 3], "answer": 1, "scores": [9, 2, 3, 0]},
    ]
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_attempts_are_told_with_votes_scores_and_costs(refllm, votes, tmp_path):
    asked = [
        "passk",
        votes,
        "--training-flops",
        "1e6",
        "--flops-per-attempt",
        "100",
        "--questions",
        "10",
        "--out",
        tmp_path / "kept",
    ]
    about = json.loads(refllm("lab", *asked, "--json").out)
    one, four = about["rows"]
    assert [row["k"] for row in about["rows"]] == [1, 4]
    assert one["pass@k"] == pytest.approx(0.5)
    assert four["pass@k"] == 1
    assert one["-ln pass@k"] == pytest.approx(np.log(2))
    assert four["-ln pass@k"] == 0
    assert (four["majority"], four["best of k"]) == (0.5, 0.5)
    assert four["if alike"] == pytest.approx(1 - 0.5**4)
    assert (one["total FLOPs"], four["total FLOPs"]) == (1e6 + 1000, 1e6 + 4000)
    assert about["tail"] is None
    assert "estimated pass@k of 2 items" in refllm("lab", *asked).out
    assert json.loads((tmp_path / "kept" / "passk.json").read_text()) == about
    rows = list(csv.DictReader((tmp_path / "kept" / "passk-attempts.csv").open()))
    assert [float(row["pass@k"]) for row in rows] == [0.5, 1]
    assert (tmp_path / "kept" / "passk-attempts.svg").is_file()


def test_questions_are_those_of_the_file_where_none_are_said(refllm, votes):
    rows = json.loads(refllm("lab", "passk", votes, "--flops-per-attempt", "100", "--k", "2", "--json").out)["rows"]
    assert [row["total FLOPs"] for row in rows] == [2 * 2 * 100]


def test_exact_probabilities_stand_beside_estimates_and_their_tail_is_fitted(refllm, tmp_path):
    rng = np.random.default_rng(0)
    p = rng.random(4000) ** (1 / 0.4)
    right = rng.random((4000, 4, 1)) < p[:, None, None]
    np.savez(tmp_path / "items.npz", right=right, probability=p[:, None])
    done = refllm("lab", "passk", tmp_path / "items.npz", "--json")
    about = json.loads(done.out)
    assert [row["k"] for row in about["rows"]] == [1, 4, 16, 64, 256]
    assert about["rows"][1]["estimated"] == pytest.approx(about["rows"][1]["pass@k"], abs=0.03)
    assert about["rows"][2]["estimated"] is None
    assert about["tail"]["exponent"] == pytest.approx(0.4, abs=0.1)
    said = refllm("lab", "passk", tmp_path / "items.npz").out
    assert "exact pass@k of 4,000 items" in said
    assert f"k^−{about['tail']['exponent']:.3f}, a power law" in said


def test_items_that_are_alike_show_no_power_law(refllm, tmp_path):
    np.savez(tmp_path / "items.npz", right=np.ones((9, 1), bool), probability=np.full((9, 1), 0.05))
    assert (
        "falls faster than a power law" in refllm("lab", "passk", tmp_path / "items.npz", "--k", "1", "--k", "9", "--k", "60").out
    )


@pytest.fixture
def outcomes(tmp_path):
    """Two missing skills among forty, on items of twenty steps."""
    features = np.random.default_rng(0).integers(0, 40, (300, 20))
    probability = np.where(np.isin(features, [3, 7]), 0.0, 1.0)
    np.savez(tmp_path / "outcomes.npz", right=probability > 0.5, probability=probability, features=features)
    return tmp_path / "outcomes.npz"


def test_causes_are_kept_as_numbers_and_as_a_plot(refllm, outcomes, tmp_path):
    done = refllm("lab", "abc", outcomes, "--permutations", "20", "--out", tmp_path / "kept")
    assert "errors crowd in features" in done.out
    about = json.loads((tmp_path / "kept" / "abc.json").read_text())
    assert about["causes"] == "C"
    assert 0.4 < about["concentration"] < 0.6  # one of the two is the worst hundredth of forty
    assert about["concentration_p"] == pytest.approx(1 / 21)
    assert "C  missing skills,100 % of the errors" in (tmp_path / "kept" / "abc-tests.csv").read_text()
    assert (tmp_path / "kept" / "abc-causes.png").is_file()


def test_yields_are_told_with_how_far_the_laws_are_off(refllm, outcomes, tmp_path):
    done = refllm("lab", "yield", outcomes, "--permutations", "20", "--out", tmp_path / "kept")
    about = json.loads((tmp_path / "kept" / "yield.json").read_text())
    off = about["off"]
    assert about["half_yield_accuracy"] ** 20 == pytest.approx(0.5)
    assert off["product"]["low"] <= off["product"]["value"] < off["product"]["high"] < 0.2
    assert f"Largest distance from product: {off['product']['value']:.4f}" in done.out
    assert len((tmp_path / "kept" / "yield-curve.csv").read_text().splitlines()) == 21


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["passk", "FILE", "--k", "5"], "pass@5 cannot be estimated from 4 samples an item; draw at least 5"),
        (["passk", "FILE", "--k", "0"], "--k"),
        (["passk", "FILE", "--questions", "5"], "--questions says nothing without --training-flops or --flops-per-attempt"),
        (["passk", "FILE", "--training-flops", "-1"], "--training-flops"),
        (["passk", "FILE", "--flops-per-attempt", "many"], "--flops-per-attempt"),
        (["abc", "nothing.jsonl"], "is not a file; outcomes are JSONL or a .npz"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(refllm, votes, arguments, says):
    refllm("lab", *(votes if a == "FILE" else a for a in arguments)).refused(says)


@pytest.mark.parametrize("command", ["yield", "abc", "passk"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no outcomes"),
        ("right,wrong\n1,0\n", "line 1 of"),
        ('[{"right": [true]}]', "has no outcomes: each line is an object"),
        ('{"right": [true, "no"]}', "holds values other than true and false"),
        ('{"right": [true]}\n{"right": [true, false]}', "is of different lengths"),
        ('{"right": true}', "it needs (items, steps) or (items, attempts, steps)"),
        ('{"right": [true], "probability": [2]}\n' * 2, "a probability is not within"),
    ],
)
def test_files_that_are_wrong_are_refused_in_a_sentence(refllm, tmp_path, command, text, says):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    refllm("lab", command, path).refused(says)


def test_one_item_has_no_yield(refllm, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"right": [[true, false], [true, true]]}')
    refllm("lab", "yield", path).refused("they need (items, steps), with two items at least")
    refllm("lab", "abc", path).refused("they need (items, steps), with two items at least")
