"""The claims as a page of Markdown with some of the plots: what was found, when, where, and what it took."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from refllm.atomic import write_atomically
from refllm.lab.claims import Judged
from refllm.lab.experiment import Result, circumstances
from refllm.lab.numbers import number

SHOWN = {  # by the file in the laboratory's folder
    "claims/law_in_N": "The loss against the number of parameters, and what is above the floor.",
    "emergence/facts": "Facts known by heart: a smooth loss, a sharp score.",
    "keyboard/keyboard_and_transformer": "Tables of n-grams and transformers on one axis.",
    "epochs/value_of_epochs": "What repeated data are worth.",
}


def save(claims: Sequence[Judged], results: Mapping[str, Result], folder: Path, command: str, path: Path) -> None:
    """Write the page, and the plots that it shows into a folder of its name.

    folder: the laboratory's, with the plots    command: what found it, as it is typed
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = {}
    for name, title in SHOWN.items():
        drawing = folder / f"{name}.svg"
        if drawing.is_file():
            kept = path.with_suffix("") / drawing.name
            kept.parent.mkdir(exist_ok=True)
            write_atomically(kept, drawing.read_bytes())
            shown[f"{kept.parent.name}/{kept.name}"] = title
    write_atomically(path, markdown(claims, results, command, shown).encode())


def markdown(claims: Sequence[Judged], results: Mapping[str, Result], command: str, plots: Mapping[str, str]) -> str:
    """The page. plots: their titles by path"""
    about = circumstances()
    lines = [
        "# The laboratory, measured",
        "",
        f"What `{command}` found on {about['date']}: {about['machine']}; {about['versions']}.",
        "",
        *table(("", "claim", "measured", "95 %", "verdict"), [_row(one) for one in claims]),
        "",
        *(line for path, title in plots.items() for line in (f"![{title}]({path})", "")),
        "## Why",
        "",
    ]
    for one in claims:
        lines += [f"{one.claim.number}. {one.finding.why} Rule: {one.claim.formula}.", ""]
    lines += ["## What it took", "", *table(("experiment", "seconds", "processes", "date"), _taken(results)), ""]
    return "\n".join(lines)


def _row(one: Judged) -> list[str]:
    claim, f = one
    measured = "" if f.value is None else f"{number(f.value)} {f.unit}"
    between = "" if f.low is None or f.high is None else f"{number(f.low)} … {number(f.high)}"
    return [str(claim.number), claim.statement, measured, between, f.verdict]


def _taken(results: Mapping[str, Result]) -> list[list[str]]:
    about = {name: result.get("about", {}) for name, result in results.items()}
    return [[name, *(number(of.get(key)) for key in ("seconds", "workers", "date"))] for name, of in about.items()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table of GitHub's Markdown."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
