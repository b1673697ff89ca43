"""Text as it comes, and how long it took: prefill and decode apart, since one is bound by arithmetic, the other by memory."""

import sys
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from refllm.cli.figures import count, span
from refllm.decoding import Sampler, continue_text
from refllm.decoding.text import encode_prompt
from refllm.models.model import Model

USUAL = 200  # tokens, where none are asked for


class Times(NamedTuple):
    """How long a text took."""

    n_prompt: int  # tokens read at once
    first: float  # seconds to the first token: the prefill
    later: tuple[float, ...]  # seconds of each token after it


def stream(model: Model, prompt: str, max_tokens: int | None, sampler: Sampler, seed: int, console: Console) -> Times:
    """Write the prompt, dimmed, and its continuation as it comes, to the console."""
    n_prompt = len(encode_prompt(model, prompt))
    room = model.config.max_positions - n_prompt
    pieces = continue_text(model, prompt, max(1, min(room, USUAL)) if max_tokens is None else max_tokens, sampler, seed)
    console.print(Text(prompt, style="dim"), end="")
    seconds = []
    for piece in pieces:
        console.print(Text(piece.text), end="")
        console.file.flush()
        if piece.token is not None:
            seconds.append(piece.seconds)
    console.print()
    return Times(n_prompt, seconds[0], tuple(seconds[1:]))


def report(times: Times, console: Console) -> None:
    """Two lines: the time to the first token, and the time of each later one."""
    sys.stdout.flush()
    prefill = f"prefill  {times.n_prompt:,} tokens, first token after {span(times.first)}"
    console.print(f"  {prefill} ({count(times.n_prompt / times.first)} tokens/s)", style="dim")
    if times.later:
        each = sum(times.later) / len(times.later)
        console.print(f"  decode   {len(times.later):,} tokens, {span(each)} each ({count(1 / each)} tokens/s)", style="dim")
