"""What an experiment is, and how it is conducted: its settings and results in a folder, as JSON, CSV and pictures.

FOLDER/NAME/settings.json    what was asked for
            results.json     every number that was found
            TABLE.csv        the same tables for a spreadsheet, and numbers.csv what stands in none
            FIGURE.png .svg  the plots, where matplotlib is installed
"""

import csv
import dataclasses
import datetime
import io
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from refllm.atomic import write_atomically
from refllm.lab import plots

Result = dict[str, Any]  # {"tables": {name: [row, …]}, "numbers": {name: value}}, fit for JSON; conduct adds "about"
Report = Callable[[str], None]  # shows the user a line


class Experiment(Protocol):
    """A module with these names."""

    NAME: str  # the folder's and the command's
    Settings: type  # a frozen dataclass of numbers, strings and tuples of them; its defaults are the full experiment
    QUICK: Any  # Settings that show the effect in a minute or less
    SUMMARY: dict[str, tuple[str, ...]]  # the tables and their columns that are shown when it is done

    def run(self, settings: Any, folder: Path, workers: int, report: Report) -> Result:
        """Conduct it, going on from unfinished work in the folder."""

    def figures(self, result: Result) -> dict[str, Any]:
        """Its plots, matplotlib Figures by name."""


def conduct(
    experiment: Experiment, settings: Any, folder: Path, workers: int = 1, report: Report = print, again: bool = False
) -> Result:
    """The result of an experiment with these settings: read from the folder if it is there, else found and written there.

    again: conduct it from its first step even where there is a result
    """
    place = folder / experiment.NAME
    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    same = _read(place / "settings.json") == wanted
    if same and not again and (found := _read(place / "results.json")) is not None:
        return found
    if again or not same:
        _clear(place)
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / "settings.json", _json(wanted))
    began = time.perf_counter()
    found = experiment.run(settings, place, workers, report)
    about = circumstances() | {"workers": workers, "seconds": round(time.perf_counter() - began, 1)}
    result = json.loads(_json({**found, "about": about}))  # as it will be read again
    write_atomically(place / "results.json", _json(result))
    for name, rows in result.get("tables", {}).items():
        write_atomically(place / f"{name}.csv", csv_text(rows).encode())
    if numbers := list(flat(result.get("numbers", {}))):
        write_atomically(place / "numbers.csv", csv_text([{"name": name, "value": value} for name, value in numbers]).encode())
    draw(experiment, result, place)
    return result


def circumstances() -> dict[str, str]:
    """The date, the machine, and the versions of refllm, backend and Python."""
    from refllm import __version__
    from refllm.array_api import load
    from refllm.bench.report import machine

    backend = load()
    versions = f"refllm {__version__}, {backend.name} {backend.version}, Python {platform.python_version()}"
    return {"date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions}


def draw(experiment: Experiment, result: Result, place: Path) -> list[Path]:
    """Draw the experiment's plots into a folder, each as PNG and SVG. Returns their paths, none where matplotlib is missing."""
    return save(experiment.figures(result), place) if plots.available() else []


def save(figures: Mapping[str, Any], place: Path) -> list[Path]:
    """Write matplotlib Figures as PNG and SVG into a folder, the same bytes each time. Returns their paths."""
    from matplotlib import rc_context

    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            paths.append(place / f"{name}.{kind}")
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(paths[-1], metadata={"Date": None} if kind == "svg" else None)
    return paths


def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value within mappings and lists, by the names and places that lead to it, with dots between."""
    if not isinstance(values, Mapping | list):
        yield name, values
        return
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        yield from flat(value, f"{name}.{key}" if name else str(key))


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with a column for every key that any of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=_plain, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """A NumPy number or array as Python's."""
    return value.tolist()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _clear(place: Path) -> None:
    """Remove what an experiment with other settings left."""
    for path in sorted(place.rglob("*"), reverse=True) if place.is_dir() else ():
        path.rmdir() if path.is_dir() else path.unlink()
