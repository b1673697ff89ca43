"""Every number that decides a run, in tables of one TOML file: [model], [data], [training] and, where adapters learn, [lora].

The run folder keeps the file as run.toml, and `read(write(config)) == config`.
[model] holds the sizes of a new model, or `from`, the checkpoint that the run begins at, which has its own.
"""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from refllm.atomic import write_atomically
from refllm.models import ARCHITECTURES, architecture
from refllm.training.schedule import SCHEDULES

DTYPES = ("float32", "float64", "bfloat16")
OBJECTIVES = ("causal", "masked")
ITEMS = {int: "whole numbers", str: "names"}  # what a setting may be a list of
TABLES = ("model", "data", "training", "lora")
CHECKPOINT = ("architecture", "from", "sha256")  # the settings of [model] where it is a checkpoint; `begin` finds all but `from`
FROM_DATA = ("vocab_size", "max_positions")  # model fields that a file may leave to the tokenizer and the context


@dataclass(frozen=True)
class DataConfig:
    """What is learned from.

    path: a UTF-8 text file or a folder of them    tokenizer: a tokenizer.json, or a folder that holds one; "" trains one
    vocab_size: tokens of the tokenizer that is trained    held_out: the share of the text, its end, kept for evaluation
    """

    path: str
    tokenizer: str = ""
    vocab_size: int = 1024
    held_out: float = 0.1

    def __post_init__(self) -> None:
        _require(0 < self.held_out < 1, "data.held_out", self.held_out, "a share between 0 and 1, such as 0.1")
        _require(self.vocab_size > 256, "data.vocab_size", self.vocab_size, "more than the 256 bytes, such as 1024")


