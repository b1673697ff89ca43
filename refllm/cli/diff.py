"""`refllm diff`: the same text on two backends, and where they part."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.model_file import DTYPE, JSON, TOKENIZER
from refllm.cli.option_table import takes, with_defaults
from refllm.cli.sampling_options import SAMPLING, sampler_of

if TYPE_CHECKING:
    from refllm.conformance.text_difference import Side
    from refllm.models.model import Model

RANDOM = "random:"  # before the name of an architecture: a small one with random weights
UNTOLD = "1 2 3 4 5 6 7 8"  # the prompt of a model that has no tokenizer


@takes(("Sampling", SAMPLING))
def diff(
    model: Annotated[
        str, typer.Argument(help="A run, a Hugging Face folder, a file; or random:llama and its like.", show_default=False)
    ],
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; ids, where there is no tokenizer.", show_default=False)
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="One side; mlx:off is MLX without its kernels. That in use if not given.")
    ] = None,
    against: Annotated[str, typer.Option("--against", help="The other side.")] = "numpy:off",
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="Tokens to write.", min=1)] = 64,
    tokenizer: TOKENIZER = None,
    dtype: DTYPE = None,
    as_json: JSON = False,
    **options: Any,
) -> None:
    """Write the same text on two backends, and tell where they part.

    Each result of each op is compared with float64's, which knows how far a
    right one may be off. So you learn which side, layer, op and position is
    the first beyond its error bound; or, where the texts part and nothing is,
    how near the decision was. Exit status 1 if something is beyond its bound.
    """
    from refllm.cli.diff_report import as_object, show
    from refllm.conformance.text_difference import compare

    sampler, seed = sampler_of(options), with_defaults(SAMPLING, options)["seed"]
    sides = open_sides(model, backend, against, dtype, tokenizer)
    opened = sides[0].model
    ids = prompt_ids(opened, prompt)
    eos = None if opened.tokenizer is None else opened.tokenizer.eos
    found = compare(sides, ids, tokens, sampler, seed, () if eos is None else (eos,))
    if as_json:
        import json

        print(json.dumps(as_object(sides, found), ensure_ascii=False))
    else:
        show(sides, found)
    raise typer.Exit(0 if found.is_right else 1)


def open_sides(path: str, one: str | None, other: str, dtype: str | None, tokenizer: str | None) -> "tuple[Side, Side]":
    """The same model on both sides; read once where both compute in the same library.

    Raises ValueError for two sides that are the same.
    """
    from refllm.array_api import load
    from refllm.conformance.text_difference import Side

    named = [load(None).name if one is None else one, other]
    (first, first_plain), (second, second_plain) = (parsed(name) for name in named)
    if (first, first_plain) == (second, second_plain):
        raise ValueError(f"{named[0]} and {named[1]} are the same side; compare two backends, or {first} with {first}:off.")
    model = open_model(path, first, dtype, tokenizer)
    theirs = model if first == second else open_model(path, second, dtype, tokenizer)
    return Side(named[0], model, first_plain), Side(named[1], theirs, second_plain)


def parsed(side: str) -> tuple[str, bool]:
    """The backend of a side such as "mlx" or "mlx:off", and whether its kernels are off. Raises ValueError for any other form."""
    name, colon, said = side.partition(":")
    if said not in ("on", "off") and (colon or not name):
        raise ValueError(f"{side!r} is not a side; give a backend, and :off behind it to do without its kernels: mlx:off.")
    return name, said == "off"


def open_model(path: str, backend: str, dtype: str | None, tokenizer: str | None) -> "Model":
    """The model at a path, with a tokenizer where one is there, or a random one of an architecture."""
    import dataclasses
    import os

    from refllm import checkpoints
    from refllm.cli.documents import open_tokenizer
    from refllm.conformance.random_model import random_model

    if path.startswith(RANDOM):
        model = random_model(path.removeprefix(RANDOM), backend, dtype)
    else:
        model = checkpoints.load(os.path.expanduser(path), backend, dtype)
    return model if tokenizer is None else dataclasses.replace(model, tokenizer=open_tokenizer(tokenizer))


def prompt_ids(model: "Model", prompt: str | None) -> list[int]:
    """The tokens of a prompt. Raises ValueError for an empty one, and for a text where no tokenizer reads it."""
    from refllm.decoding.text import encode_prompt

    if model.tokenizer is not None:
        return encode_prompt(model, prompt or "")
    try:
        ids = [int(word) for word in (UNTOLD if prompt is None else prompt).replace(",", " ").split()]
    except ValueError:
        raise ValueError(
            f"the model has no tokenizer to read {prompt!r}; give token ids, such as 1 2 3, or name one with --tokenizer."
        ) from None
    return ids
