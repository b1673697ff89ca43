"""The options that the commands on measured tables share."""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Argument(
        help="A table of runs (CSV, JSON or JSON Lines) with columns parameters, loss, and tokens or flops.",
        show_default=False,
    ),
]
Law = Annotated[str, typer.Option("--law", help="The law to fit: N for L(N), D for L(D), C for L(C), ND for L(N, D).")]
Unit = Annotated[
    str | None, typer.Option("--unit", help="Unit of the loss, if the file does not give it; nats/token by default.")
]
MinTokens = Annotated[float, typer.Option("--min-tokens", help="Leave out losses after fewer training tokens than this.")]
MinRatio = Annotated[float, typer.Option("--min-ratio", help="Leave out losses with fewer training tokens per parameter.")]
Last = Annotated[bool, typer.Option("--last", help="Use only the last loss of each run.")]
Budgets = Annotated[
    list[float] | None, typer.Option("--budget", help="A compute budget in FLOPs; may be repeated.", show_default=False)
]
Resamples = Annotated[
    int, typer.Option("--resamples", min=0, help="Bootstrap resamples for the 95 % intervals; 0 for no intervals.")
]
Delta = Annotated[float, typer.Option("--delta", help="The residual in ln loss beyond which Huber's loss is linear.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random draws.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write numbers (JSON, CSV) and plots (PNG, SVG) to this folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
