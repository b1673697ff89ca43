"""`refllm merge`: an adapter is added to the weights that it adapts, and the sum is a model like any other."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    adapter: Annotated[Path, typer.Argument(help="A folder that holds an adapter: a run's, or PEFT's.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    base: Annotated[Path | None, typer.Option("--base", help="The model that it adapts, where it lies elsewhere now.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Of the weights: float32, bfloat16, float16 or float64.")] = None,
) -> None:
    """Make a whole model of an adapter and the model that it adapts.

    It is written as a Hugging Face folder, which needs the adapter no more.
    """
    from rich.console import Console
    from rich.markup import escape

    from refllm import save
    from refllm.checkpoints.adapter import CONFIG, is_adapter, read_model
    from refllm.cli.figures import count

    if not is_adapter(adapter):
        raise FileNotFoundError(f"{adapter / CONFIG} is missing; refllm merge needs the folder of an adapter.")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise FileExistsError(f"{out} holds something already; choose another folder.")
    model = read_model(adapter, "numpy", base=base)
    save(out, model, dtype)
    Console(highlight=False).print(f"  {escape(str(out))}  the adapted model, {count(model.n_parameters)} parameters")