@dataclass(frozen=True)
class TrainingConfig:
    """How it is learned. A step is one update of the weights; a batch is what one pass of the gradients reads.

    context: tokens in a window    batch: windows in a micro-batch    accumulation: micro-batches in a step
    learning_rate: the peak, after warmup_steps    schedule: cosine, constant or wsd (see `schedule`)
    decay_steps: how long the rate falls; None for all that follows the warm-up (cosine) or a fifth of the steps (wsd)
    final_fraction: of the peak, where it ends: a tenth, as Brown et al. 2020 (arXiv:2005.14165, appendix B),
    who also set the betas, eps, the decay and the clip below (0: no clip)
    checkpointing: compute a block's activations again in the backward pass instead of keeping them
    evaluation_windows: windows of held-out text in one evaluation, evenly spaced; 0 for all
    dtype: what the passes compute in; weights and moments stay float32 under bfloat16
    objective: causal, every token is guessed from those before it; masked, some are hidden and guessed from all others (see
    `masking`); "" for the one by which the architecture learns, which run.toml then records
    backend: that computes; "" for the one that REFLLM_BACKEND or the caller names, which run.toml then records
    """

    context: int
    batch: int
    steps: int
    learning_rate: float
    accumulation: int = 1
    schedule: str = "cosine"
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_fraction: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    dropout: float = 0.0
    checkpointing: bool = False
    seed: int = 0
    evaluate_every: int = 250
    evaluation_windows: int = 128
    checkpoint_every: int = 250
    dtype: str = "float32"
    objective: str = ""
    backend: str = ""

    def __post_init__(self) -> None:
        for name in ("context", "batch", "steps", "accumulation", "evaluate_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        for name in ("warmup_steps", "evaluation_windows"):
            _require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        for name in ("learning_rate", "weight_decay", "clip"):
            _require(0 <= getattr(self, name) < float("inf"), f"training.{name}", getattr(self, name), "0 or more, and finite")
        for name in ("beta1", "beta2", "dropout"):
            _require(0 <= getattr(self, name) < 1, f"training.{name}", getattr(self, name), "at least 0 and below 1")
        _require(0 < self.eps < 1, "training.eps", self.eps, "between 0 and 1, such as 1e-8")
        _require(0 <= self.final_fraction <= 1, "training.final_fraction", self.final_fraction, "between 0 and 1")
        _require(self.decay_steps is None or self.decay_steps >= 1, "training.decay_steps", self.decay_steps, "at least 1")
        _require(0 <= self.seed < 2**64, "training.seed", self.seed, "between 0 and 2⁶⁴ − 1")
        _require(self.schedule in SCHEDULES, "training.schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        _require(self.objective in ("", *OBJECTIVES), "training.objective", self.objective, f"one of {', '.join(OBJECTIVES)}")
        _require(self.dtype in DTYPES, "training.dtype", self.dtype, f"one of {', '.join(DTYPES)}")

    @property
    def state_dtype(self) -> str:
        """The dtype of weights and moments."""
        return "float64" if self.dtype == "float64" else "float32"


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, which learn in place of the weights (see `lora`).

    rank: r, the width of an adapter    targets: which matrices have one, such as ["q", "v"] (see `lora.chosen`)
    alpha: adapters are added times alpha / r; None for r, as Hu et al. choose it (section 4.1)
    rank_stabilised: whether it is alpha / √r instead
    """

    rank: int
    targets: tuple[str, ...]
    alpha: float | None = None
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        _require(self.rank >= 1, "lora.rank", self.rank, "at least 1")
        _require(bool(self.targets), "lora.targets", list(self.targets), "at least one name, such as q or ffn.up")
        _require(self.alpha is None or 0 < self.alpha < float("inf"), "lora.alpha", self.alpha, "above 0, and finite")

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


@dataclass(frozen=True)
class RunConfig:
    """A whole run. model: "architecture" and the fields of that architecture's Config that are set, or CHECKPOINT's settings."""

    model: Mapping[str, Any] = field(hash=False)
    data: DataConfig
    training: TrainingConfig
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", MappingProxyType(dict(self.model)))
        if self.lora and not self.source:
            raise ValueError("[lora] adapts a model that is trained already; give its checkpoint, --from or model.from.")

    @property
    def source(self) -> str:
        """The checkpoint that the run begins at; "" for a new model."""
        return self.model.get("from", "")


def read(path: Path | str) -> RunConfig:
    """The configuration in a TOML file. Raises ValueError that names the key at fault, OSError where there is no file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; a configuration is a TOML file with [model], [data] and [training].")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    try:
        return from_tables(tables)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write(config: RunConfig, path: Path | str) -> None:
    """Write every setting to a TOML file, whole or not at all; unset ones (None) are left out."""
    lines = []
    for name, table in to_tables(config).items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        lines.append("")
    write_atomically(Path(path), "\n".join(lines).encode())


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The configuration with some settings changed: {"training.learning_rate": 1e-3}. Text, as flags give it, is parsed."""
    tables = to_tables(config)
    for name, value in changes.items():
        table, _, key = name.partition(".")
        _known(table, TABLES, "table")
        if table == "model" and config.source:
            _refuse_sizes([key])
        settings = _settings(table, tables["model"])
        _known(key, settings, table)
        given = tables.setdefault(table, {})
        given[key] = _parse(name, value, settings[key].kind) if isinstance(value, str) else value
    return from_tables({name: {k: v for k, v in table.items() if v is not None} for name, table in tables.items()})


def to_tables(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The tables, without what is None."""
    tables = {"model": dict(config.model), "data": dataclasses.asdict(config.data)}
    tables["training"] = dataclasses.asdict(config.training)
    if config.lora:
        tables["lora"] = dataclasses.asdict(config.lora)
    return {name: {k: v for k, v in table.items() if v is not None} for name, table in tables.items()}


def from_tables(tables: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The configuration in its tables. Raises ValueError for an unknown, missing or wrong setting, by its name."""
    for table in tables:
        _known(table, TABLES, "table")
    model = tables.get("model", {})
    name = model.get("architecture", "")
    if "from" in model:
        _refuse_sizes(model)
    elif name not in ARCHITECTURES:
        raise ValueError(f"model.architecture={name!r} is not an architecture; choose one of {', '.join(ARCHITECTURES)}.")
    wanted = [table for table in TABLES if table != "lora" or table in tables]
    checked = {table: _checked(table, tables.get(table, {}), _settings(table, model)) for table in wanted}
    lora = LoraConfig(**checked["lora"]) if "lora" in checked else None
    return RunConfig(checked["model"], DataConfig(**checked["data"]), TrainingConfig(**checked["training"]), lora)


def model_config(config: RunConfig, vocab_size: int) -> Any:
    """A new model's Config; the tokenizer's vocabulary and the context fill what the file leaves to them."""
    given = {"vocab_size": vocab_size, "max_positions": config.training.context} | dict(config.model)
    if given["vocab_size"] < vocab_size:
        raise ValueError(f"model.vocab_size={given['vocab_size']} is too small: the tokenizer has {vocab_size} tokens.")
    if given["max_positions"] < config.training.context:
        raise ValueError(
            f"model.max_positions={given['max_positions']} is too small: training.context={config.training.context} tokens."
        )
    return architecture(given.pop("architecture")).Config(**given)


def objective(config: RunConfig) -> str:
    """What the model learns by: training.objective, or, where that is not set, what fits its architecture.

    Raises ValueError where the two do not fit: a model that sees what follows would read the next token instead of guessing it,
    and one that does not would guess a masked token without what follows.
    """
    name = config.model["architecture"]
    fitting = "causal" if architecture(name).AUTOREGRESSIVE else "masked"
    if config.training.objective not in ("", fitting):
        sees = "only what came before" if fitting == "causal" else "what follows a token too"
        raise ValueError(
            f"training.objective={config.training.objective!r} does not fit {name}, which sees {sees}; it must be {fitting!r}."
        )
    return fitting


class _Setting(NamedTuple):
    """What a setting may be."""

    kind: Any  # its type hint
    must: bool  # whether it has to be given
    default: Any  # None where there is none


def _settings(table: str, model: Mapping[str, Any]) -> dict[str, _Setting]:
    """The settings of a table, given [model], whose own are the fields of its architecture's Config, or a checkpoint's."""
    if table == "model" and "from" in model:
        return {name: _Setting(str, False, None) for name in CHECKPOINT}
    others = {"data": DataConfig, "training": TrainingConfig, "lora": LoraConfig}
    config = others.get(table) or architecture(model["architecture"]).Config
    hints = get_type_hints(config)
    settings = {"architecture": _Setting(str, True, None)} if table == "model" else {}
    for f in dataclasses.fields(config):
        must = f.default is dataclasses.MISSING and not (table == "model" and f.name in FROM_DATA)
        settings[f.name] = _Setting(hints[f.name], must, None if f.default is dataclasses.MISSING else f.default)
    return settings


def _checked(table: str, given: Mapping[str, Any], settings: Mapping[str, _Setting]) -> dict[str, Any]:
    """The given settings, each known and of its type, and the defaults of the others. Whole numbers stand for floats."""
    for key in given:
        _known(key, settings, table)
    missing = [f"{table}.{key}" for key, setting in settings.items() if setting.must and key not in given]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be set in [{table}].")
    values = {key: given.get(key, setting.default) for key, setting in settings.items()}
    return {key: _typed(f"{table}.{key}", value, settings[key].kind) for key, value in values.items() if value is not None}


def _refuse_sizes(settings: Iterable[str]) -> None:
    """Raise ValueError for a setting of [model] that a checkpoint decides."""
    for name in settings:
        if name not in CHECKPOINT:
            raise ValueError(f"model.{name} cannot be set for a model that is trained already: its checkpoint decides it.")


def _typed(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if type(value) not in (list, tuple) or any(type(part) is not item for part in value):
            raise ValueError(f"{name}={value!r} is not a list of {ITEMS[item]}.")
        return tuple(value)
    allowed = _plain(kind)
    if type(value) is int and float in allowed and int not in allowed:
        return float(value)
    if type(value) not in allowed:
        wanted = " or ".join(k.__name__ for k in allowed) or "set in code: a file holds only plain values"
        raise ValueError(f"{name}={value!r} is a {type(value).__name__}; it must be {wanted}.")
    return value


def _parse(name: str, text: str, kind: Any) -> Any:
    """What a flag's text says: the first of bool, int, float and str that its setting may be and the text can be.

    A setting that is a list takes its items between commas.
    """
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        try:
            return tuple(item(part.strip()) for part in text.split(",") if part.strip())
        except ValueError:
            raise ValueError(f"{name}={text!r} cannot be read as {ITEMS[item]} between commas.") from None
    for allowed in sorted(_plain(kind), key=(bool, int, float, str).index):
        if allowed is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if allowed is not bool:
            try:
                return allowed(text)
            except ValueError:
                continue
    raise ValueError(f"{name}={text!r} cannot be read as {' or '.join(k.__name__ for k in _plain(kind))}.")


def _plain(kind: Any) -> list[type]:
    """The plain types that a hint such as `int | None` allows."""
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return [k for k in kinds if k in (bool, int, float, str)]


def _known(key: str, known: Any, table: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, list(known), n=1, cutoff=0)
        where = "table" if table == "table" else f"setting of [{table}]"
        raise ValueError(f"{key!r} is not a {where}; did you mean {close[0]!r}? There are {', '.join(known)}.")


def _require(holds: bool, name: str, value: Any, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value!r} will not do; it must be {needed}.")


def _toml(value: Any) -> str:
    """A TOML value: JSON writes all but the delete character as TOML does."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
