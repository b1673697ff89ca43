"""Models and texts as the commands name them."""

import dataclasses
import os
from typing import Annotated

import typer

from refllm.models.model import Model

MODEL = Annotated[str, typer.Argument(help="A run, a Hugging Face folder, or a file that refllm reads.", show_default=False)]
TOKENIZER = Annotated[str | None, typer.Option("--tokenizer", "-t", help="A tokenizer's file, where the model brings none.")]
BACKEND = Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")]
DTYPE = Annotated[str | None, typer.Option("--dtype", help="float32, float64, …; that of the file if not given.")]
JSON = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table.")]
BATCH = Annotated[int, typer.Option("--batch", help="Texts side by side; decides memory and speed, and no result.")]
BOS = Annotated[
    bool | None,
    typer.Option("--bos/--no-bos", help="Begin with the token that begins a document; as the vocabulary has one if not given."),
]
CONTEXT = Annotated[int | None, typer.Option("--context", help="Tokens of a window; the model's context if not given.")]
STRIDE = Annotated[int | None, typer.Option("--stride", help="Tokens from window to window; half a window if not given.")]


def open_model(path: str, backend: str | None, dtype: str | None, tokenizer: str | None) -> Model:
    """The model at a path, with the tokenizer that is named, or with its own. Raises ValueError where there is neither."""
    from refllm import checkpoints
    from refllm.cli.documents import open_tokenizer

    model = checkpoints.load(os.path.expanduser(path), backend, dtype)
    if tokenizer is not None:
        return dataclasses.replace(model, tokenizer=open_tokenizer(tokenizer))
    if model.tokenizer is None:
        raise ValueError(f"{path} brings no tokenizer; name one with --tokenizer.")
    return model


def given_text(text: str | None) -> str:
    """The text that an argument means: standard input for - or none, a file's where it names one, else itself."""
    from refllm.cli.documents import STDIN, read_text

    if text is None or text == STDIN or os.path.isfile(text):
        return read_text(STDIN if text is None else text)
    return text
