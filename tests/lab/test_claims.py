"""The table of claims, and the page that it makes."""

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from refllm.lab import claims
from refllm.lab.claims import Judged, conducted, judged, needed, settings_for
from refllm.lab.experiment import conduct
from refllm.lab.experiments import EXPERIMENTS
from refllm.lab.page import Section, inlined, page
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding


@dataclass(frozen=True)
class Settings:
    sizes: tuple[int, ...] = (1, 2, 3)
    steps: int = 10


@pytest.fixture
def counted(monkeypatch):
    """An experiment named sweep that tells the settings of each time it is conducted."""
    runs = []

    def run(settings, folder, workers, report):
        runs.append(settings)
        return {"tables": {"sizes": [{"n": n} for n in settings.sizes]}, "numbers": {}}

    module = SimpleNamespace(
        NAME="sweep", Settings=Settings, QUICK=Settings((1,)), SUMMARY={"sizes": ("n",)}, run=run, figures=lambda result: {}
    )
    monkeypatch.setattr(claims, "experiment", lambda name: module)
    return module, runs


def silent(line):
    pass


def claim(number, judge, needs=("sweep",)):
    return Claim(number, "Larger <is> better.", "n > 2", "Somebody & al. 1999", needs, judge)


def test_every_claim_has_a_number_a_rule_and_experiments_that_exist():
    found = claims.collected()
    assert [c.number for c in found] == sorted({c.number for c in found})
    assert {1, 2, 3, 4, 6, 7, 8, 9} <= {c.number for c in found}
    for c in found:
        assert c.statement.endswith(".")
        assert c.formula
        assert c.needs
        assert set(c.needs) <= set(EXPERIMENTS)


def test_claims_are_chosen_by_number_and_a_strange_one_is_refused():
    assert [c.number for c in claims.chosen([4, 1])] == [1, 4]
    assert claims.chosen([]) == claims.collected()
    with pytest.raises(ValueError, match="there is no claim 99; choose among 1, 2, 3, 4"):
        claims.chosen([1, 99])


def test_two_claims_with_one_number_are_refused(monkeypatch):
    monkeypatch.setattr(claims, "JUDGES", ("scaling_claims", "scaling_claims"))
    with pytest.raises(ValueError, match="two claims have the number 1"):
        claims.collected()


def test_what_is_there_is_used_and_what_is_missing_is_conducted(counted, tmp_path):
    _, runs = counted
    first = conducted(["sweep"], tmp_path, False, 1, silent)
    again = conducted(["sweep"], tmp_path, True, 1, silent)  # a whole result serves where a quick one would do
    assert first == again
    assert runs == [Settings()]


def test_the_users_own_settings_stay_and_a_quick_result_does_not_serve_for_a_whole_one(counted, tmp_path):
    module, runs = counted
    conduct(module, Settings((7,), 3), tmp_path, report=silent)
    conducted(["sweep"], tmp_path, False, 1, silent)
    assert runs == [Settings((7,), 3)]
    conduct(module, module.QUICK, tmp_path, report=silent)
    conducted(["sweep"], tmp_path, True, 1, silent)
    conducted(["sweep"], tmp_path, False, 1, silent)
    assert runs[1:] == [module.QUICK, Settings()]
    (tmp_path / "sweep" / "settings.json").write_text(json.dumps({"an": "earlier version's"}))
    assert settings_for(module, tmp_path, True) == module.QUICK


def test_experiments_are_conducted_once_in_their_order():
    wanted = [claim(1, None, ("emergence", "sweep")), claim(2, None, ("sweep",))]
    assert needed(wanted) == ["sweep", "emergence"]


