"""The best size at each budget, by a table of runs: `refllm lab isoflop`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from refllm.cli.lab.common import VARIABLES, chosen, console_of, json_of, keep, positive, say_where, short, table_of
from refllm.cli.lab.options import AsJson, Budgets, File, MinRatio, MinTokens, Out, Unit

if TYPE_CHECKING:
    from refllm.lab.fits.isoflop import IsoFlop
    from refllm.lab.fits.laws import LossLaw


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(isoflop)


def isoflop(
    file: File,
    budgets: Budgets = None,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find the best size at each budget by a parabola through losses at equal compute, and say how biased that is.

    Where runs were not trained to equal compute, their losses are interpolated at budgets that at least three sizes reach.
    """
    from refllm.lab.fits import budget_plots
    from refllm.lab.fits.fit import fit as fitted
    from refllm.lab.fits.isoflop import exponent_by, exponents_without_a_size
    from refllm.lab.fits.isoflop import isoflop as minima
    from refllm.lab.fits.laws import HOFFMANN_PARAMETER_EXPONENTS, KAPLAN_BEST

    positive("--budget", budgets or [])
    runs = chosen(file, unit, min_tokens, min_ratio)
    found, law = minima(runs, budgets), fitted(runs, VARIABLES["ND"]).loss_laws()[0]
    rows, by_fit, without = valley_rows(found, law), exponent_by(law, found), exponents_without_a_size(runs, found)
    about: dict[str, Any] = {
        "exponent": found.exponent,
        "exponent_by_fit": by_fit,
        "exponents_without_a_size": without,
        "interpolated": found.interpolated,
    }
    about |= {"left_out": found.without, "valleys": rows, "unit": runs.unit}
    points = [
        {"flops": v.flops} | dict(zip(("parameters", "tokens", "loss"), point, strict=True))
        for v in found.valleys
        for point in zip(*(getattr(v.runs, name).tolist() for name in ("parameters", "tokens", "loss")), strict=True)
    ]
    keep(out, "isoflop", about, {"valleys": lambda: budget_plots.valleys(found, runs.unit)}, {"minima": rows, "losses": points})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    table_of([shown_valley(row) for row in rows], f"the best size at each budget; losses in {runs.unit}", console)
    beside = "" if by_fit is None else f"the fitted L(N, D) gives {by_fit:.3f} at the same budgets; "
    published = f"Hoffmann {HOFFMANN_PARAMETER_EXPONENTS['approach 2']}, Kaplan {KAPLAN_BEST[1]}"
    console.print(f"N* ~ C^{found.exponent:.3f} through the minima within the range of sizes; {beside}{published}.")
    if without:
        console.print(f"With any one size left out, the exponent is {min(without):.3f} to {max(without):.3f}.")
    if found.without:
        console.print(f"Budgets left out, since their minimum is not within the range of sizes: {found.without}.", style="yellow")
    if found.interpolated:
        console.print(
            "Losses are interpolated along the runs; they are too high where a run's learning rate had yet to fall.", style="dim"
        )
    console.print("bias: N* of a parabola through the fitted law's losses, divided by the law's own N*.", style="dim")
    say_where(out, console)


def valley_rows(found: "IsoFlop", law: "LossLaw") -> list[dict[str, Any]]:
    """The minimum of every budget, with the parabola's bias where the law has a minimum too."""
    from refllm.lab.fits.isoflop import parabola_bias

    rows = []
    for v in found.valleys:
        row: dict[str, Any] = {"flops": v.flops, "parameters": v.parameters, "tokens": v.tokens, "loss": v.loss}
        row |= {"sizes": len(set(v.runs.parameters.tolist())), "inside": v.inside, "bias": None}
        with suppress(ValueError):  # the law has no minimum among these sizes
            row["bias"] = parabola_bias(law, v)
        rows.append(row)
    return rows


def shown_valley(row: dict[str, Any]) -> dict[str, Any]:
    """A budget's minimum in short."""
    return {
        "C": f"{row['flops']:.2g}",
        "N*": short(row["parameters"]),
        "D": "" if row["tokens"] is None else short(row["tokens"]),
        "loss": f"{row['loss']:.3f}",
        "sizes": row["sizes"],
        "within sizes": "yes" if row["inside"] else "no",
        "bias": "" if row["bias"] is None else f"×{row['bias']:.3f}",
    }
