"""How errors compound, why there are any, and what more attempts buy: `refllm lab yield`, `abc` and `passk`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from refllm.cli.lab.common import console_of, json_of, keep, say_where, table_of
from refllm.cli.lab.options import AsJson, Out, Seed

File = Annotated[
    Path,
    typer.Argument(
        help="Outcomes of items: an experiment's .npz, or JSONL whose lines have `right`, or `answers` and `answer`.",
        show_default=False,
    ),
]
Permutations = Annotated[int, typer.Option("--permutations", min=20, help="Shuffles that show what chance alone gives.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("yield")(yield_)
    app.command()(abc)
    app.command()(passk)


def yield_(file: File, permutations: Permutations = 500, seed: Seed = 0, out: Out = None, as_json: AsJson = False) -> None:
    """Compare exact match at every length with p^n, the product over positions, and a law for items that differ."""
    from refllm.lab.reliability import reliability_plots
    from refllm.lab.reliability.outcomes import read_outcomes
    from refllm.lab.reliability.yields import curve, largest, length_at, reliability_needed

    found = read_outcomes(file)
    c = curve(found.right, permutations, seed)
    p = float(found.right.mean())
    rows = [
        {"length": n + 1, "measured": float(c.measured[n]), "p^n": float(c.power[n]), "product": float(c.product[n])}
        | {"items differ": float(c.spread[n]), "low": float(c.low[n]), "high": float(c.high[n])}
        for n in range(len(c.measured))
    ]
    off = {
        name: dict(zip(("value", "low", "high"), largest(c.measured - law, error), strict=True))
        for name, law, error in (("p^n", c.power, c.power_error), ("product", c.product, c.product_error))
    }
    about = {"accuracy": p, "p_value": c.p_value, "half_yield_length": min(length_at(0.5, p), 1e12), "off": off, "rows": rows}
    about["half_yield_accuracy"] = needed = reliability_needed(0.5, len(rows))
    figures = {"curve": lambda: reliability_plots.yield_curves([(f"{len(found.right):,} items", rows)])}
    keep(out, "yield", about, figures, {"curve": rows})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    table_of(rows if len(rows) <= 24 else rows[:: -(-len(rows) // 24)], "share of items without an error so far", console)
    console.print(
        f"{100 * p:.2f} % of steps are right; by p^n, half of the items have no error in {about['half_yield_length']:.4g} steps; "
        f"in all {len(rows)}, if {100 * needed:.4g} % of steps were right."
    )
    said = "cannot be told from" if c.p_value > 0.05 else "differs from"
    console.print(
        f"Exact match in all steps {said} that of steps that fail independently (p = {c.p_value:.3f}; low, high: 95 % band)."
    )
    for name, of in off.items():
        console.print(f"Largest distance from {name}: {of['value']:.4f} (95 %: {of['low']:.4f} … {of['high']:.4f}).")
    say_where(out, console)


def abc(file: File, permutations: Permutations = 300, seed: Seed = 0, out: Out = None, as_json: AsJson = False) -> None:
    """Tell random noise (A), scattered hard steps (B) and missing skills (C) apart."""
    from refllm.lab.reliability import reliability_plots
    from refllm.lab.reliability.battery import battery, concentration
    from refllm.lab.reliability.outcomes import read_outcomes

    found = read_outcomes(file)
    attempts = found.several(16, seed)
    tests = battery(attempts, found.features, permutations, seed)
    crowd = None if found.features is None else concentration((~attempts).sum(axis=0), found.features, permutations, seed)
    about = tests._asdict() | {"causes": tests.causes}
    if crowd is not None:
        about |= {"concentration": crowd.top, "concentration_p": crowd.p_value}
    rows: list[dict[str, Any]] = [
        {"test": "product law", "measured": f"EM {tests.exact_match:.3f}, Π q {tests.product:.3f}", "p": tests.product_p},
        {"test": "errors crowd in items", "measured": f"φ = {tests.dispersion:.2f}", "p": tests.dispersion_p},
        {"test": "errors come back", "measured": f"{100 * tests.persistent_share:.0f} % of their variance", "p": None},
        {"test": "A  random noise", "measured": f"{100 * tests.noise:.0f} % of the errors", "p": None},
        {"test": "B  hard steps", "measured": f"{100 * tests.hard:.0f} % of the errors", "p": None},
        {"test": "C  missing skills", "measured": f"{100 * tests.missing:.0f} % of the errors", "p": None},
    ]
    if crowd is not None:
        said = f"{100 * crowd.top:.0f} % in the worst 1 % of them"
        rows.insert(3, {"test": "errors crowd in features", "measured": said, "p": crowd.p_value})
    keep(out, "abc", about, {"causes": lambda: reliability_plots.causes(tests, crowd)}, {"tests": rows})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    table_of(rows, f"why there are errors in {len(found.right):,} items of {found.right.shape[1]} steps", console)
    console.print(f"The cause: {tests.causes or 'no errors'}.")
    if tests.features:
        named = " ".join(map(str, tests.features[:12])) + (" …" if len(tests.features) > 12 else "")
        console.print(f"Features of the missing skills: {named}")
    if found.features is None:
        console.print("Without features C cannot be told from B.", style="yellow")
    say_where(out, console)


def passk(
    file: File,
    ks: Annotated[list[int] | None, typer.Option("--k", min=1, help="Number of attempts; may be repeated.")] = None,
    training_flops: Annotated[
        float | None, typer.Option("--training-flops", min=0, help="FLOPs of training; adds a column of total FLOPs.")
    ] = None,
    flops_per_attempt: Annotated[
        float | None, typer.Option("--flops-per-attempt", min=0, help="FLOPs of one attempt; adds the same column.")
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option("--questions", min=1, help="Questions asked in all; by default the items of the file.", show_default=False),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Tell how often one of k attempts, their majority, or the best scored is right, and what the attempts cost."""
    from refllm.lab.reliability import reliability_plots
    from refllm.lab.reliability.outcomes import read_outcomes
    from refllm.lab.reliability.passk import rows as reached
    from refllm.lab.reliability.passk import tail, total_flops

    found = read_outcomes(file)
    rows, items = reached(found, ks or (), seed), len(found.right)
    if training_flops is not None or flops_per_attempt is not None:
        cost, asked = (float(training_flops or 0), float(flops_per_attempt or 0), 1), questions or items
        rows = [row | {"total FLOPs": float(total_flops(*cost, row["k"], asked))} for row in rows]
    elif questions is not None:
        raise ValueError("--questions says nothing without --training-flops or --flops-per-attempt; give what an attempt costs.")
    law = tail([row["k"] for row in rows], [row["pass@k"] for row in rows])
    about = {"rows": rows, "tail": law and law._asdict()}
    keep(out, "passk", about, {"attempts": lambda: reliability_plots.attempts(rows, law)}, {"attempts": rows})
    if as_json:
        print(json_of(about))
        return
    console = console_of()
    how = "exact" if found.probability is not None else "estimated"
    table_of(rows, f"{how} pass@k of {items:,} items", console)
    if law is not None and law.power_law:
        console.print(
            f"−ln pass@k ~ k^−{law.exponent:.3f}, a power law to {100 * law.error:.0f} % (rms): some items are very hard."
        )
    elif law is not None:
        console.print("−ln pass@k falls faster than a power law, as it does where all items are equally hard.")
    say_where(out, console)
