"""What is said about scale, and what the user's own models say: `refllm lab claims`."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.lab.experiments import AsJson, Out, Quick, Workers

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.lab.claims import Judged

STYLES = {"holds": "green", "fails": "red", "undecidable at this scale": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(claims)


def claims(
    out: Out = Path("runs/lab"),
    quick: Quick = False,
    only: Annotated[str, typer.Option("--only", metavar="1,6,7", help="Numbers of the claims to judge; all by default.")] = "",
    workers: Workers = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write one HTML page with all plots and numbers.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table as CSV to this file too.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Write the table to spec/results/laboratory.md, with plots.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge what is said about scale on models of your own: run the experiments that are missing and use the rest.

    A claim holds, fails, or is undecidable at this scale; its rule is printed beside it.
    """
    from rich.console import Console

    from refllm.atomic import write_atomically
    from refllm.bench.report import cores
    from refllm.cli.lab.watch import watching
    from refllm.lab import claims as lab
    from refllm.lab.experiment import csv_text

    wanted = lab.chosen(numbers(only))
    told = Console(stderr=True, highlight=False)
    names = lab.needed(wanted)
    with watching(told, out):
        results = lab.conducted(names, out, quick, workers or cores(), lambda line: told.print(line, style="dim"))
    found = lab.judged(wanted, results)
    lab.keep(found, results, out / "claims")
    rows = [one.row() for one in found]
    if csv:
        write_atomically(csv, csv_text(rows).encode())
    if html:
        from refllm.lab.page import drawings, page, sections

        write_atomically(html, page(found, sections(results, out), drawings(out / "claims")).encode())
    if save:
        from refllm.conformance.specification import spec_folder
        from refllm.lab import record

        typed = ["refllm lab claims", *(["--quick"] if quick else []), *([f"--only {only}"] if only else [])]
        record.save(found, results, out, " ".join(typed), spec_folder() / "results" / "laboratory.md")
    if as_json:
        print(json.dumps({"claims": rows}))
        return
    show(found, Console(highlight=False))
    places = [f"All results are in {out}"] + [
        f"{what} is {path}" for what, path in (("the page", html), ("the CSV", csv)) if path
    ]
    Console(highlight=False).print("; ".join(places) + ".", style="dim")


def numbers(said: str) -> list[int]:
    """1,6,7 as numbers. Raises ValueError for anything else."""
    try:
        return [int(part) for part in said.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--only {said!r} must be numbers of claims separated by commas, such as 1,6,7.") from None


def show(found: "list[Judged]", console: "Console") -> None:
    """The table, and how many hold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True, expand=console.width <= 100)
    table.add_column("", justify="right")
    table.add_column("claim", ratio=4)
    table.add_column("measured", min_width=16, ratio=1, overflow="fold")
    table.add_column("verdict", width=11)
    for one in found:
        claim, finding = one.claim, one.finding
        said = Text(claim.statement, style="bold")
        said.append(f"\n{claim.formula}", style="not bold dim")
        if claim.published:
            said.append(f"\nPublished: {claim.published}", style="not bold dim")
        said.append(f"\n{finding.why}", style="not bold")
        measured, verdict = Text(quantity(finding)), Text(finding.verdict, style=STYLES[finding.verdict])
        table.add_row(str(claim.number), said, measured, verdict)
    console.print(table)
    counts = Counter(one.finding.verdict for one in found)
    told = [
        f"{n} {words if n > 1 else verdict}"
        for verdict, words in (("holds", "hold"), ("fails", "fail"))
        if (n := counts[verdict])
    ]
    told += [f"{n} cannot be decided at this scale" for n in [counts["undecidable at this scale"]] if n]
    console.print(f"Of {len(found)} {'claim' if len(found) == 1 else 'claims'} {', '.join(told)}.")


def quantity(finding: Any) -> str:
    """The measured value, its interval and unit, a line each."""
    from refllm.lab.numbers import number

    if finding.value is None:
        return ""
    lines = [number(finding.value)]
    if finding.low is not None and finding.high is not None:
        lines.append(f"{number(finding.low)} … {number(finding.high)}")
    return "\n".join([*lines, finding.unit])
