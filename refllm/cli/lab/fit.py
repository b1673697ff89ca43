"""Laws fitted to a table of runs: `refllm lab fit`, `isoflop`, `frontier`, `extrapolate` and `exponent`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.lab.fit import Fit
    from refllm.lab.frontier import Split
    from refllm.lab.runs import Runs

VARIABLES = {"N": ("parameters",), "D": ("tokens",), "C": ("flops",), "ND": ("parameters", "tokens")}

File = Annotated[
    Path,
    typer.Argument(
        help="A CSV or JSONL with parameters, tokens or flops, and loss: any runs, or those of a sweep.", show_default=False
    ),
]
Law = Annotated[str, typer.Option("--law", help="N, D or C: L(N), L(D), L(C); ND: L(N, D) with both terms.")]
Floor = Annotated[str, typer.Option("--floor", help="fit, none, or a loss that is known to be the floor.")]
Unit = Annotated[str | None, typer.Option("--unit", help="Of the loss; nats/token where the file does not say.")]
MinTokens = Annotated[float, typer.Option("--min-tokens", help="Leave out losses after fewer tokens.")]
MinRatio = Annotated[float, typer.Option("--min-ratio", help="Leave out losses with fewer tokens per parameter.")]
Last = Annotated[bool, typer.Option("--last", help="Only the last loss of every run.")]
Resamples = Annotated[int, typer.Option("--resamples", min=0, help="Bootstrap resamples for the intervals; 0 for none.")]
Delta = Annotated[float, typer.Option("--delta", help="Where Huber's loss turns linear, in ln loss.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides the resamples.")]
Out = Annotated[Path | None, typer.Option("--out", help="A folder for the plots and the numbers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (fit, isoflop, frontier, extrapolate, exponent):
        app.command()(command)


def fit(
    file: File,
    law: Law = "ND",
    floor: Floor = "fit",
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    last: Last = False,
    resamples: Resamples = 1000,
    delta: Delta = 1e-3,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Fit a law of the loss, with intervals, residuals and warnings of what the runs cannot tell."""
    from refllm.lab import plots
    from refllm.lab.fit import fit as fitted

    runs, variables = chosen(file, unit, min_tokens, min_ratio, last), _variables(law)
    found = fitted(runs, variables, _floor(floor), delta=delta, resamples=resamples, seed=seed)
    about = described(found, runs, law)
    figures = {"residuals": lambda: plots.residuals(found, runs)}
    figures["law"] = (lambda: plots.contours(found, runs)) if law == "ND" else lambda: plots.fitted(found, runs, variables[0])
    keep(out, f"fit-{law}", about, figures)
    if as_json:
        print(json.dumps(about))
        return
    console = _console()
    console.print(f"[bold]{FORMS[law, found.terms.floor or bool(found.floor)]}[/]   {about['runs']} losses, in {runs.unit}")
    for name, value in found.constants.items():
        low, high = found.intervals.get(name, (0.0, 0.0))
        between = f"   95 %: {low:.4g} … {high:.4g}" if found.intervals else ""
        console.print(f"  {name:6} {value:<10.4g}{between}")
    console.print(f"  residuals: rms {100 * found.rms:.2f} % of the loss, worst {100 * abs(found.residuals).max():.2f} %")
    for sentence in found.warnings:
        console.print(f"  {sentence}", style="yellow")
    _where(out, console)


FORMS = {
    ("N", True): "L = E + A / N^alpha",
    ("N", False): "L = A / N^alpha",
    ("D", True): "L = E + B / D^beta",
    ("D", False): "L = B / D^beta",
    ("C", True): "L = E + K / C^gamma",
    ("C", False): "L = K / C^gamma",
    ("ND", True): "L = E + A / N^alpha + B / D^beta",
    ("ND", False): "L = A / N^alpha + B / D^beta",
}


