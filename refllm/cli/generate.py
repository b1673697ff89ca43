"""`refllm generate`: a prompt continued, as the text comes."""

from pathlib import Path
from typing import Annotated

import typer


def generate(
    run: Annotated[Path, typer.Argument(help="A run folder, or any Hugging Face folder that refllm reads.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="The text to continue.", show_default=False)],
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Tokens to write; 200, or what fits the context.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the most likely token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Draw among so many tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Draw among the fewest that reach this probability.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Decides the draws.")] = 0,
    backend: Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")] = None,
) -> None:
    """Continue a prompt with a trained model.

    The text goes to stdout as it comes; how long it took, to stderr.
    """
    from rich.console import Console

    from refllm import checkpoints
    from refllm.cli.streaming import report, stream
    from refllm.decoding import Sampler

    sampler = Sampler(temperature, top_k, top_p)
    model = checkpoints.load(run, backend)
    times = stream(model, prompt, max_tokens, sampler, seed, Console(highlight=False, soft_wrap=True))
    report(times, Console(stderr=True, highlight=False))
