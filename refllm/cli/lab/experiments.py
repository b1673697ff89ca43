"""A command for every experiment: `refllm lab sweep`, for instance."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.lab.settings import WithSettings, changed
from refllm.lab.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from rich.console import Console

Out = Annotated[Path, typer.Option("--out", help="The laboratory's folder, with a folder for each experiment.")]
Quick = Annotated[bool, typer.Option("--quick", help="Run a small version, about a minute for an experiment.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Number of processes; one for each core by default.")]
Again = Annotated[bool, typer.Option("--again", help="Run it again even if there is a result.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add a command for every experiment."""
    for name, summary in EXPERIMENTS.items():
        app.command(name, help=summary, cls=WithSettings)(_command(name))


def _command(name: str) -> Any:
    def command(
        out: Out = Path("runs/lab"),
        quick: Quick = False,
        workers: Workers = None,
        again: Again = False,
        changes: Set = None,
        as_json: AsJson = False,
    ) -> None:
        from rich.console import Console

        from refllm.bench.report import cores
        from refllm.cli.lab.watch import watching
        from refllm.lab.experiment import conduct
        from refllm.lab.experiments import experiment

        module = experiment(name)
        settings = changed(module.QUICK if quick else module.Settings(), changes or [])
        console = Console(stderr=True, highlight=False)
        with watching(console, out / name):
            result = conduct(
                module, settings, out, workers or cores(), lambda line: console.print(f"  {line}", style="dim"), again
            )
        if as_json:
            print(json.dumps(result))
        else:
            show(result, module.SUMMARY, out / name, Console(highlight=False))

    command.__doc__ = EXPERIMENTS[name]
    return command


def show(result: dict[str, Any], summary: dict[str, tuple[str, ...]], place: Path, console: "Console") -> None:
    """Print the columns and tables that `summary` names, the numbers, and where all results are."""
    from rich.table import Table

    from refllm.lab.numbers import number

    for name, columns in summary.items():
        table = Table(title=name.replace("_", " "), title_justify="left")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for row in result["tables"][name]:
            table.add_row(*(number(row.get(column)) for column in columns))
        console.print(table)
    for name, value in result.get("numbers", {}).items():
        named = {name: value} if not holds_mappings(value) else {f"{name}, {key}": entry for key, entry in value.items()}
        for said, entry in named.items():
            console.print(f"{said.replace('_', ' ')}: {number(entry)}")
    console.print(f"All results are in {place}.", style="dim")


def holds_mappings(value: Any) -> bool:
    """Whether a number is really several, each with a name of its own."""
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())
