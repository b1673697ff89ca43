"""`refllm train`: a model from a text, every setting a flag or a line of a TOML file."""

from pathlib import Path
from typing import Annotated

import typer

from refllm.cli.settings import with_settings


@with_settings
def train(
    data: Annotated[Path | None, typer.Option("--data", help="A UTF-8 text file, or a folder of them.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to make.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A model to go on from: its folder, or a llama2.c .bin.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A run.toml to begin from.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")] = None,
    settings: dict[str, str] | None = None,
) -> None:
    """Train a model on a text file or a folder of them: a new one, or on from one that is trained already.

    The run folder is a Hugging Face folder that also holds all that is needed to go on exactly where it stopped.
    """
    from rich.console import Console

    from refllm.cli.session import after_training, next_steps, show_run, tokenizer_progress, train_watched
    from refllm.cli.settings import configured, free_folder
    from refllm.training.run import begin

    if data is None and config is None:
        raise ValueError("refllm train needs a text: give --data FILE or FOLDER, or a --config whose [data] has a path.")
    chosen = configured(data, settings or {}, config, source)
    console = Console(highlight=False)
    with tokenizer_progress(console) as told:
        run = begin(out or free_folder(Path("runs") / (Path(chosen.data.path).stem or "run")), chosen, backend, told)
    show_run(console, run)
    best = train_watched(console, run)
    next_steps(console, after_training(run, best))
