"""`refllm quickstart`: from nothing to a small Llama that writes about Python, in three minutes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

PROMPT = "The with statement is used to"


def quickstart(
    data: Annotated[Path | None, typer.Option("--data", help="Another text than Python's reference: a file or a folder.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to make; runs/quickstart if not given.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates of the weights; fewer end sooner, and worse.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides the first weights, the order of the data and the draws.")] = 0,
    backend: Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue at the end.")] = PROMPT,
) -> None:
    """Train a small Llama on the Python language reference and let it write.

    No download: every Python carries the text. On two cores it takes about three minutes.
    """
    from rich.console import Console
    from rich.markup import escape

    from refllm import checkpoints
    from refllm.cli.asked import answers_to
    from refllm.cli.prompts import Prompt
    from refllm.cli.session import next_steps, show_run, tokenizer_progress, train_watched
    from refllm.cli.settings import configured, free_folder
    from refllm.cli.streaming import write_text
    from refllm.training.run import begin

    console = Console(highlight=False)
    folder = out or free_folder(Path("runs") / "quickstart")
    what = "the Python language reference" if data is None else escape(str(data))
    console.print(f"\n[bold]refllm quickstart[/]: a small Llama learns {what}, with gradients written by hand.\n")
    settings = {"training.seed": str(seed)} | ({} if steps is None else {"training.steps": str(steps)})
    with text_file(data, folder) as text, tokenizer_progress(console) as told:
        run = begin(folder, configured(text, settings), backend, told)
    show_run(console, run)
    best = train_watched(console, run)
    model = checkpoints.load(best, run.backend)
    console.print("\n[bold]What it writes[/]\n")
    write_text(model, answers_to([Prompt(prompt)], model, {"temperature": 0.7, "top_p": 0.9, "seed": seed}), {}, console)
    commands = [
        ("another prompt", f'refllm generate {best} "Python is"'),
        ("after a stop", f"refllm resume {run.folder}"),
        ("your own text", "refllm train --data FILE"),
        ("other backends", "refllm backends"),
    ]
    next_steps(console, commands)


@contextmanager
def text_file(data: Path | None, folder: Path) -> Iterator[Path]:
    """The text to learn: that given, or Python's reference, written into the run folder. A failure takes it away again."""
    if data is not None:
        yield data
        return
    from refllm.cli.reference_text import python_reference

    reference, new, text = python_reference(), not folder.exists(), folder / "python_reference.txt"
    folder.mkdir(parents=True, exist_ok=True)
    if not text.exists():
        text.write_text(reference, encoding="utf-8")
    try:
        yield text
    except BaseException:
        if new:
            shutil.rmtree(folder)
        raise
