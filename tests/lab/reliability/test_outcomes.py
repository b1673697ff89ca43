"""Outcomes in files."""

import json

import numpy as np
import pytest

from refllm.lab.reliability.outcomes import read_outcomes


def lines(tmp_path, *rows):
    path = tmp_path / "outcomes.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_one_attempt_with_probabilities_and_features(tmp_path):
    rows = [
        {"right": [True, False], "probability": [0.9, 0.5], "features": [1, 2]},
        {"right": [1, 1], "probability": [1, 0], "features": [3, 4]},
    ]
    found = read_outcomes(lines(tmp_path, *rows))
    assert found.right.tolist() == [[True, False], [True, True]]
    assert found.item_probability().tolist() == [0.45, 0.0]
    assert found.features.tolist() == [[1, 2], [3, 4]]
    assert found.several(4000).mean(axis=0).ravel() == pytest.approx([0.9, 0.5, 1, 0], abs=0.04)


def test_several_attempts(tmp_path):
    found = read_outcomes(lines(tmp_path, {"right": [[1, 0], [1, 1]]}, {"right": [[0, 0], [0, 1]]}))
    assert found.attempts.shape == (2, 2, 2)
    assert found.right.tolist() == [[True, False], [False, False]]
    assert found.item_probability().tolist() == [0.5, 0.0]
    assert found.several(9) is found.attempts


def test_arrays_of_an_experiment(tmp_path):
    np.savez(tmp_path / "a.npz", right=np.array([[True, False]]), probability=np.array([[0.6, 0.1]]))
    found = read_outcomes(tmp_path / "a.npz")
    assert found.features is None
    assert found.item_probability() == pytest.approx([0.06])


def test_log_probabilities_are_probabilities(tmp_path):
    rows = [{"right": [1, 1], "log_probability": [0, -1]}, {"right": [0, 1], "log_probability": [-2, float("-inf")]}]
    found = read_outcomes(lines(tmp_path, *rows))
    assert found.probability.ravel() == pytest.approx([1, np.exp(-1), np.exp(-2), 0])
    assert found.item_probability() == pytest.approx([np.exp(-1), 0])


def test_answers_are_attempts_of_one_step(tmp_path):
    rows = [
        {"answers": ["12", 12, 12.0, None], "answer": 12, "scores": [0, -1.5, 2, 3]},
        {"answers": [True, 1, "x", "x"], "answer": "x", "scores": [1, 2, 3, 4]},
    ]
    found = read_outcomes(lines(tmp_path, *rows))
    assert found.hits().tolist() == [[False, True, True, False], [False, False, True, True]]
    assert found.attempts.tolist() == [[[False], [False]], [[True], [False]], [[True], [True]], [[False], [True]]]
    assert found.right.tolist() == [[False], [False]]
    assert found.item_probability().tolist() == [0.5, 0.5]
    assert found.scores.tolist() == [[0, -1.5, 2, 3], [1, 2, 3, 4]]
    same = found.answers[:, :, None] == found.answers[:, None, :]
    assert same[0].sum() == 1 + 4 + 1  # "12" is text; 12 and 12.0 are a number; null
    assert same[1].sum() == 1 + 1 + 4  # true is no number


def test_answers_may_stand_beside_steps(tmp_path):
    row = {"right": [1, 0, 1], "answers": ["a", "b"], "answer": "b"}
    found = read_outcomes(lines(tmp_path, row))
    assert found.right.tolist() == [[True, False, True]]
    assert found.hits().tolist() == [[False, True]]
    assert found.item_probability().tolist() == [0.5]


def test_several_attempts_may_be_scored(tmp_path):
    found = read_outcomes(lines(tmp_path, {"right": [[1, 0], [1, 1], [0, 0]], "scores": [1, 2, 3]}))
    assert found.hits().tolist() == [[False, True, False]]
    assert found.scores.tolist() == [[1, 2, 3]]


def test_answers_of_arrays_are_those_of_lines(tmp_path):
    np.savez(tmp_path / "a.npz", answers=np.array([["a", "b"], ["b", "b"]]), answer=np.array(["b", "a"]))
    assert read_outcomes(tmp_path / "a.npz").hits().tolist() == [[False, True], [False, False]]


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path):
    path = lines(tmp_path, "\ufeff" + json.dumps({"right": [True]}), "", json.dumps({"right": [False]}) + "\r", " ")
    assert read_outcomes(path).right.tolist() == [[True], [False]]


