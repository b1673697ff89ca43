"""`refllm bench steady`: whether a long text costs as much at its end as at its beginning."""

import json
import sys
from typing import Annotated

import typer

from refllm.cli.bench_options import AsJson, Config, Save
from refllm.cli.bench_run import command, keep


def steady(
    config: Config = "stories15m",
    tokens: Annotated[int, typer.Option(min=1, help="To write.")] = 20_000,
    window: Annotated[int, typer.Option(min=1, help="Positions that a query sees, its own included.")] = 256,
    stretch: Annotated[int, typer.Option(min=1, help="Tokens whose times are averaged.")] = 2_000,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Write a long text through a sliding window: time, peak memory and cache of every stretch of it.

    The shapes are those of `refllm bench decode`, with a window in every layer.
    """
    from rich.console import Console

    from refllm.array_api import load
    from refllm.bench import report
    from refllm.bench.shapes import DECODING, lookup
    from refllm.bench.steady import steady as stretches
    from refllm.bench.steady import windowed

    backend, found = load(), []
    model = windowed(lookup(DECODING, config), window, tokens, backend)
    with Console(stderr=True, highlight=False).status("starting") as status:
        for done in stretches(model, tokens, stretch):
            found.append(done._asdict())
            status.update(f"{done.tokens:,} of {tokens:,} tokens")
    record = report.circumstances({backend.name: backend.version}, command(), report.cores()) | {"rows": found}
    if as_json:
        print(json.dumps(record))
    else:
        _print(record)
    if save:
        keep(report.stretches_markdown(record))


def _print(record: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    from refllm.cli import figures

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    console.print(f"{record['machine']}; {versions}; {record['date']}\n", soft_wrap=True)
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("tokens written", "a token", "peak memory", "cache"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in record["rows"]:
        sizes = (figures.size(row[name]) for name in ("peak_bytes", "cache_bytes"))
        table.add_row(f"{row['tokens']:,}", figures.span(row["seconds"]), *sizes)
    console.print(table)
    first, last = record["rows"][0]["seconds"], record["rows"][-1]["seconds"]
    console.print(f"[dim]the last stretch takes {last / first:.2f} × the first's time[/]")
