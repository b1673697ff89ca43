"""The laboratory's commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from refllm.cli.lab.experiments import show

TINY = ["widths=4,8", "steps=24", "batch=2", "context=16", "tuned=4,8", "tuning_steps=8", "snapshots=3", "windows=8", "seeds=1"]


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["sweep", "--help"]])
def test_help_names_what_there_is(refllm, arguments):
    done = refllm("lab", *arguments)
    assert done.status == 0
    assert "Usage: refllm lab" in done.out


def test_a_sweep_is_conducted_shown_and_fitted(refllm, text, tmp_path):
    changes = [argument for change in (*TINY, f"text={text}") for argument in ("--set", change)]
    done = refllm("lab", "sweep", "--workers", "1", "--out", tmp_path, *changes)
    assert done.status == 0, done
    assert "nats/character" in done.out
    assert "d4-seed0" in done.err
    again = refllm("lab", "sweep", "--workers", "1", "--out", tmp_path, *changes, "--json")
    assert again.err == ""
    assert len(json.loads(again.out)["tables"]["runs"]) == 6
    refllm("lab", "fit", tmp_path / "sweep" / "runs.csv", "--law", "N", "--last").refused("2 runs cannot fit 3 constants")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "--set", "depth=3"], "must be name=value with one of widths"),
        (["sweep", "--set", "steps=many"], "--set steps=many is not a number such as 8192"),
        (["sweep", "--set", "widths=many"], "--set widths=many is not a number such as 12"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(refllm, arguments, says):
    refllm("lab", *arguments).refused(says)


@pytest.fixture
def outcomes(tmp_path):
    """Two missing skills among two hundred, on items of twenty steps."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 40, (300, 20))
    probability = np.where(np.isin(features, [3, 7]), 0.0, 1.0)
    np.savez(tmp_path / "outcomes.npz", right=probability > 0.5, probability=probability, features=features)
    return tmp_path / "outcomes.npz"


def test_yields_causes_and_attempts_are_told(refllm, outcomes, tmp_path):
    done = refllm("lab", "yield", outcomes, "--permutations", "20", "--out", tmp_path / "yield")
    assert done.status == 0
    assert "independently" in done.out
    assert (tmp_path / "yield" / "yield-curve.png").is_file()
    done = refllm("lab", "abc", outcomes, "--permutations", "20")
    assert "The cause: C." in done.out
    assert "missing skills: 3 7" in done.out
    assert json.loads(refllm("lab", "abc", outcomes, "--permutations", "20", "--json").out)["missing"] == 1
    rows = json.loads(refllm("lab", "passk", outcomes, "--json").out)["rows"]
    assert len({round(row["pass@k"], 9) for row in rows}) == 1  # another attempt cures nothing
    assert refllm("lab", "passk", outcomes, "--k", "2").out.strip()


def test_outcomes_that_do_not_suffice_are_refused(refllm, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"right": [1, 0]}\n{"right": [1, 1]}\n')
    refllm("lab", "abc", path).refused("one attempt and no probabilities")
    refllm("lab", "passk", path).refused("one attempt and no probabilities")
    refllm("lab", "yield", tmp_path / "none").refused("is not a file; outcomes are JSONL or a .npz")


def test_claims_are_judged_on_what_is_there_and_what_is_missing_is_run(refllm, text, tmp_path, monkeypatch):
    changes = [argument for change in (*TINY, "widths=4,6,8,12", f"text={text}") for argument in ("--set", change)]
    assert refllm("lab", "sweep", "--workers", "1", "--out", tmp_path, *changes).status == 0
    monkeypatch.setenv("COLUMNS", "80")
    places = ["--html", tmp_path / "page.html", "--csv", tmp_path / "claims.csv"]
    done = refllm("lab", "claims", "--quick", "--only", "1,4", "--workers", "1", "--out", tmp_path, *places)
    assert done.status == 0, done
    assert max(map(len, done.out.splitlines())) <= 80
    assert "Test loss is a power law" in done.out
    assert "2 cannot be decided at this scale" in done.out
    assert "d4-seed0" not in done.err  # nothing was trained again
    assert (tmp_path / "page.html").read_text().count("<svg") == 2
    assert json.loads((tmp_path / "claims" / "claims.json").read_text())["claims"][0]["number"] == 1
    assert (tmp_path / "claims.csv").read_text().count("undecidable at this scale") == 2
    monkeypatch.setattr("refllm.conformance.specification.spec_folder", lambda: tmp_path / "spec")
    about = json.loads(refllm("lab", "claims", "--only", "4", "--out", tmp_path, "--json", "--save").out)
    assert [row["number"] for row in about["claims"]] == [4]
    page = (tmp_path / "spec" / "results" / "laboratory.md").read_text()
    assert "What `refllm lab claims --only 4` found" in page
    assert "| 4 | If a curve bends, it bends smoothly. |" in page
    refllm("lab", "claims", "--only", "one").refused("--only 'one' must be numbers of claims")
    refllm("lab", "claims", "--only", "99").refused("there is no claim 99")


def test_numbers_that_are_several_stand_in_lines_of_their_own(capsys):
    numbers = {"rate": 0.5, "rates": {"12": 0.1, "24": 0.2}, "shapes": {"sums: loss": {"line": 0.01}, "facts": {"line": 1}}}
    show({"tables": {}, "numbers": numbers}, {}, Path("somewhere"), Console(width=80))
    *said, _ = capsys.readouterr().out.splitlines()
    assert said == ["rate: 0.5", "rates: 12 0.1, 24 0.2", "shapes, sums: loss: line 0.01", "shapes, facts: line 1"]
