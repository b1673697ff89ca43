"""What spec/lab says of claims and results is what the laboratory has."""

import difflib
import importlib.util
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions, entries, spec_folder
from refllm.lab import claims
from refllm.lab.experiments import EXPERIMENTS, experiment, pairs, sweep
from refllm.lab.materials import effective_data
from refllm.lab.verdict import Claim, Finding, within


def make_claims():
    """The program that writes the claims into their page."""
    spec = importlib.util.spec_from_file_location("make_claims", spec_folder() / "make_claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_claims_of_the_page_are_those_of_the_laboratory():
    program = make_claims()
    page = program.PAGE.read_text(encoding="utf-8")
    names = "spec/lab/claims.md", "refllm.lab.claims.collected()"
    differs = difflib.unified_diff(page.splitlines(), program.renewed(page).splitlines(), *names, lineterm="", n=0)
    told = "\n".join(differs)
    assert not told, f"python spec/make_claims.py writes the page anew; it differs here:\n{told}"


def test_a_claims_rule_tells_the_values_of_its_constants():
    def judge(results):
        """Claim 7. It holds within SETTLED of one."""

    claim = Claim(7, "So *it* is.", "a_b | c", "", ("sweep",), judge)
    judge.__globals__["SETTLED"] = 0.25
    text = make_claims().section(claim)
    assert "It holds within SETTLED (0.25) of one." in text
    assert text.startswith("### 7. So \\*it\\* is.\n")
    assert "a\\_b \\| c" in text


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_definition_of_a_verdict_agrees_with_refllm(a, b, c, d):
    (low, high), (claimed_low, claimed_high) = sorted((a, b)), sorted((c, d))
    expected = definitions()["verdict_on"](low, high, claimed_low, claimed_high)
    assert within(low, low, high, claimed_low, claimed_high) == expected


def unexplained(columns):
    """The columns that results.md does not have."""
    names = [name for cell in entries("lab/results", "Column") for name in cell.split("` `")]
    patterns = [re.sub(r"[A-Z]{4,}", r"\\w+", re.escape(name)) for name in names]
    return {column for column in columns if not any(re.fullmatch(pattern, column) for pattern in patterns)}


def test_every_column_that_an_experiment_shows_is_explained():
    for name in EXPERIMENTS:
        for columns in experiment(name).SUMMARY.values():
            assert not unexplained(columns), name


def test_every_column_of_a_sweep_of_pairs_of_repeated_data_and_of_the_claims_is_explained(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 200, encoding="utf-8")
    settings = sweep.Settings(windows=4, snapshots=1, cooldown=0.5, text=str(tmp_path))
    (row,) = sweep.train(sweep.Task(12, 0, 1e-3, 2, settings))["rows"]
    assert not unexplained(row)
    value, _ = effective_data.summary(np.array([[1.0, 2.0], [1.0, 3.0]]), (1, 4))
    found = pairs.cut(("bytes", pairs.Settings()))
    for columns in (*value, found["sentence"], *found["languages"]):
        assert not unexplained(columns)
    claim = claims.collected()[0]
    judged = claims.Judged(claim, Finding(1.0, 0.5, 2.0, "nats", "holds", "so it is")).row()
    assert not unexplained(judged)
