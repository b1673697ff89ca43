"""`refllm info`: what a checkpoint is and what it costs, told without reading its weights."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from refllm.checkpoints.contents import Contents

COMPUTED = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # stored so, computed so
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def info(
    path: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder, a llama2.c .bin, a GGUF file, or a published size such as gpt2-xl.", show_default=False
        ),
    ],
    context: Annotated[int | None, typer.Option("--context", help="Positions; the most that the model reads.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16, float16 or float64; that of the file if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Tell what a checkpoint is and what it costs: parameters, FLOPs per token, memory for prefill, decoding and training.

    All of it follows from the configuration and the headers of files; no weight is read.
    """
    import json

    from refllm.checkpoints.contents import contents

    found = contents(path)
    positions = found.config.max_positions if context is None else context
    if not 1 <= positions <= found.config.max_positions:
        raise ValueError(f"--context {positions} cannot be; the model reads 1 … {found.config.max_positions} positions.")
    about = describe(found, positions, dtype or usual_dtype(found))
    if as_json:
        print(json.dumps(about))
    else:
        show(path, found, about)


def usual_dtype(found: "Contents") -> str:
    """The dtype to compute in: that of most of the weights where it is one to compute in, else float32."""
    return COMPUTED.get(found.stored[0].dtype, "float32") if found.stored else "float32"


def describe(found: "Contents", context: int, dtype: str) -> dict[str, Any]:
    """Everything there is to tell, as JSON has it; sizes in bytes."""
    from dataclasses import asdict

    from refllm.models import accounting

    asked = found.architecture, found.config
    parameters, flops = accounting.parameters(*asked), accounting.forward_flops(*asked, context)
    prefill, decoding = accounting.prefill_memory(*asked, context, dtype), accounting.decoding_memory(*asked, context, dtype)
    training = accounting.training_memory(*asked, context, dtype)
    generates = getattr(found.architecture, "AUTOREGRESSIVE", True)
    return {
        "kind": found.kind,
        "architecture": found.architecture.__name__.rpartition(".")[2],
        "config": asdict(found.config),
        "stored": [stored._asdict() for stored in found.stored],
        "parameters": parameters._asdict()
        | {"non_embedding": parameters.non_embedding, "active_non_embedding": parameters.active_non_embedding},
        "context": context,
        "dtype": dtype,
        "flops_per_token": flops._asdict()
        | {"forward": flops.total, "training": flops.training, "kaplan_forward": accounting.kaplan_flops(*asked, context)}
        | {"6N": accounting.training_flops_by_rule(parameters.active, 1)},
        "cache_bytes_per_token": accounting.cache_bytes(*asked, 1, dtype),
        "cache_bytes": accounting.cache_bytes(*asked, context, dtype),
        "cache_bytes_within_windows": accounting.seen_cache_bytes(*asked, context, dtype),
        "prefill_memory": prefill._asdict() | {"total": prefill.total},
        "decoding_memory": decoding._asdict() | {"total": decoding.total} if generates else None,
        "training_memory": training._asdict() | {"total": training.total},
        "tokenizer": None if found.tokenizer is None else describe_tokenizer(found.tokenizer),
    }


def describe_tokenizer(tokenizer) -> dict[str, Any]:
    """Its model, its sizes, and what begins and ends a document."""
    ends = {name: getattr(tokenizer, name) for name in ("bos", "eos")}
    return {"model": type(tokenizer.model).__name__, "tokens": len(tokenizer), "vocab_size": tokenizer.vocab_size} | ends


def show(path: str, found: "Contents", about: dict[str, Any]) -> None:
    """The same as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, rows in sections(about):
        for i, (what, figure, note) in enumerate(rows):
            table.add_row(f"  {name}" if i == 0 else "", Text(what), Text(figure), Text(note, style="dim"))
    console = Console(highlight=False)
    console.print(Text(f"{path}: {found.kind}, {about['architecture']}", style="bold"), soft_wrap=True)
    fields = ", ".join(f"{name}={value}" for name, value in about["config"].items())
    console.print(Text(f"  {fields}\n  at {about['context']:,} positions, computed in {about['dtype']}", style="dim"))
    console.print(table)


Row = tuple[str, str, str]  # what, the figure, a note


def sections(about: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """The rows of the table, in groups."""
    from refllm.cli.figures import size

    n, flops, training = about["parameters"], about["flops_per_token"], about["training_memory"]
    parameters = [("total", f"{n['total']:,}", "")]
    if n["active"] != n["total"]:
        parameters.append(("active", f"{n['active']:,}", "one token goes through them"))
    parameters.append(("non-embedding", f"{n['non_embedding']:,}", "without tables and head"))
    parameters.append(("embedding", f"{n['embedding']:,}", f"and a head of {n['head']:,}" if n["head"] else ""))
    compute = [
        ("forward", amount(flops["forward"]), f"of them {amount(flops['attention'])} attention"),
        ("training", amount(flops["training"]), "forward and backward"),
        ("2N + 2·L·T·H·K", amount(flops["kaplan_forward"]), "Kaplan's rule for forward"),
        ("6N", amount(flops["6N"]), "the rule for training"),
    ]
    groups = [("parameters", parameters), ("FLOPs per token", compute)]
    running = [("prefill", about["prefill_memory"])]
    if about["decoding_memory"]:
        seen, cache = about["cache_bytes_within_windows"], about["cache_bytes"]
        within = f"of them {size(seen)} within the windows" if seen < cache else ""
        groups.append(("KV cache", [("per token", f"{about['cache_bytes_per_token']:,} B", ""), ("whole", size(cache), within)]))
        running.append(("decoding", about["decoding_memory"]))
    memory = [(what, size(of["total"]), f"about {size(of['working'])} of them intermediate results") for what, of in running]
    memory.append(("training", size(training["total"]), f"about {size(training['activations'])} of them activations"))
    memory.insert(0, ("weights", size(running[0][1]["weights"]), ""))
    groups.append(("memory", memory))
    if about["stored"]:
        stored = [(s["dtype"], size(s["bytes"]), f"{s['tensors']:,} tensors, {s['numbers']:,} numbers") for s in about["stored"]]
        groups.append(("stored", stored))
    tokenizer = about["tokenizer"]
    if tokenizer is None:
        return groups
    ends = ", ".join(f"{name} {tokenizer[name]}" for name in ("bos", "eos") if tokenizer[name] is not None)
    return [*groups, ("tokenizer", [(tokenizer["model"], f"{tokenizer['tokens']:,}", f"tokens; {ends or 'no bos and eos'}")])]


def amount(number: int) -> str:
    """Three digits and a unit: 285 M, 1.47 T."""
    for of, unit in UNITS:
        if number >= 0.9995 * of:
            return f"{number / of:.3g} {unit}"
    return str(number)
