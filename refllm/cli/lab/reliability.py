"""How errors compound, why there are any, and what more attempts buy: `refllm lab yield`, `abc` and `passk`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from refllm.cli.lab.common import keep, table_of
from refllm.cli.lab.options import AsJson, Out, Seed

File = Annotated[
    Path,
    typer.Argument(help="Outcomes of items: an experiment's .npz, or JSONL with `right` and more a line.", show_default=False),
]
Permutations = Annotated[int, typer.Option("--permutations", min=20, help="Shuffles that say what chance alone does.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("yield")(yield_)
    app.command()(abc)
    app.command()(passk)


def yield_(file: File, permutations: Permutations = 500, seed: Seed = 0, out: Out = None, as_json: AsJson = False) -> None:
    """Compare exact match at every length with p^n, the product by position and a law where items differ."""
    from rich.console import Console

    from refllm.lab import plots
    from refllm.lab.outcomes import read_outcomes
    from refllm.lab.yields import curve, length_at

    found = read_outcomes(file)
    c = curve(found.right, permutations, seed)
    p = float(found.right.mean())
    rows = [
        {"length": n + 1, "measured": float(c.measured[n]), "p^n": float(c.power[n]), "product": float(c.product[n])}
        | {"items differ": float(c.spread[n]), "low": float(c.low[n]), "high": float(c.high[n])}
        for n in range(len(c.measured))
    ]
    about = {"accuracy": p, "p_value": c.p_value, "half_yield_length": min(length_at(0.5, p), 1e12), "rows": rows}
    keep(out, "yield", about, {"curve": lambda: plots.yield_curves([(f"{len(found.right):,} items", rows)])})
    if as_json:
        print(json.dumps(about))
        return
    console = Console(highlight=False)
    table_of(rows if len(rows) <= 24 else rows[:: -(-len(rows) // 24)], "share of items without an error so far", console)
    console.print(
        f"Each step is right in {100 * p:.2f} %; by p^n half of the items would last {about['half_yield_length']:.4g} steps."
    )
    said = "cannot be told from" if c.p_value > 0.05 else "differs from"
    console.print(f"The last {said} steps that fail independently (p = {c.p_value:.3f}; low and high hold 95 % of such).")


def abc(file: File, permutations: Permutations = 300, seed: Seed = 0, as_json: AsJson = False) -> None:
    """Tell random noise (A), scattered hard steps (B) and missing skills (C) apart."""
    from rich.console import Console

    from refllm.lab.battery import battery
    from refllm.lab.outcomes import read_outcomes

    found = read_outcomes(file)
    tests = battery(found.several(16, seed), found.features, permutations, seed)
    about = tests._asdict() | {"causes": tests.causes}
    if as_json:
        print(json.dumps(about))
        return
    rows: list[dict[str, Any]] = [
        {"test": "product law", "measured": f"EM {tests.exact_match:.3f}, Π q {tests.product:.3f}", "p": tests.product_p},
        {"test": "errors crowd in items", "measured": f"φ = {tests.dispersion:.2f}", "p": tests.dispersion_p},
        {"test": "errors come back", "measured": f"{100 * tests.persistent_share:.0f} % of their variance", "p": None},
        {"test": "A  random noise", "measured": f"{100 * tests.noise:.0f} % of the errors", "p": None},
        {"test": "B  hard steps", "measured": f"{100 * tests.hard:.0f} % of the errors", "p": None},
        {"test": "C  missing skills", "measured": f"{100 * tests.missing:.0f} % of the errors", "p": None},
    ]
    console = Console(highlight=False)
    table_of(rows, f"why {len(found.right):,} items of {found.right.shape[1]} steps go wrong", console)
    console.print(f"The cause: {tests.causes or 'no errors'}.")
    if tests.features:
        named = " ".join(map(str, tests.features[:12])) + (" …" if len(tests.features) > 12 else "")
        console.print(f"Features that are missing: {named}")
    if found.features is None:
        console.print("Without features C cannot be told from B.", style="yellow")


def passk(
    file: File,
    ks: Annotated[list[int] | None, typer.Option("--k", min=1, help="Attempts; several may be given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell how often one of k attempts is right, and how often it would be if all items were equally hard."""
    from rich.console import Console

    from refllm.lab.outcomes import read_outcomes
    from refllm.lab.passk import estimated, exact, homogeneous

    found, asked = read_outcomes(file), ks or [1, 4, 16, 64, 256]
    p = found.item_probability()
    if found.probability is None and found.attempts is not None:
        n, right = len(found.attempts), found.attempts.all(axis=2).sum(axis=0)
        asked = ks or [k for k in asked if k <= n]
        values = [estimated(right, n, k) for k in asked]
    else:
        values = exact(p, asked).tolist()
    equal = homogeneous(p, asked).tolist()
    rows = [{"k": k, "pass@k": v, "if all items were alike": e} for k, v, e in zip(asked, values, equal, strict=True)]
    if as_json:
        print(json.dumps({"rows": rows}))
        return
    table_of(rows, f"one of k attempts is right, {len(p):,} items", Console(highlight=False))
