"""The options that the commands of `refllm bench` share."""

from typing import Annotated

import typer

Against = Annotated[str | None, typer.Option(help="The peer: torch, plain and eager. None if not given.")]
Peers = Annotated[str | None, typer.Option("--against", help="Peers, by commas: torch, transformers. None if not given.")]
Config = Annotated[str, typer.Option(help="The shape to measure.")]
Kernels = Annotated[str, typer.Option(help="on, off (the readable bodies), or both.")]
Runs = Annotated[int, typer.Option(min=1, help="Timed runs of each side.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each side; as many as there are cores if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Save = Annotated[bool, typer.Option("--save", help="Append the result to spec/results/timings.md.")]
Variants = Annotated[bool, typer.Option("--variants", help="Time torch's fused AdamW and the exact GELU too.")]


def numbers(option: str, said: str) -> list[int]:
    """Whole numbers from 1 up, given by commas. Raises ValueError for anything else."""
    parts = said.split(",")
    if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise ValueError(f"{option} {said!r} is not a list of whole numbers from 1 up, with commas between: 128,4096.")
    return [int(part) for part in parts]