def test_a_claim_that_cannot_be_judged_is_undecidable_and_says_why():
    def refuses(results):
        raise ValueError("two sizes are too few.")

    found = judged(
        [claim(1, refuses), claim(2, lambda results: Finding(3.0, 2.5, 3.5, "n", HOLDS, results["sweep"]))], {"sweep": "so"}
    )
    assert [one.finding.verdict for one in found] == [UNDECIDABLE, HOLDS]
    assert found[0].finding.why == "two sizes are too few."
    assert found[1].row() == {
        "number": 2,
        "claim": "Larger <is> better.",
        "formula": "n > 2",
        "published": "Somebody & al. 1999",
        "value": 3.0,
        "low": 2.5,
        "high": 3.5,
        "unit": "n",
        "verdict": HOLDS,
        "why": "so",
        "experiments": "sweep",
    }


class Reader(HTMLParser):
    """Elements that are open, ids, outside references and text of a page."""

    VOID = {"meta", "br", "hr", "img", "link", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.said, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.references.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


@pytest.fixture
def drawn(tmp_path):
    """The SVG of a plot as matplotlib writes it."""
    from refllm.lab import plots

    figure, axes = plots.new_figure("n", "loss")
    axes.plot([1, 2, 3], [3, 2, 1], marker="o")
    figure.savefig(tmp_path / "figure.svg")
    return (tmp_path / "figure.svg").read_text()


def test_the_page_is_whole_and_holds_every_figure_number_and_setting(drawn):
    result = {
        "tables": {"sizes": [{"n": 1234567, "loss": 0.123456, "note": "a<b"}], "more": [{"x": 1}]},
        "numbers": {"exponent": {"N": 0.5}},
        "about": {"seconds": 12.5, "machine": "a machine"},
    }
    section = Section(
        "sweep", "Many sizes.", {"steps": 10, "widths": [1, 2]}, result, {"sizes": ("n", "loss")}, {"one": drawn, "two": drawn}
    )
    found = [
        Judged(claim(1, None), Finding(0.98765, 0.5, 1.5, "% & more", HOLDS, "because 1 < 2")),
        Judged(claim(2, None), Finding(None, None, None, "", UNDECIDABLE, "too few")),
        Judged(claim(3, None), Finding(1.0, None, None, "x", FAILS, "no")),
    ]
    written = page(found, [section], {"law_in_N": drawn})
    reader = Reader()
    reader.feed(written)
    reader.close()
    assert reader.open == []
    assert reader.tags.count("svg") == reader.tags.count("figure") == 3
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert len(set(reader.ids)) == len(reader.ids)
    for reference in reader.references:
        assert reference.startswith("#")
        assert reference[1:] in reader.ids
    said = "".join(reader.said)
    for words in ("1,234,567", "0.1235", "a<b", "because 1 < 2", "0.9877 (0.5 … 1.5) % & more", "Somebody & al. 1999", "12.5"):
        assert words in said
    for words in (
        "steps",
        "1 2",
        "a machine",
        "N 0.5",
        HOLDS,
        FAILS,
        UNDECIDABLE,
        "holds: 1, fails: 1, undecidable at this scale: 1",
        "law in N",
    ):
        assert words in said
    assert written.count("<tr>") >= 1 + 1 + 2 + 2
    assert "http://www.w3.org" in written  # names of the SVG's vocabulary
    assert "purl.org" not in written


def test_a_drawings_references_are_its_own(drawn):
    one, other = (Reader(), Reader())
    one.feed(inlined(drawn, "a", "A & B"))
    other.feed(inlined(drawn, "b", "B"))
    assert one.ids
    assert not set(one.ids) & set(other.ids)
    body = inlined(drawn, "a", "A & B")
    assert body.startswith('<svg role="img" aria-label="A &amp; B"')
    assert "url(#a-" in body
    assert "url(#p" not in body


def test_long_tables_are_left_out_on_paper_and_what_is_short_stands_open():
    result = {"tables": {"sizes": [{"n": 1}]}, "numbers": {"exponent": 0.5}}
    written = page([], [Section("sweep", "Many sizes.", {"steps": 10}, result, {"sizes": ("n",)}, {})], {})
    hidden = re.findall(r'<details class="rows">\n<summary>(.*?)</summary>', written)
    assert hidden == ["All of sizes, 1 rows"]
    assert len(re.findall('<details class="few">', written)) == 2
    assert "details.rows { display: none; }" in written.split("@media print")[1]