STEPS, VOTES = {"right": [1, 0]}, {"answers": [1, 2], "answer": 1}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no outcomes: each line is an object"),
        (["[1, 2]"], "has no outcomes: each line is an object"),
        (["3"], "has no outcomes: each line is an object"),
        ([{"wrong": [1]}], "has no outcomes: each item needs `right`"),
        (["{"], "line 1 of .* is not JSON .*; outcomes are JSONL or a .npz"),
        ([STEPS, "right,wrong"], "line 2 of .* is not JSON"),
        ([STEPS, {"right": [1]}], "`right` is of different lengths"),
        ([{"right": [0.5, 0.1]}], "`right` holds values other than true and false"),
        ([{"right": ["true", "false"]}], "`right` holds values other than true and false"),
        ([{"right": [1, 2]}], "`right` holds values other than true and false"),
        ([{"right": [1, None]}], "`right` holds values other than true and false"),
        ([{"right": True}, {"right": False}], r"`right` has shape \(2,\) in all"),
        ([{"right": []}], r"`right` has shape \(1, 0\) in all"),
        ([STEPS | {"features": [1]}], r"features has shape \(1, 1\) in all; it needs \(1, 2\)"),
        ([STEPS | {"features": [1.5, 2.0]}], "features must be whole numbers"),
        ([STEPS | {"features": ["carry", "none"]}], "features must be whole numbers"),
        ([STEPS | {"probability": [1.5, 0]}], "a probability is not within"),
        ([STEPS | {"probability": [-0.1, 0]}], "a probability is not within"),
        ([STEPS | {"probability": [float("nan"), 0]}], "probability must be numbers"),
        ([STEPS | {"probability": ["high", "low"]}], "probability must be numbers"),
        ([STEPS | {"probability": 0.5}], r"probability has shape \(1,\) in all"),
        ([STEPS | {"log_probability": [0.5, -1]}], "a log_probability is above 0"),
        ([STEPS, {"right": [1, 1], "features": [1, 2]}], "line 2 of .* has `features` and line 1 has not"),
        ([STEPS | {"features": [1, 2]}, STEPS], "line 1 of .* has `features` and line 2 has not"),
        ([STEPS | {"answers": [1]}], "has one of `answers`, a list, and `answer`"),
        ([STEPS | {"answer": 1}], "has one of `answers`, a list, and `answer`"),
        ([VOTES, {"answers": [1], "answer": 1}], "`answers` must be lists, with as many answers"),
        ([{"answers": "1 2", "answer": 1}], "`answers` must be lists"),
        ([{"answers": [], "answer": 1}], "`answers` must be lists"),
        ([{"answers": [[1], [2]], "answer": 1}], "an answer is a list or an object"),
        ([VOTES | {"scores": [1]}], r"scores has shape \(1, 1\) in all; it needs \(1, 2\)"),
        ([VOTES | {"scores": [1, None]}], "scores must be numbers, one for each attempt"),
        ([VOTES, VOTES | {"scores": [1, 2]}], "line 2 of .* has `scores`"),
        ([STEPS | {"scores": [1, 2]}], "has scores, but neither several attempts nor `answers`"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        read_outcomes(lines(tmp_path, *rows))


def test_files_that_are_no_outcomes_at_all_are_refused(tmp_path):
    place = tmp_path / "picture.jsonl"
    place.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text; outcomes are"):
        read_outcomes(place)
    for content in (b"", b"PK\x03\x04 and no more", b"text"):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not a .npz of plain arrays"):
            read_outcomes(tmp_path / "broken.npz")
    np.savez(tmp_path / "votes.npz", answers=np.zeros((3, 2), int), answer=np.zeros(2, int))
    with pytest.raises(ValueError, match="answers to 3 items and 2 right ones"):
        read_outcomes(tmp_path / "votes.npz")
    np.savez(tmp_path / "votes.npz", answers=np.zeros((3, 2), int), answer=np.zeros(3, int), right=np.ones((4, 1), bool))
    with pytest.raises(ValueError, match="answers to 3 items and outcomes of 4"):
        read_outcomes(tmp_path / "votes.npz")
    with pytest.raises(FileNotFoundError, match="is not a file; outcomes are"):
        read_outcomes(tmp_path)


def test_one_attempt_alone_cannot_tell_noise(tmp_path):
    with pytest.raises(ValueError, match="one attempt and no probabilities, where either several or these are needed"):
        read_outcomes(lines(tmp_path, {"right": [1, 0]})).several(4)
    with pytest.raises(FileNotFoundError, match="is not a file; outcomes are"):
        read_outcomes(tmp_path / "none")
