"""Outcomes in files."""

import json

import numpy as np
import pytest

from refllm.lab.outcomes import read_outcomes


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


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no outcomes"),
        (["[1, 2]"], "has no outcomes"),
        ([{"wrong": [1]}], "has no outcomes: each item needs `right`"),
        (["{"], "line 1 of .* is not JSON"),
        ([{"right": [1, 0]}, {"right": [1]}], "items of different lengths"),
        ([{"right": [0.5, 0.1]}], r"`right` has shape \(1, 2\) in all"),
        ([{"right": [1, 0], "features": [1]}], r"features has shape \(1, 1\) in all"),
        ([{"right": [1, 0], "probability": [1.5, 0]}], "a probability is not within"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        read_outcomes(lines(tmp_path, *rows))


def test_one_attempt_alone_cannot_tell_noise(tmp_path):
    with pytest.raises(ValueError, match="one attempt and no probabilities"):
        read_outcomes(lines(tmp_path, {"right": [1, 0]})).several(4)
    with pytest.raises(FileNotFoundError, match="is not a file; outcomes are"):
        read_outcomes(tmp_path / "none")
