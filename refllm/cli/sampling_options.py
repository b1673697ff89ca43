"""How a command that writes chooses tokens: the same options for all of them."""

from typing import Annotated

import typer

Temperature = Annotated[float, typer.Option("--temperature", help="0: always the most likely token.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Draw among so many tokens only.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Draw among the fewest that reach this probability.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides the draws.")]
BackendName = Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")]
