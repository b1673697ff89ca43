"""What a measurement says: a table for people, JSON for programs, a row of Markdown to keep."""

import datetime
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refllm.bench.duel import Result, ratio, spread

HEADER = "| date | machine | threads | versions | command | side | timed | median | ratio | peak |"
RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"


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


def record(results: Sequence[Result], base: Result | None, command: str, threads: int) -> dict[str, Any]:
    """Everything about a measurement, for JSON."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "threads": threads,
        "versions": versions(results),
        "command": command,
        "rows": rows(results, base),
        "first_step": {r.side.name: r.first for r in results},
    }


def markdown(found: dict[str, Any]) -> list[str]:
    """The record as rows of one Markdown table."""
    together = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    start = f"| {found['date']} | {found['machine']} | {found['threads']} | {together} | `{found['command']}` "
    lines = []
    for row in found["rows"]:
        against = f"{row['ratio']:.2f} × {row['against']}" if "ratio" in row else ""
        median, peak = f"{row['seconds'] * 1e3:.3g} ms", f"{row['peak_bytes'] / 1e6:.0f} MB"
        lines.append(f"{start}| {row['side']} | {row['timed']} | {median} | {against} | {peak} |")
    return lines


def save(found: dict[str, Any], path: Path) -> None:
    """Append the record's rows to a file of such rows, made with a header where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = markdown(found)
    if not path.exists():
        lines = ["# Timings", "", "Rows that `refllm bench … --save` appended.", "", HEADER, RULE, *lines]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
