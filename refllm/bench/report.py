"""What a measurement says: a table for people, JSON for programs, a section of Markdown to keep."""

import datetime
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refllm.bench.duel import Result, ratio, spread

TITLE = "# Timings\n\nWhat `refllm bench … --save` measured, one section a run."
COLUMNS = ["| side | timed | median | ratio | quartiles | peak |", "| --- | --- | --- | --- | --- | --- |"]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The processor by name, and how many cores may be used."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)):
        name = found[1]
    return f"{name}, {cores()} cores"


def rows(results: Sequence[Result], base: Result | None) -> list[dict[str, Any]]:
    """One row for each side and each thing timed; ratios against the base, if there is one."""
    found = []
    for what in results[0].seconds:
        for result in results:
            row = {"side": result.side.name, "timed": what, "seconds": result.median(what), "peak_bytes": result.peak}
            row |= {"imported_bytes": result.imported, "runs": len(result.seconds[what])}
            if base is not None and result is not base:
                row |= {"ratio": ratio(result, base, what), "ratio_quartiles": list(spread(result, base, what))}
                row["against"] = base.side.name
            found.append(row)
    return found


def versions(results: Sequence[Result]) -> dict[str, Any]:
    """What computed, by version, of all sides together."""
    together: dict[str, Any] = {"python": platform.python_version()}
    for result in results:
        together |= {name: v for name, v in result.versions.items() if name != "threads"}
    return together


def circumstances(versions: dict[str, Any], command: str, threads: int) -> dict[str, Any]:
    """When, where and with what something was measured."""
    date = datetime.date.today().isoformat()
    return {"date": date, "machine": machine(), "threads": threads, "versions": versions, "command": command}


def record(results: Sequence[Result], base: Result | None, command: str, threads: int) -> dict[str, Any]:
    """Everything about a measurement, for JSON."""
    return circumstances(versions(results), command, threads) | {
        "rows": rows(results, base),
        "first_step": {r.side.name: r.first for r in results},
        "figures": {r.side.name: r.figures for r in results if r.figures},
    }


def headed(found: dict[str, Any]) -> list[str]:
    """The lines of Markdown that begin a record's section."""
    together = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    circumstances = f"{found['machine']}; {found['threads']} threads a side; {together}."
    return [f"## {found['date']}, `{found['command']}`", "", circumstances, ""]


def stretches_markdown(found: dict[str, Any]) -> str:
    """The record of a long text, in stretches, as a section of Markdown."""
    lines = [*headed(found), "| tokens written | a token | peak | cache |", "| --- | --- | --- | --- |"]
    for row in found["rows"]:
        peak, cache = f"{row['peak_bytes'] / 1e6:.1f} MB", f"{row['cache_bytes'] / 1e6:.2f} MB"
        lines.append(f"| {row['tokens']:,} | {row['seconds'] * 1e3:.4g} ms | {peak} | {cache} |")
    return "\n".join(lines)


def markdown(found: dict[str, Any]) -> str:
    """The record of a comparison as a section of Markdown."""
    lines = headed(found)
    lines += COLUMNS
    for row in found["rows"]:
        median, peak = f"{row['seconds'] * 1e3:.4g} ms", f"{row['peak_bytes'] / 1e6:.0f} MB"
        against, quartiles = "", ""
        if "ratio" in row:
            against, quartiles = f"{row['ratio']:.2f} × {row['against']}", "{:.2f} – {:.2f}".format(*row["ratio_quartiles"])
        lines.append(f"| {row['side']} | {row['timed']} | {median} | {against} | {quartiles} | {peak} |")
    for name, figures in found.get("figures", {}).items():
        lines += ["", f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {value:.2f}" for what, value in figures.items()) + "."]
    return "\n".join(lines)


def save(section: str, path: Path) -> None:
    """Append a section of Markdown to a file of such sections, made with a title where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = "" if path.exists() else TITLE
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{start}\n\n{section}\n".removeprefix("\n"))
