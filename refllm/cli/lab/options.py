"""The options that the commands on measured tables share."""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Argument(
        help="A CSV, JSON or JSON Lines with parameters, tokens or flops, and loss: any runs, or those of a sweep.",
        show_default=False,
    ),
]
Law = Annotated[str, typer.Option("--law", help="N, D or C: L(N), L(D), L(C); ND: L(N, D) with both terms.")]
Unit = Annotated[str | None, typer.Option("--unit", help="Of the loss; nats/token where the file does not say.")]
MinTokens = Annotated[float, typer.Option("--min-tokens", help="Leave out losses after fewer tokens.")]
MinRatio = Annotated[float, typer.Option("--min-ratio", help="Leave out losses with fewer tokens per parameter.")]
Last = Annotated[bool, typer.Option("--last", help="Only the last loss of every run.")]
Budgets = Annotated[list[float] | None, typer.Option("--budget", help="FLOPs; several may be given.", show_default=False)]
Resamples = Annotated[int, typer.Option("--resamples", min=0, help="Bootstrap resamples for the intervals; 0 for none.")]
Delta = Annotated[float, typer.Option("--delta", help="Where Huber's loss turns linear, in ln loss.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides the resamples.")]
Out = Annotated[Path | None, typer.Option("--out", help="A folder for the numbers (JSON, CSV) and plots (PNG, SVG).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
