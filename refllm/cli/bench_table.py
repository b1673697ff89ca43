"""What `refllm bench` prints: who computed, a table of times, and what else there is to say."""

import sys


def show(found: dict, base: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from refllm.cli import figures

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    console.print(f"{found['machine']}; {found['threads']} threads a side; {versions}; {found['date']}\n", soft_wrap=True)
    compared = base is not None and any("ratio" in row for row in found["rows"])
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "timed", "median", *((f"× {base}", "quartiles") if compared else ()), "peak memory"):
        table.add_column(heading, justify="right" if heading and heading != "timed" else "left", no_wrap=True)
    for row in found["rows"]:
        ratio = (
            (f"[bold]{row['ratio']:.2f}[/]", "{:.2f} – {:.2f}".format(*row["ratio_quartiles"])) if "ratio" in row else ("", "")
        )
        cells = [row["side"], row["timed"], figures.span(row["seconds"]), *(ratio if compared else ())]
        table.add_row(*cells, figures.size(row["peak_bytes"]))
    console.print(table)
    for name, first in found["first_step"].items():
        said = ", ".join(f"{what} {said_of(value)}" for what, value in first.items() if what != "tokens")
        if "tokens" in first:
            said = f"{len(first['tokens'])} tokens, the first {' '.join(map(str, first['tokens'][:8]))}"
        console.print(f"[dim]{name} first: {said}[/]", soft_wrap=True)
    for name, figures_of in found["figures"].items():
        said = ", ".join(f"{what.replace('_', ' ')} {value:.2f}" for what, value in figures_of.items())
        console.print(f"[dim]{name}: {said}[/]", soft_wrap=True)


def said_of(value: float | str) -> str:
    """A loss with six digits; a digest as it is."""
    return value if isinstance(value, str) else f"{value:.6f}"