def isoflop(file: File, unit: Unit = None, out: Out = None, as_json: AsJson = False) -> None:
    """Find the best size at each budget by a parabola through runs of equal compute, and say how biased that is."""
    from refllm.lab import plots
    from refllm.lab.fit import fit as fitted
    from refllm.lab.isoflop import isoflop as minima
    from refllm.lab.isoflop import parabola_bias
    from refllm.lab.runs import read_runs

    runs = read_runs(file, unit)
    found = minima(runs)
    law = fitted(runs, ("parameters", "tokens")).loss_laws()[0]
    rows = []
    for v in found.valleys:
        row: dict[str, Any] = {
            "flops": v.flops,
            "parameters": v.parameters,
            "tokens": v.flops / (6 * v.parameters),
            "loss": v.loss,
            "inside": v.inside,
        }
        try:
            row["bias"] = parabola_bias(law, v)
        except ValueError:
            row["bias"] = None
        rows.append(row)
    about = {"exponent": found.exponent, "exponent_by_fit": law.parameter_exponent, "valleys": rows, "unit": runs.unit}
    keep(out, "isoflop", about, {"valleys": lambda: plots.valleys(found, runs.unit)})
    if as_json:
        print(json.dumps(about))
        return
    console = _console()
    table_of(rows, "the best size at each budget", console)
    console.print(f"N* ~ C^{found.exponent:.3f}; by a fit of L(N, D): {law.parameter_exponent:.3f}; Hoffmann 0.49, Kaplan 0.73.")
    console.print("bias: what the parabola makes of the fitted law without noise, over the law's own minimum.", style="dim")
    _where(out, console)


