"""`refllm convert`: a checkpoint in another format or dtype."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.tokenizer import Tokenizer

SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a number


def convert(
    source: Annotated[Path, typer.Argument(help="A Hugging Face folder, a llama2.c .bin or a .gguf.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The folder, or the .bin, to write.", show_default=False)],
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="What to store: float16, bfloat16, float32 or float64; as in the source."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="hf, a Hugging Face folder, or llama2c; what the target's name says.")
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", help="Cut a folder's tensors into files of this size.")
    ] = "50GB",
) -> None:
    """Write a checkpoint in another format or dtype.

    The format is a folder that transformers loads, or a .bin for llama2.c (float32).

    What is quantised becomes float32, or the dtype asked for. An old checkpoint of that name stays whole until the new one is.
    """
    from rich.console import Console

    from refllm import checkpoints
    from refllm.checkpoints import hugging_face, llama2c
    from refllm.checkpoints.lazy import LazyParameters
    from refllm.checkpoints.names import dtype_name

    kind = to or ("llama2c" if target.suffix == ".bin" else "hf")
    if kind not in ("hf", "llama2c"):
        raise ValueError(f"--to {kind}: what can be written is hf and llama2c.")
    if kind == "llama2c" and dtype not in (None, "float32"):
        raise ValueError(f"--dtype {dtype}: a .bin of llama2.c holds float32; leave the option out.")
    if target.exists() and target.is_dir() == (kind == "llama2c"):
        raise ValueError(f"{target} is a {'folder' if target.is_dir() else 'file'}; --to {kind} needs the name of another.")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the source itself; name another target.")
    if not target.parent.is_dir():
        raise ValueError(f"the folder {target.parent} is not there; make it first.")
    model = checkpoints.load(source, "numpy")
    stored = "float32"
    if kind == "hf":
        params = model.params
        stored = dtype or (params.stored if isinstance(params, LazyParameters) else dtype_name(params["embedding"]))
    console = Console(highlight=False, soft_wrap=True)
    with writing_bar(console, model.n_parameters * SIZES.get(stored, 4)) as told:
        if kind == "hf":
            hugging_face.write_model(target, model, stored, max_shard_size, told)
            carry_conversation(source, target, model.tokenizer)
        else:
            llama2c.write_model(target, model, told)
    name = model.architecture.__name__.rpartition(".")[2]
    tokenizer = "" if model.tokenizer is None or kind == "llama2c" else ", with its tokenizer"
    console.print(f"  {target}: {name}, {model.n_parameters:,} parameters in {stored}{tokenizer}")


def carry_conversation(source: Path, target: Path, tokenizer: "Tokenizer | None") -> None:
    """Write what the source says about conversations: its chat templates, and what ends an answer where that is not only eos."""
    import json

    from refllm.atomic import write_atomically
    from refllm.checkpoints import chat_files
    from refllm.tokenizer import chat_template

    if tokenizer is None:
        return
    said = chat_files.read(source, tokenizer)
    for name, text in said.templates.items():
        file = chat_template.FILE if name == chat_template.DEFAULT else f"{chat_template.MORE}/{Path(name).name}.jinja"
        (target / file).parent.mkdir(exist_ok=True)
        write_atomically(target / file, text.encode())
    if said.ends - {tokenizer.eos}:
        write_atomically(target / chat_files.GENERATION, json.dumps({"eos_token_id": sorted(said.ends)}).encode() + b"\n")


@contextmanager
def writing_bar(console: "Console", n_bytes: int) -> Iterator[Callable[[int], None]]:
    """What moves a bar by bytes written; it goes when that is done, and is not drawn where the output is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("  writing"), BarColumn(28), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=n_bytes)
        yield lambda n: bar.update(task, advance=n)
