"""How compute is best spent, by a law fitted to a table of runs: `refllm lab frontier` and `exponent`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.lab.common import VARIABLES, chosen, console_of, json_of, keep, positive, say_where, short, table_of
from refllm.cli.lab.options import AsJson, Budgets, File, MinRatio, MinTokens, Out, Resamples, Seed, Unit

if TYPE_CHECKING:
    from refllm.lab.fits.frontier import Lifetime, Split
    from refllm.lab.fits.runs import Runs

PUBLISHED_FROM = 1e18  # FLOPs: Hoffmann's smallest runs and those of the fits since


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(frontier)
    app.command()(exponent)


def frontier(
    file: File,
    budgets: Budgets = None,
    inference_tokens: Annotated[
        float,
        typer.Option("--inference-tokens", help="Tokens S that the model will read and write in use."),
    ] = 0.0,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    resamples: Resamples = 500,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Tell how many parameters and tokens a budget is best spent on, with intervals, beside the published laws.

    With --inference-tokens S, also which N and D reach the same loss with the least 6·N·D + 2·N·S operations.
    """
    from refllm.lab.fits import budget_plots
    from refllm.lab.fits import frontier as best
    from refllm.lab.fits.fit import fit as fitted

    positive("--budget", budgets or [])
    if inference_tokens:
        positive("--inference-tokens", [inference_tokens])
    runs = chosen(file, unit, min_tokens, min_ratio)
    found = fitted(runs, VARIABLES["ND"], resamples=resamples, seed=seed)
    asked = budgets or [float((6 * runs.parameters * runs.tokens).max()) * factor for factor in (1, 10, 100)]
    splits = best.frontier(found, asked) + best.published(asked)
    lives = best.lifetimes(found, asked, inference_tokens) if inference_tokens else []
    value, interval = best.parameter_exponent(found)
    about: dict[str, Any] = {
        "splits": [split._asdict() | {"tokens_per_parameter": split.tokens_per_parameter} for split in splits],
        "lifetimes": [life._asdict() | {"saved": life.saved} for life in lives],
        "exponent": value,
        "exponent_interval": interval,
        "unit": runs.unit,
        "warnings": list(found.warnings),
    }
    figures = {"splits": lambda: budget_plots.frontier(found, runs, asked)}
    if lives:
        figures["lifetimes"] = lambda: budget_plots.lifetimes(found, asked, inference_tokens, runs.unit)
    keep(out, "frontier", about, figures, {name: flat(about[name]) for name in ("splits", "lifetimes") if about[name]})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    by_budget = sorted(splits, key=lambda split: split.flops)
    table_of([shown(split) for split in by_budget], f"the best split of each budget C = 6·N·D; losses in {runs.unit}", console)
    if lives:
        rows = [shown_life(life) for life in lives]
        table_of(
            rows, f"the same losses with {short(inference_tokens)} tokens of inference S, for the least 6·N·D + 2·N·S", console
        )
    for line, style in remarks(runs, asked, value, interval):
        console.print(line, style=style)
    for sentence in found.warnings:
        console.print(sentence, style="yellow")
    say_where(out, console)


