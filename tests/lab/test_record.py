"""The claims as a page of Markdown."""

import pytest

from refllm.lab import record
from refllm.lab.claims import Judged
from refllm.lab.verdict import FAILS, HOLDS, Claim, Finding


@pytest.fixture
def found():
    about = ("p^n | n", "Somebody 1999", ("sweep",), lambda results: None)
    return [
        Judged(Claim(1, "Larger is better.", *about), Finding(0.12345, 0.1, 0.2, "nats", HOLDS, "It fell.")),
        Judged(Claim(2, "More is more.", *about), Finding(None, None, None, "", FAILS, "It did not.")),
    ]


def cells(line):
    return [cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")]


def test_every_claim_has_a_line_with_its_value_interval_and_verdict_and_says_why(found, monkeypatch):
    monkeypatch.setattr(record, "circumstances", lambda: {"date": "2000-01-02", "machine": "abacus", "versions": "none"})
    results = {"sweep": {"about": {"seconds": 12.5, "workers": 2, "date": "2000-01-01"}}}
    text = record.markdown(found, results, "refllm lab claims", {"laboratory/a.svg": "A plot."})
    lines = text.splitlines()
    assert cells(lines[lines.index("| --- | --- | --- | --- | --- |") + 1]) == [
        "1",
        "Larger is better.",
        "0.1235 nats",
        "0.1 … 0.2",
        "holds",
    ]
    assert cells(lines[lines.index("| --- | --- | --- | --- | --- |") + 2]) == ["2", "More is more.", "", "", "fails"]
    assert "What `refllm lab claims` found on 2000-01-02: abacus; none." in lines
    assert "1. It fell. Rule: p^n | n." in lines
    assert "| sweep | 12.5 | 2 | 2000-01-01 |" in lines
    assert "![A plot.](laboratory/a.svg)" in lines


def test_a_cell_may_hold_a_bar():
    assert cells(record.table(("a | b", "c"), [])[0]) == ["a ¦ b", "c"]


def test_plots_that_are_there_lie_beside_the_page(found, tmp_path):
    (tmp_path / "lab" / "claims").mkdir(parents=True)
    (tmp_path / "lab" / "claims" / "law_in_N.svg").write_text("<svg/>")
    page = tmp_path / "results" / "laboratory.md"
    page.parent.mkdir()
    record.save(found, {}, tmp_path / "lab", "refllm lab claims", page)
    (kept,) = (page.parent / "laboratory").iterdir()
    assert kept.read_text() == "<svg/>"
    assert f"](laboratory/{kept.name})" in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").count("![") == 1
