"""Laws of loss fitted to a table of runs: `refllm lab fit`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.lab.common import chosen, console_of, json_of, keep, positive, say_where, variables_of
from refllm.cli.lab.options import AsJson, Delta, File, Last, Law, MinRatio, MinTokens, Out, Resamples, Seed, Unit

if TYPE_CHECKING:
    from refllm.lab.fits.fit import Fit
    from refllm.lab.fits.runs import Runs

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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fit)


def fit(
    file: File,
    law: Law = "ND",
    floor: Annotated[
        str, typer.Option("--floor", help="fit: fit the floor E; none: no floor; or a number: its known value.")
    ] = "fit",
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
    """Fit a law of the loss, with intervals, residuals, and warnings about constants that the runs do not determine."""
    from refllm.lab import plots
    from refllm.lab.fits.fit import fit as fitted
    from refllm.lab.fits.fit import mixed

    variables = variables_of(law)
    positive("--delta", [delta])
    runs = chosen(file, unit, min_tokens, min_ratio, last)
    found = fitted(runs, variables, floor_of(floor), delta=delta, resamples=resamples, seed=seed)
    warnings = [*found.warnings, *mixed(runs, variables)]
    about = described(found, runs, law) | {"warnings": warnings}
    figures = {"residuals": lambda: plots.residuals(found, runs)}
    figures["law"] = (lambda: plots.contours(found, runs)) if law == "ND" else lambda: plots.fitted(found, runs, variables[0])
    keep(out, f"fit-{law}", about, figures, {"constants": constants(found), "residuals": residuals(found, runs)})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    console.print(f"[bold]{about['law']}[/]   {about['losses']} losses, in {runs.unit}")
    for row in constants(found):
        between = f"   95 %: {row['low']:.4g} … {row['high']:.4g}" if found.intervals else ""
        console.print(f"  {row['symbol']:6} {row['value']:<10.4g}{between}")
    console.print(f"  residuals: rms {100 * found.rms:.2f} % of the loss, worst {100 * abs(found.residuals).max():.2f} %")
    if law != "ND":
        one, of = found.power_laws()[0], "reducible loss" if about["constants"].get("E") else "loss"
        halved = f"; {one.factor_to_halve():.4g} times as much halves it" if one.exponent > 0 else ""
        console.print(f"  doubling {law} multiplies the {of} by {one.per_doubling():.3f}{halved}")
    for sentence in warnings:
        console.print(f"  {sentence}", style="yellow")
    say_where(out, console)


def floor_of(said: str) -> bool | float:
    """--floor as `refllm.lab.fits.fit.fit` takes it. Raises ValueError for anything but fit, none and a positive number."""
    if said in ("fit", "none"):
        return said == "fit"
    try:
        value = float(said)
    except ValueError:
        raise ValueError(f"--floor {said!r} is neither fit, none nor a loss.") from None
    positive("--floor", [value])
    return value


def described(found: "Fit", runs: "Runs", law: str) -> dict[str, Any]:
    """A fit as JSON has it."""
    return {
        "law": FORMS[law, found.terms.floor or bool(found.floor)],
        "losses": len(runs.loss),
        "unit": runs.unit,
        "constants": found.constants,
        "intervals": found.intervals,
        "rms": found.rms,
        "objective": found.objective,
        "residuals": found.residuals.tolist(),
    }


def constants(found: "Fit") -> list[dict[str, Any]]:
    """The constants and their 95 % intervals as rows."""
    rows = []
    for symbol, value in found.constants.items():
        low, high = found.intervals.get(symbol, (None, None))
        rows.append({"symbol": symbol, "value": value, "low": low, "high": high})
    return rows


def residuals(found: "Fit", runs: "Runs") -> list[dict[str, Any]]:
    """A row for every loss, with the law's prediction and the residual ln measured − ln fitted."""
    expected = found.loss(*(runs.column(name) for name in found.variables))
    columns = (runs.run, runs.parameters, runs.tokens, runs.flops, runs.loss, expected, found.residuals)
    names = ("run", "parameters", "tokens", "flops", "loss", "fitted", "residual")
    return [dict(zip(names, values, strict=True)) for values in zip(*(column.tolist() for column in columns), strict=True)]
