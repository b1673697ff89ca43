"""One page of HTML that needs nothing else: the claims, and every plot, number and setting that they rest on.

No script and nothing from elsewhere; it reads on a telephone and in print.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from refllm.lab.claims import Judged
from refllm.lab.experiment import Result, circumstances, draw
from refllm.lab.experiments import EXPERIMENTS, experiment
from refllm.lab.numbers import number
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #cbd2d9; }
.claim { border-left: .4rem solid #9aa5b1; padding: .1rem 0 .1rem .8rem; margin: 1.2rem 0; break-inside: avoid; }
.claim h3 { margin: .2rem 0; } .claim p { margin: .2rem 0; } .formula, .print, footer { color: #52606d; font-size: .9rem; }
.holds { border-color: #2f855a; } .fails { border-color: #c53030; } .undecidable { border-color: #b7791f; }
.verdict { font-weight: 600; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; } figcaption { font-size: .9rem; color: #52606d; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } details.rows { display: none; }
  .wide { overflow: visible; } table { font-size: 7pt; } th, td { white-space: normal; padding: .1rem .25rem; }
  details::details-content { content-visibility: visible; height: auto; } }
""".strip()


class Section(NamedTuple):
    """An experiment on the page."""

    name: str
    summary: str
    settings: Mapping[str, Any]
    result: Result
    columns: Mapping[str, Sequence[str]]  # of the tables that stand open; all else is folded away
    figures: Mapping[str, str]  # SVG by name


def sections(results: Mapping[str, Result], folder: Path) -> list[Section]:
    """The experiments whose results lie in a folder, with their plots, drawn anew where they are missing."""
    found = []
    for name, result in results.items():
        place, module = folder / name, experiment(name)
        if not list(place.glob("*.svg")):
            draw(module, result, place)
        settings = json.loads((place / "settings.json").read_text(encoding="utf-8"))
        found.append(Section(name, EXPERIMENTS[name], settings, result, module.SUMMARY, drawings(place)))
    return found


def drawings(place: Path) -> dict[str, str]:
    """The SVG files of a folder by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(place.glob("*.svg"))}


def page(claims: Sequence[Judged], experiments: Sequence[Section], laws: Mapping[str, str]) -> str:
    """The page as HTML. laws: drawings of the claims' own, by name, which stand before the experiments."""
    counts = Counter(claim.finding.verdict for claim in claims)
    lead = ", ".join(f"{verdict}: {counts[verdict]}" for verdict in (HOLDS, FAILS, UNDECIDABLE) if counts[verdict])
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>What is said about scale, measured</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>",
        f"<h1>What is said about scale, measured</h1>\n<p>{len(claims)} claims: {lead}.</p>",
        *(_claim(claim) for claim in claims),
        *(["<h2>Laws of the sweep</h2>", *_figures(laws, "laws")] if laws else []),
        *map(_section, experiments),
        f"<footer>\n<p>{escape(_circumstances())}</p>\n</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _claim(judged: Judged) -> str:
    claim, f = judged
    measured = ""
    if f.value is not None:
        interval = f" ({number(f.low)} … {number(f.high)})" if f.low is not None and f.high is not None else ""
        measured = f"{number(f.value)}{interval} {f.unit}"
    links = ", ".join(f'<a href="#{name}">{name}</a>' for name in claim.needs)
    lines = [
        f'<section class="claim {f.verdict.split()[0]}">',
        f"<h3>{claim.number}. {escape(claim.statement)}</h3>",
        f'<p class="verdict">{escape(f.verdict)}{": " + escape(measured) if measured else ""}</p>',
        f"<p>{escape(f.why)}</p>",
        f'<p class="formula">{escape(claim.formula)}</p>',
    ]
    if claim.published:
        lines.append(f'<p class="print">Published: {escape(claim.published)}</p>')
    return "\n".join([*lines, f'<p class="print">Measured by {links}.</p>', "</section>"])


def _figures(figures: Mapping[str, str], prefix: str) -> list[str]:
    found = []
    for i, (name, svg) in enumerate(figures.items()):
        title = name.replace("_", " ")
        drawing = inlined(svg, f"{prefix}-{i}", f"{prefix}: {title}")
        found.append(f"<figure>\n{drawing}\n<figcaption>{escape(title)}</figcaption>\n</figure>")
    return found


def _section(section: Section) -> str:
    lines = [f'<section id="{section.name}">', f"<h2>{escape(section.name)}</h2>", f"<p>{escape(section.summary)}</p>"]
    lines += _figures(section.figures, section.name)
    tables = section.result.get("tables", {})
    for name, columns in section.columns.items():
        lines += [f"<h3>{escape(name.replace('_', ' '))}</h3>", _table(tables.get(name, []), columns)]
    numbers = section.result.get("numbers", {})
    if numbers:
        lines.append(_folded("Numbers", _pairs(numbers)))
    for name, rows in tables.items():
        every = list(dict.fromkeys(key for row in rows for key in row))
        lines.append(_folded(f"All of {name.replace('_', ' ')}, {len(rows)} rows", _table(rows, every), "rows"))
    lines.append(_folded("Settings", _pairs(section.settings)))
    if "about" in section.result:
        lines.append(_folded("Measured", _pairs(section.result["about"])))
    return "\n".join([*lines, "</section>"])


def inlined(svg: str, prefix: str, title: str) -> str:
    """An SVG file as an element of a page: its prolog, metadata and style sheet left out, its ids made its own."""
    body = svg[svg.index("<svg") :]
    for tag in ("metadata", "style"):
        body = re.sub(rf"<{tag}\b.*?</{tag}>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()


def _folded(title: str, body: str, kind: str = "few") -> str:
    """Something that opens when it is asked for; on paper what is few stands open and rows are left out."""
    return f'<details class="{kind}">\n<summary>{escape(title)}</summary>\n{body}\n</details>'


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)
    lines = ["<tr>" + "".join(f"<td>{escape(number(row.get(c)))}</td>" for c in columns) + "</tr>" for row in rows]
    body = "\n".join(lines)
    return f'<div class="wide">\n<table>\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = [{"": name.replace("_", " "), "value": value} for name, value in values.items()]
    return _table(rows, ["", "value"])


def _circumstances() -> str:
    about = circumstances()
    return f"Judged on {about['date']} by {about['versions']} on {about['machine']}."
