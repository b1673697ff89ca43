"""`refllm resume`: a stopped run goes on, and ends with the same weights as if it had never stopped."""

from pathlib import Path
from typing import Annotated

import typer


def resume(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    backend: Annotated[str | None, typer.Option("--backend", help="Another backend than the run began on.")] = None,
) -> None:
    """Go on with a run where it stopped, bit for bit.

    On the backend it began on, the weights come out as if it had never stopped.
    """
    from rich.console import Console

    from refllm.cli.session import after_training, next_steps, show_run, tokenizer_progress, train_watched
    from refllm.training.run import first_or_last_state, reopen

    console = Console(highlight=False)
    with tokenizer_progress(console) as told:
        opened = reopen(run, backend, told)
    best, step = opened.folder, first_or_last_state(opened)[0].step
    show_run(console, opened)
    if step >= opened.training.steps:
        console.print(f"  The run is complete: all {step:,} steps are done.")
    else:
        console.print(f"  Going on after step {step:,}.")
        best = train_watched(console, opened)
    next_steps(console, after_training(opened, best))