def remarks(
    runs: "Runs", asked: list[float], exponent: float, interval: tuple[float, float] | None
) -> list[tuple[str, str | None]]:
    """Sentences that explain the table of splits, each with its style on the terminal."""
    from refllm.lab.fits.frontier import apparent_exponent
    from refllm.lab.fits.laws import HOFFMANN_PARAMETER_EXPONENTS, KAPLAN_BEST, LOSS_LAWS

    between = "" if interval is None else f" (95 %: {interval[0]:.3f} … {interval[1]:.3f})"
    theirs = sorted(HOFFMANN_PARAMETER_EXPONENTS.values())
    said: list[tuple[str, str | None]] = [
        (f"N* ~ C^{exponent:.3f}{between}; Hoffmann {theirs[0]:.2f} to {theirs[-1]:.2f}, Kaplan {KAPLAN_BEST[1]}.", None)
    ]
    ratio = runs.flops / (6 * runs.parameters * runs.tokens)
    if ratio.max() > 1.05 or ratio.min() < 0.95:
        said.append((f"C is 6·N·D here; the runs' own FLOPs are {ratio.min():.2f} to {ratio.max():.2f} times that.", "dim"))
    if min(asked) < PUBLISHED_FROM:
        said.append(
            (
                "The published laws come from other texts and vocabularies, and all but Kaplan's from runs of about "
                f"{PUBLISHED_FROM:.0e} FLOPs and more: far below that, compare exponents only.",
                "dim",
            )
        )
    seen = ", ".join(f"{apparent_exponent(law):.2f} ({name})" for name, law in LOSS_LAWS.items())
    return [*said, (f"The exponent without embeddings, at Kaplan's sizes: {seen}.", "dim")]


def exponent(
    file: Annotated[
        Path | None, typer.Argument(help="A table of runs; without it, only published laws are shown.", show_default=False)
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Share of the reducible loss to be left.")] = 0.5,
    unit: Unit = None,
    min_tokens: MinTokens = 0.0,
    min_ratio: MinRatio = 0.0,
    resamples: Resamples = 500,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Tell how many times the compute halves the reducible loss, by the published laws and by your runs."""
    from refllm.lab.fits import budget_plots
    from refllm.lab.fits.fit import fit as fitted
    from refllm.lab.fits.frontier import compute_factor
    from refllm.lab.fits.laws import compute_factors

    if not 0 < share < 1:
        raise ValueError(f"--share {share} must lie between 0 and 1, such as 0.5.")
    rows: list[dict[str, Any]] = [{"law": name, "compute": factor} for name, factor in compute_factors(share).items()]
    warnings: tuple[str, ...] = ()
    if file is not None:
        found = fitted(chosen(file, unit, min_tokens, min_ratio), VARIABLES["ND"], resamples=resamples, seed=seed)
        value, interval = compute_factor(found, share)
        ends = {} if interval is None else dict(zip(("low", "high"), interval, strict=True))
        rows.append({"law": "these runs", "compute": value} | ends)
        warnings = found.warnings
    about = {"share": share, "rows": rows, "warnings": list(warnings)}
    keep(out, "exponent", about, {"factors": lambda: budget_plots.factors(rows, share)}, {"factors": rows})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    table_of(rows, f"how many times the compute leaves {share:g} of the reducible loss", console)
    for sentence in warnings:
        console.print(sentence, style="yellow")
    say_where(out, console)


def shown(split: "Split") -> dict[str, Any]:
    """A split in short; the losses of published laws are for another vocabulary and left out."""
    interval = split.parameters_interval
    return {
        "law": split.law,
        "C": f"{split.flops:.2g}",
        "N": short(split.parameters),
        "95 %": "" if interval is None else "…".join(short(x) for x in interval),
        "D": short(split.tokens),
        "D/N": f"{split.tokens_per_parameter:.3g}",
        "loss": f"{split.loss:.3f}" if split.law == "these runs" else "",
    }


def shown_life(life: "Lifetime") -> dict[str, Any]:
    """A lifetime in short."""
    interval = life.parameters_interval
    return {
        "loss": f"{life.loss:.3f}",
        "N": short(life.parameters),
        "95 %": "" if interval is None else "…".join(short(x) for x in interval),
        "D": short(life.tokens),
        "D/N": f"{life.tokens / life.parameters:.3g}",
        "total FLOPs": f"{life.total:.2g}",
        "saved": f"{100 * life.saved:.1f} %",
    }


def flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with each interval in two columns."""
    found = []
    for row in rows:
        one: dict[str, Any] = {}
        for key, value in row.items():
            if key.endswith("_interval"):
                low, high = (None, None) if value is None else value
                one |= {key.replace("interval", "low"): low, key.replace("interval", "high"): high}
            else:
                one[key] = value
        found.append(one)
    return found
