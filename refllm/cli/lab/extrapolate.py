"""Laws judged at runs that they have not seen: `refllm lab extrapolate`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.lab.common import chosen, console_of, json_of, keep, positive, say_where, short, table_of, variables_of
from refllm.cli.lab.options import AsJson, Delta, File, Last, Law, MinRatio, MinTokens, Out, Unit

if TYPE_CHECKING:
    from refllm.lab.fits.extrapolate import Choice

ROWS = 24  # the most that are printed


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(extrapolate)


def extrapolate(
    file: File,
    law: Law = "N",
    by: Annotated[
        str, typer.Option("--by", help="Hold out the largest values of this column: parameters, tokens or flops.")
    ] = "parameters",
    largest: Annotated[int, typer.Option("--largest", min=1, help="How many of these values to hold out.")] = 1,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    last: Last = False,
    delta: Delta = 1e-3,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Fit laws with and without a floor to the smaller runs, and choose the one that better predicts the largest."""
    from refllm.lab.fits import budget_plots
    from refllm.lab.fits.extrapolate import choose

    variables = variables_of(law)
    if by not in ("parameters", "tokens", "flops"):
        raise ValueError(f"--by {by!r} is neither parameters, tokens nor flops.")
    positive("--delta", [delta])
    runs = chosen(file, unit, min_tokens, min_ratio, last)
    found = choose(runs, variables, by=by, largest=largest, delta=delta)
    rows, rms = compared(found), {name: one.rms for name, one in found.laws.items()}
    better = "with a floor" if found.floor else "no floor"
    about = {"rows": rows, "rms": rms, "better": better, "unit": runs.unit}
    figures = {"errors": lambda: budget_plots.extrapolation(found, runs, variables)}
    keep(out, f"extrapolate-{law}", about, figures, {"predictions": rows})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    thinned = rows[:: -(-len(rows) // ROWS)]
    title = f"L({', '.join(law)}) of the smaller runs against those with the largest {by}; losses in {runs.unit}"
    table_of([shown(row) for row in thinned], title, console)
    told = ", ".join(f"{100 * value:.2f} % ({name})" for name, value in rms.items())
    console.print(f"Root mean square of the errors: {told}.")
    if len(rms) == 1:
        console.print("There are too few smaller runs to fit a law with a floor.", style="yellow")
    else:
        console.print(f"The law {'with a floor' if found.floor else 'without a floor'} predicts better.")
    say_where(out, console)


def compared(found: "Choice") -> list[dict[str, Any]]:
    """Every held-out loss beside each law's prediction."""
    rows = []
    for name, one in found.laws.items():
        kept = one.held_out
        columns = (kept.run, kept.parameters, kept.tokens, kept.flops, kept.loss, one.predicted, one.errors)
        names = ("run", "parameters", "tokens", "flops", "measured", "predicted", "error")
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append({"law": name} | dict(zip(names, values, strict=True)))
    return rows


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A prediction in short."""
    return {
        "law": row["law"],
        "N": short(row["parameters"]),
        "D": short(row["tokens"]),
        "measured": row["measured"],
        "predicted": row["predicted"],
        "error": f"{100 * row['error']:+.2f} %",
    }
