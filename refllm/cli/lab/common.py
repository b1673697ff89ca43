"""What the commands on measured tables share: which losses they use, and how they print and write numbers."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

    from refllm.lab.fits.runs import Runs

VARIABLES = {"N": ("parameters",), "D": ("tokens",), "C": ("flops",), "ND": ("parameters", "tokens")}


def chosen(file: Path, unit: str | None, min_tokens: float = 0.0, min_ratio: float = 0.0, last: bool = False) -> "Runs":
    """The runs of a file that are asked for. Raises ValueError where none is left."""
    from refllm.lab.fits.runs import read_runs

    runs = read_runs(file, unit)
    keep = (runs.tokens >= min_tokens) & (runs.tokens >= min_ratio * runs.parameters)
    if last:
        keep &= [tokens == runs.tokens[runs.run == run].max() for run, tokens in zip(runs.run, runs.tokens, strict=True)]
    if not keep.any():
        raise ValueError(f"none of the {len(keep)} losses in {file} is left; lower --min-tokens or --min-ratio.")
    return runs.chosen(keep)


def variables_of(law: str) -> tuple[str, ...]:
    """The columns that a law is in. Raises ValueError for another name."""
    if law not in VARIABLES:
        raise ValueError(f"--law {law!r} is not a law; choose one of {', '.join(VARIABLES)}.")
    return VARIABLES[law]


def positive(option: str, values: "Sequence[float]") -> None:
    """Raise ValueError for a value that is no positive number."""
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(f"{option} {value:g} must be a positive number.")


def keep(
    out: Path | None,
    name: str,
    about: "Mapping[str, Any]",
    figures: "Mapping[str, Callable[[], Any]]",
    tables: "Mapping[str, Sequence[Mapping[str, Any]]] | None" = None,
) -> None:
    """Write numbers and plots into a folder, if one is named: NAME.json, NAME-TABLE.csv, NAME-FIGURE.png and .svg."""
    if out is None:
        return
    from refllm.atomic import write_atomically
    from refllm.lab import plots
    from refllm.lab.experiment import csv_text, save

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"{name}.json", json_of(about, indent=1).encode())
    for table, rows in (tables or {}).items():
        write_atomically(out / f"{name}-{table}.csv", csv_text(rows).encode())
    if plots.available():
        save({f"{name}-{figure}": draw() for figure, draw in figures.items()}, out)


def json_of(about: Any, indent: int | None = None) -> str:
    """JSON, with null for infinities and NaN."""

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [known(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(known(about), indent=indent)


def table_of(rows: "Sequence[Mapping[str, Any]]", title: str, console: "Console") -> None:
    """Print rows as a table under a title, with a column for every key that any of them has."""
    from rich.table import Table

    from refllm.lab.numbers import number

    console.print(title, style="italic", markup=False)  # not the table's own title, which wraps at its width
    table = Table()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column in ("law", "test") else "right")
    for row in rows:
        table.add_row(*(number(row.get(column)) for column in columns))
    console.print(table)


def short(number: float) -> str:
    """A count to three digits with k, M, B or T: 837M; 1.99T."""
    for unit, of in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= of:
            return f"{number / of:.3g}{unit}" if number < 1e15 else f"{number:.3g}"
    return f"{number:.3g}"


def console_of() -> "Console":
    """Where tables and sentences are printed."""
    from rich.console import Console

    return Console(highlight=False)


def say_where(out: Path | None, console: "Console") -> None:
    """Say where numbers and plots were written, if they were."""
    if out is not None:
        from refllm.lab import plots

        drawn = plots.available()
        what = "Numbers and plots are" if drawn else "Numbers are"
        more = "" if drawn else "; plots need matplotlib: pip install 'refllm[plots]'"
        console.print(f"{what} in {out}{more}.", style="dim", markup=False)
