"""Every setting of a run as a flag: what it means in a line, and the values that a run begins from."""

import inspect
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = {
    "architecture": "llama, gpt2, mixtral or bert.",
    "d_model": "Width of the residual stream.",
    "n_layers": "Blocks.",
    "n_heads": "Query heads.",
    "n_kv_heads": "Key and value heads, which groups of query heads share; as many as query heads if not given (llama).",
    "d_head": "Width of a head; d_model / n_heads if not given (llama).",
    "d_ff": "Width of the feed-forward part; 8/3 of d_model (llama) or 4 times (gpt2, bert) if not given.",
    "max_positions": "Longest sequence that the model can read, in tokens; the context if not given.",
    "rope_theta": "Base of the rotary frequencies (llama).",
    "norm_eps": "Added to the mean square, or variance, before its root is taken.",
    "tied": "true: the head is the embedding, transposed (llama).",
    "window": "Positions that a query sees, its own included; all before it if not given (llama).",
    "full_layers": "Layers that see everything in spite of the window, such as 0,2 (llama).",
    "qkv_bias": "true: queries, keys and values have biases, as in Qwen 2 (llama).",
    "o_bias": "true: the heads' answers have a bias (llama).",
    "ffn_bias": "true: the feed-forward part has biases (llama).",
    "qk_norm": "true: every head's queries and keys are normalised, as in Qwen 3 (llama).",
    "activation": "gelu_tanh or gelu_erf (gpt2, bert).",
    "n_experts": "Experts of a block, each a feed-forward part (mixtral).",
    "top_k": "Experts that each position goes through (mixtral).",
    "balanced": "true: a loss that spreads positions over the experts is added (mixtral).",
    "balance_weight": "Times which it is added (mixtral).",
}
DATA = {
    "tokenizer": "A tokenizer.json, or a folder that holds one; one is trained if not given.",
    "vocab_size": "Tokens of the tokenizer that is trained.",
    "held_out": "Share of the text, its end, kept for evaluation.",
}
TRAINING = {
    "context": "Tokens in a window.",
    "batch": "Windows in a micro-batch.",
    "accumulation": "Micro-batches in a step.",
    "steps": "Updates of the weights.",
    "learning_rate": "Its peak.",
    "schedule": "cosine, constant or wsd (warm-up, stable, decay).",
    "warmup_steps": "Steps in which the rate rises.",
    "decay_steps": "Steps in which it falls; all after the warm-up (cosine) or a fifth of all (wsd) if not given.",
    "final_fraction": "Of the peak, where the rate ends.",
    "beta1": "Memory of AdamW's mean gradient.",
    "beta2": "Memory of its mean square.",
    "eps": "Added to the root of the mean square.",
    "weight_decay": "On matrices only, times the rate.",
    "clip": "Largest norm of the gradient; 0 for none.",
    "dropout": "Share of numbers forgotten at random.",
    "checkpointing": "true: compute activations again in the backward pass instead of keeping them.",
    "seed": "Decides the first weights, the order of the data and dropout.",
    "evaluate_every": "Steps between evaluations.",
    "evaluation_windows": "Windows of held-out text in an evaluation; 0 for all.",
    "checkpoint_every": "Steps between checkpoints.",
    "dtype": "float32, float64 or bfloat16.",
    "objective": "causal or masked; the one by which the architecture learns if not given: masked for bert.",
}
LORA = {
    "rank": "Learn adapters of this rank in place of the weights, which stay as they are (with --from).",
    "targets": "Matrices that have one, between commas: q,v or q_proj,v_proj, or all-linear for those of all blocks.",
    "alpha": "Adapters are added times alpha / rank; the rank if not given.",
    "rank_stabilised": "true: times alpha / √rank.",
}
TABLES = {"model": MODEL, "data": DATA, "training": TRAINING, "lora": LORA}
NO_FLAG = {"model.vocab_size", "model.rope_scaling", "data.path", "training.backend"}  # from the data; none; --data; --backend
NO_FLAG |= {f"model.{n}" for n in ("head", "pooler", "next_sentence", "n_types", "padding")}  # BERT's, no part of masking

# The quickstart's settings, and what refllm train begins from. The text is short and read more than ten times, so what keeps the
# model from learning it by heart decides: a decay twenty times the usual, with little dropout, was the best of those tried.
BEGINNING: dict[str, dict[str, Any]] = {
    "model": {"architecture": "llama", "d_model": 192, "n_layers": 4, "n_heads": 6, "tied": True},
    "data": {"vocab_size": 1024, "held_out": 0.1},
    "training": {
        "context": 128,
        "batch": 16,
        "steps": 700,
        "learning_rate": 3e-3,
        "warmup_steps": 70,
        "final_fraction": 0.05,
        "beta2": 0.99,
        "weight_decay": 2.0,
        "dropout": 0.1,
        "evaluate_every": 100,
        "evaluation_windows": 128,
        "checkpoint_every": 100,
    },
}