def frontier(
    file: File,
    budgets: Annotated[list[float] | None, typer.Option("--budget", help="FLOPs; several may be given.")] = None,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    resamples: Resamples = 500,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Tell how many parameters and tokens a budget is best spent on, with intervals, beside the laws in print."""
    from refllm.lab import frontier as best
    from refllm.lab.fit import fit as fitted
    from refllm.lab.laws import LOSS_LAWS

    runs = chosen(file, unit, min_tokens, min_ratio, False)
    found = fitted(runs, VARIABLES["ND"], resamples=resamples, seed=seed)
    asked = budgets or [float(runs.flops.max()) * factor for factor in (1, 10, 100)]
    splits = best.frontier(found, asked) + best.published(asked)
    rows = [split._asdict() | {"tokens_per_parameter": split.tokens_per_parameter} for split in splits]
    value, interval = best.parameter_exponent(found)
    about = {"splits": rows, "exponent": value, "exponent_interval": interval, "warnings": found.warnings}
    if as_json:
        print(json.dumps(about))
        return
    console = _console()
    table_of([shown(split) for split in splits], "how to spend a budget of C = 6·N·D", console)
    between = "" if interval is None else f" (95 %: {interval[0]:.3f} … {interval[1]:.3f})"
    console.print(f"N* ~ C^{value:.3f}{between}; Hoffmann 0.46 to 0.50, Kaplan 0.73.")
    seen = {name: f"{best.apparent_exponent(law):.2f}" for name, law in LOSS_LAWS.items()}
    console.print(
        f"Who leaves embeddings out at Kaplan's sizes sees {', '.join(f'{v} ({k})' for k, v in seen.items())}.", style="dim"
    )
    for sentence in found.warnings:
        console.print(sentence, style="yellow")


def extrapolate(
    file: File,
    law: Law = "N",
    by: Annotated[
        str, typer.Option("--by", help="parameters, tokens or flops: whose largest values are held out.")
    ] = "parameters",
    largest: Annotated[int, typer.Option("--largest", min=1, help="How many of its values.")] = 1,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    last: Last = False,
    delta: Delta = 1e-3,
    as_json: AsJson = False,
) -> None:
    """Fit to the smaller runs and predict the largest; choose between a law with a floor and one without by that."""
    from refllm.lab.extrapolate import choose

    if by not in ("parameters", "tokens", "flops"):
        raise ValueError(f"--by {by!r} is neither parameters, tokens nor flops.")
    runs = chosen(file, unit, min_tokens, min_ratio, last)
    found = choose(runs, _variables(law), by=by, largest=largest, delta=delta)
    judged = {"without": found.without} | ({"with a floor": found.with_floor} if found.with_floor else {})
    rows: list[dict[str, Any]] = []
    for name, one in judged.items():
        columns = (one.held_out.parameters, one.held_out.tokens, one.held_out.loss, one.predicted, one.errors)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append(
                {"law": name} | dict(zip(("parameters", "tokens", "measured", "predicted", "error"), values, strict=True))
            )
    about: dict[str, Any] = {"rows": rows, "rms": {name: one.rms for name, one in judged.items()}}
    if as_json:
        print(json.dumps(about | {"better": "with a floor" if found.floor else "without"}))
        return
    console = _console()
    table_of(rows, f"L({law}) of the smaller runs at those with the largest {by}", console)
    console.print(f"The law {'with a floor' if found.floor else 'without a floor'} predicts better.")


def exponent(
    file: Annotated[
        Path | None, typer.Argument(help="Runs to fit; without it, only what is in print.", show_default=False)
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Of the reducible loss that is to be left.")] = 0.5,
    unit: Unit = None,
    resamples: Resamples = 500,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Tell how many times the compute halves the reducible loss: quadratic, quartic, by the laws in print, by your runs."""
    from refllm.lab.fit import fit as fitted
    from refllm.lab.laws import compute_factors
    from refllm.lab.runs import read_runs

    if not 0 < share < 1:
        raise ValueError(f"--share {share} must lie between 0 and 1, such as 0.5.")
    rows: list[dict[str, Any]] = [{"law": name, "compute": factor} for name, factor in compute_factors(share).items()]
    if file is not None:
        found = fitted(read_runs(file, unit), VARIABLES["ND"], resamples=resamples, seed=seed)
        factors = [share ** (-1 / law.compute_exponent) for law in found.loss_laws()]
        interval = dict(zip(("low", "high"), found.interval(factors[1:]), strict=True)) if resamples else {}
        rows.append({"law": "these runs", "compute": factors[0]} | interval)
    if as_json:
        print(json.dumps({"share": share, "rows": rows}))
        return
    table_of(rows, f"times the compute for {share:g} of the reducible loss", _console())


def shown(split: "Split") -> dict[str, Any]:
    """A split in short."""
    interval = split.parameters_interval
    return {
        "law": split.law,
        "C": f"{split.flops:.2g}",
        "N": short(split.parameters),
        "95 %": "" if interval is None else " … ".join(short(x) for x in interval),
        "D": short(split.tokens),
        "D/N": f"{split.tokens_per_parameter:.1f}",
        "loss": f"{split.loss:.3f}",
    }


def short(number: float) -> str:
    """837 M; 1.99 T."""
    for unit, of in ((" T", 1e12), (" B", 1e9), (" M", 1e6), (" k", 1e3)):
        if number >= of:
            return f"{number / of:.3g}{unit}" if number < 1e15 else f"{number:.3g}"
    return f"{number:.3g}"


def chosen(file: Path, unit: str | None, min_tokens: float, min_ratio: float, last: bool) -> "Runs":
    """The runs of a file that are asked for. Raises ValueError where none is left."""
    from refllm.lab.runs import read_runs

    runs = read_runs(file, unit)
    keep = (runs.tokens >= min_tokens) & (runs.tokens >= min_ratio * runs.parameters)
    if last:
        keep &= [tokens == runs.tokens[runs.run == run].max() for run, tokens in zip(runs.run, runs.tokens, strict=True)]
    if not keep.any():
        raise ValueError(f"none of the {len(keep)} losses in {file} is left; lower --min-tokens or --min-ratio.")
    return runs.chosen(keep)


def _variables(law: str) -> tuple[str, ...]:
    if law not in VARIABLES:
        raise ValueError(f"--law {law!r} is not a law; choose one of {', '.join(VARIABLES)}.")
    return VARIABLES[law]


def _floor(said: str) -> bool | float:
    if said in ("fit", "none"):
        return said == "fit"
    try:
        return float(said)
    except ValueError:
        raise ValueError(f"--floor {said!r} is neither fit, none nor a loss.") from None


def described(found: "Fit", runs: "Runs", law: str) -> dict[str, Any]:
    """A fit as JSON has it."""
    return {
        "law": FORMS[law, found.terms.floor or bool(found.floor)],
        "runs": len(runs.loss),
        "unit": runs.unit,
        "constants": found.constants,
        "intervals": found.intervals,
        "rms": found.rms,
        "objective": found.objective,
        "residuals": found.residuals.tolist(),
        "warnings": list(found.warnings),
    }


def keep(out: Path | None, name: str, about: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write numbers and plots into a folder, if one is named."""
    if out is None:
        return
    from refllm.atomic import write_atomically

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"{name}.json", json.dumps(about, indent=1).encode())
    try:
        import matplotlib  # noqa: F401 -- without it there are no plots
    except ImportError:
        return
    for figure, draw in figures.items():
        for kind in ("png", "svg"):
            draw().savefig(out / f"{name}-{figure}.{kind}")


def table_of(rows: list[dict[str, Any]], title: str, console: "Console") -> None:
    """Rows as a table."""
    from rich.table import Table

    from refllm.cli.lab.experiments import cell

    table = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "law" else "right")
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console.print(table)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _where(out: Path | None, console: "Console") -> None:
    if out is not None:
        console.print(f"Numbers and plots lie in {out}.", style="dim")
