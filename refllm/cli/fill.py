"""`refllm fill`: what a masked model would write in place of a mask."""

from typing import Annotated

import typer

from refllm.cli.model_file import BACKEND, DTYPE, JSON, MODEL, TOKENIZER


def fill(
    model: MODEL,
    text: Annotated[
        str | None,
        typer.Argument(help="A text with [MASK] in it, or a UTF-8 file; - or none: standard input.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", help="Show so many of the likeliest tokens.")] = 5,
    as_json: JSON = False,
    tokenizer: TOKENIZER = None,
    backend: BACKEND = None,
    dtype: DTYPE = None,
) -> None:
    """Guess what stands behind the masks of a text, with a model such as BERT.

    Each mask is judged while the others stay. A pipe gets a line for each guess: which mask, id, log-probability in nats, text.
    """
    import json
    from math import exp

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from refllm.cli.model_file import given_text, open_model
    from refllm.cli.visible import visible_line
    from refllm.evaluation import fill

    said = given_text(text)
    opened = open_model(model, backend, dtype, tokenizer)
    filled = fill(opened, said, top)
    console = Console(highlight=False)
    guesses = [
        (i, id, nats, opened.tokenizer.bytes_of(id))
        for i, filling in enumerate(filled, 1)
        for id, nats in zip(filling.tokens, filling.log_probabilities, strict=True)
    ]
    if as_json:
        masks: list[list[dict]] = [[] for _ in filled]
        for i, id, nats, piece in guesses:
            masks[i - 1].append({"id": id, "text": piece.decode("utf-8", "replace"), "log_probability": nats})
        print(json.dumps({"masks": masks}, ensure_ascii=False))
    elif not console.is_terminal:
        for i, id, nats, piece in guesses:
            print(i, id, f"{nats:.6f}", visible_line(piece), sep="\t")
    else:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for heading in ("mask", "guess", "probability"):
            table.add_column(heading, justify="left" if heading == "guess" else "right")
        for i, _, nats, piece in guesses:
            table.add_row(str(i), Text(visible_line(piece)), f"{100 * exp(nats):.3g} %")
        console.print(table)
