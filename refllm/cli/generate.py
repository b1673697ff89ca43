"""`refllm generate`: a prompt continued, as the text comes."""

from pathlib import Path
from typing import Annotated

import typer

from refllm.cli.sampling_options import BackendName, Seed, Temperature, TopK, TopP


def generate(
    run: Annotated[Path, typer.Argument(help="A run folder, or any Hugging Face folder that refllm reads.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="The text to continue.", show_default=False)],
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Tokens to write; 200, or what fits the context.")
    ] = None,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = 0.95,
    seed: Seed = 0,
    backend: BackendName = None,
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
