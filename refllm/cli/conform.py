"""`refllm conform`: prove a backend, or a program in any language, against the specification."""

import json
from typing import Annotated

import typer
from rich.markup import escape

NEEDS = "refllm conform draws its inputs with Hypothesis, which is not installed: pip install 'refllm[test]'."
STYLES = {True: "green", False: "bold red"}


def conform(
    backend: Annotated[str | None, typer.Option(help="The backend to prove; REFLLM_BACKEND or numpy if not given.")] = None,
    only: Annotated[str | None, typer.Option(help="Only the checks whose name or group contains this.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Inputs to draw for each check.")] = 25,
    halves: Annotated[bool, typer.Option(help="Check float16 and bfloat16 too, where the backend has them.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per row instead of a table.")] = False,
    command: Annotated[str | None, typer.Option(help="Hold this program to the vectors instead: see spec/README.md.")] = None,
    dtype: Annotated[str, typer.Option(help="With --command: the dtype that it computes in.")] = "float32",
) -> None:
    """Prove a backend against the float64 oracle, op by op.

    Every name of the array API, every layer and its gradients, whole models, training and decoding: each result must lie
    within an error bound that the oracle computes for the very input. Exit status 1 if one does not.
    """
    try:
        from refllm.conformance.kit import GROUPS, all_checks
        from refllm.conformance.kit import conform as rows_of
    except ModuleNotFoundError as missing:
        if missing.name != "hypothesis":
            raise
        raise ImportError(NEEDS) from missing
    if command is not None:
        from refllm.conformance.command import hold

        rows, title = hold(command, dtype, only), f"[bold]{escape(command)}[/], against the specification's vectors"
        raise typer.Exit(1 if _report(rows, title, as_json) else 0)
    from refllm.array_api import load

    chosen = [c for c in all_checks() if only is None or only in c.name or only == c.group]
    if not chosen:
        raise ValueError(f"--only {only!r} matches no check; give a part of an op's name, or a group: {', '.join(GROUPS)}.")
    proven = load(backend)
    title = f"[bold]{proven.name}[/] {proven.version} on {proven.device}, against the float64 oracle"
    rows = rows_of(proven, chosen, examples, halves)
    raise typer.Exit(1 if _report(rows, title, as_json) else 0)


def _report(rows, title: str, as_json: bool) -> int:
    """Print the rows as they come; returns how many failed."""
    return _as_json(rows) if as_json else _as_table(rows, title)


def _as_json(rows) -> int:
    """One object per row; returns how many failed."""
    failed = 0
    for row in rows:
        failed += bool(row.failure)
        print(json.dumps(row._asdict() | {"passed": not row.failure, "worst": min(row.worst, 1e300)}), flush=True)
    return failed


def _as_table(rows, title: str) -> int:
    """A line per row as it comes, then a summary and the failures; returns how many failed."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(title, soft_wrap=True)
    console.print(
        "worst: the largest error of any result, as a share of its bound (spec/accuracy.md); above 1 is a failure\n",
        soft_wrap=True,
    )
    header = f"{'op':<36}{'dtype':<10}{'kernels':<9}{'cases':>6}{'worst':>9}"
    group, done, failures = "", 0, []
    for row in rows:
        if row.group != group:
            group = row.group
            console.print(f"[bold]{group.replace('_', ' ')}[/]\n[dim]{header}[/]")
        worst = f"{row.worst:.3f}" if row.worst < 1000 else f"{row.worst:.1e}"
        line = Text(f"{row.name:<36}{row.dtype:<10}{row.kernels:<9}{row.cases:>6}{worst:>9}  ")
        if row.cases:
            line.append("fail" if row.failure else "pass", STYLES[not row.failure])
            done += 1
        else:
            line.append("not supported", "dim")
        console.print(line, soft_wrap=True)
        failures += [row.failure] if row.failure else []
    if not done:
        raise ValueError("nothing was checked: the program supports none of the ops.")
    console.print(f"\n{done - len(failures)} of {done} passed.", style=STYLES[not failures])
    for failure in failures:
        console.print(f"\n{failure}", markup=False, soft_wrap=True)
    return len(failures)
