"""Experiments conducted, kept and found again."""

import csv
import datetime
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from refllm.lab.experiment import conduct, csv_text, flat, save


@dataclass(frozen=True)
class Settings:
    sizes: tuple[int, ...] = (1, 2)


def counting():
    """An experiment that counts how often it was conducted."""
    runs = []

    def run(settings, folder, workers, report):
        runs.append(settings)
        report("one line")
        (folder / "parts").mkdir(exist_ok=True)
        (folder / "parts" / "half done").write_text("")
        table = [{"n": n, "square": np.float64(n * n)} for n in settings.sizes]
        return {"tables": {"squares": table}, "numbers": {"runs": len(runs), "all": np.arange(2)}}

    def figures(result):
        from matplotlib.figure import Figure

        figure = Figure()
        figure.add_subplot().plot([row["square"] for row in result["tables"]["squares"]])
        return {"squares": figure}

    return SimpleNamespace(NAME="counting", Settings=Settings, QUICK=Settings((1,)), run=run, figures=figures)


def silent(line):
    pass


def test_a_result_is_found_again_while_the_settings_are_the_same(tmp_path):
    experiment = counting()
    first = conduct(experiment, Settings(), tmp_path, report=silent)
    assert first["numbers"] == {"runs": 1, "all": [0, 1]}
    assert conduct(experiment, Settings(), tmp_path, report=silent) == first
    assert conduct(experiment, Settings((3,)), tmp_path, report=silent)["numbers"]["runs"] == 2
    assert conduct(experiment, Settings((3,)), tmp_path, report=silent, again=True)["numbers"]["runs"] == 3


def test_half_done_work_is_kept_for_the_same_settings_only(tmp_path):
    experiment, place = counting(), tmp_path / "counting"
    conduct(experiment, Settings(), tmp_path, report=silent)
    (place / "results.json").unlink()
    (place / "parts" / "more").write_text("")
    conduct(experiment, Settings(), tmp_path, report=silent)
    assert (place / "parts" / "more").exists()
    conduct(experiment, Settings((5,)), tmp_path, report=silent)
    assert not (place / "parts" / "more").exists()


def test_tables_are_csv_too_and_figures_drawn(tmp_path):
    conduct(counting(), Settings(), tmp_path, report=silent)
    place = tmp_path / "counting"
    assert list(csv.DictReader((place / "squares.csv").open())) == [{"n": "1", "square": "1.0"}, {"n": "2", "square": "4.0"}]
    assert json.loads((place / "settings.json").read_text()) == {"sizes": [1, 2]}
    assert (place / "squares.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (place / "squares.svg").read_text()


def test_plots_are_the_same_bytes_each_time(tmp_path):
    experiment = counting()
    result = {"tables": {"squares": [{"square": 1}, {"square": 4}]}}
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        save(experiment.figures(result), tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / "once" / f"squares.{kind}").read_bytes() == (tmp_path / "again" / f"squares.{kind}").read_bytes()


def test_numbers_outside_of_tables_are_csv_too(tmp_path):
    experiment = counting()
    conduct(experiment, Settings(), tmp_path, report=silent)
    lines = (tmp_path / "counting" / "numbers.csv").read_text().splitlines()
    assert lines == ["name,value", "runs,1", "all.0,0", "all.1,1"]
    assert list(flat({"a": {"b": [1, {"c": "x"}]}, "d": None})) == [("a.b.0", 1), ("a.b.1.c", "x"), ("d", None)]


def test_a_result_that_is_no_number_is_an_error_not_a_file(tmp_path):
    experiment = counting()
    experiment.run = lambda *_: {"numbers": {"loss": float("nan")}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        conduct(experiment, Settings(), tmp_path, report=silent)
    assert not (tmp_path / "counting" / "results.json").exists()


def test_a_result_says_where_when_and_how_long_it_was_measured(tmp_path):
    experiment = counting()
    about = conduct(experiment, Settings(), tmp_path, workers=3, report=silent)["about"]
    assert about["workers"] == 3
    assert 0 <= about["seconds"] < 60
    assert about["date"] == datetime.date.today().isoformat()
    assert "refllm" in about["versions"]
    assert "core" in about["machine"]


def test_a_table_has_every_rows_columns():
    assert csv_text([{"a": 1}, {"a": 2, "b": "x,y"}]) == 'a,b\n1,\n2,"x,y"\n'