# What refllm train --from begins from in its place: the weights are good already, so steps are few and small. Adapters learn at
# ten times the rate, as their product with a matrix that begins at zero moves the weights less.
GOING_ON: dict[str, Any] = {
    "steps": 200,
    "learning_rate": 1e-4,
    "warmup_steps": 20,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "dropout": 0.0,
    "evaluate_every": 50,
}
ADAPTING = {"learning_rate": 1e-3}

# What a new BERT begins from in its place: of 15 % of the tokens it learns slowly, and by heart much later.
MASKED = {"learning_rate": 1e-3, "weight_decay": 0.1, "dropout": 0.0}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting: those given arrive as its argument `settings`, {"training.steps": "800"}."""
    signature = inspect.signature(command)
    own = [p for name, p in signature.parameters.items() if name != "settings"]
    flags = {}
    for table, descriptions in TABLES.items():
        for name, meaning in descriptions.items():
            flag, panel = flag_of(table, name), table.capitalize()
            option = typer.Option(flag, help=meaning, metavar="VALUE", rich_help_panel=panel, show_default=False)
            kind = Annotated[str | None, option]
            flags[f"{table}_{name}"] = (f"{table}.{name}", kind)

    def call(**arguments: Any) -> None:
        given = {setting: arguments.pop(flag) for flag, (setting, _) in flags.items()}
        command(**arguments, settings={name: value for name, value in given.items() if value is not None})

    added = [inspect.Parameter(f, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=k) for f, (_, k) in flags.items()]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    call.__signature__ = signature.replace(parameters=[*keyword, *added])  # type: ignore[attr-defined]  # typer reads it
    call.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    return call


def flag_of(table: str, name: str) -> str:
    """The flag of a setting: --learning-rate, --lora-rank."""
    return f"--{'lora-' if table == 'lora' else ''}{name.replace('_', '-')}"


def free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, … that does not exist yet."""
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def configured(path: Path | None, settings: Mapping[str, str], file: Path | None = None, source: Path | None = None) -> Any:
    """The RunConfig of a text and the settings given, over those of a file, or of BEGINNING where there is no file.

    source: the checkpoint that the run begins at, in place of a model of the file or of BEGINNING
    What BEGINNING's sizes depend on follows those given: the heads' width and the feed-forward part's from d_model and
    n_heads, the warm-up and the evaluations from a smaller number of steps.
    Raises ValueError for a setting that will not do, by its name.
    """
    from refllm.training import config as configs

    model = {"from": str(source)} if source else {}
    if file is not None:
        read = configs.read(file)
        chosen = configs.RunConfig(model, read.data, read.training, read.lora) if source else read
        return configs.override(chosen, dict(settings) | ({"data.path": str(path)} if path else {}))
    tables = {name: dict(table) for name, table in BEGINNING.items()} | {"data": BEGINNING["data"] | {"path": str(path)}}
    training = tables["training"]
    if source:
        tables["model"] = model
        training |= GOING_ON | (ADAPTING if any(name.startswith("lora.") for name in settings) else {})
    else:
        tables["model"] = _sizes(settings)
        training |= MASKED if tables["model"]["architecture"] == "bert" else {}
    steps = _number(settings.get("training.steps"), training["steps"])
    training["warmup_steps"] = min(training["warmup_steps"], steps // 10)
    for every in ("evaluate_every", "checkpoint_every"):
        training[every] = min(training[every], -(-steps // 2))
    return configs.override(configs.from_tables(tables), settings)


def _sizes(settings: Mapping[str, str]) -> dict[str, Any]:
    """BEGINNING's model in the architecture, and of the width, that is asked for."""
    model, architecture = dict(BEGINNING["model"]), settings.get("model.architecture", "llama")
    if architecture != "llama":
        model = {"architecture": architecture} | {n: model[n] for n in ("d_model", "n_layers", "n_heads")}
    d_model, n_heads = (_number(settings.get(f"model.{n}"), model[n]) for n in ("d_model", "n_heads"))
    if architecture in ("gpt2", "bert"):
        model["d_ff"] = 4 * d_model
    elif architecture == "llama":
        model |= {"n_kv_heads": n_heads, "d_head": d_model // n_heads, "d_ff": -(-8 * d_model // 3 // 32) * 32}
    elif architecture == "mixtral":  # two experts are as wide as Llama's feed-forward part
        model |= {"n_kv_heads": n_heads, "d_head": d_model // n_heads, "d_ff": -(-4 * d_model // 3 // 32) * 32}
        model |= {"n_experts": 8, "top_k": 2, "balanced": True, "balance_weight": 0.01}
    return model


def _number(given: str | None, otherwise: int) -> int:
    """A flag's whole number, if it is one; what it says otherwise is for `override` to refuse."""
    return int(given) if given and given.isdecimal() and int(given) > 0 else otherwise
