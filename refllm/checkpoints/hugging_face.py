"""Folders of Hugging Face: config.json, model.safetensors (whole or in shards) and tokenizer.json, read and written."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refllm.array_api import Backend, load
from refllm.atomic import write_atomically
from refllm.checkpoints import json_file, shards
from refllm.checkpoints.lazy import once
from refllm.checkpoints.names import (
    DTYPE_NAMES,
    architecture_of,
    by_our_names,
    by_present_names,
    by_their_names,
    dtype_name,
    parameters,
    read_configuration,
)
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer

WEIGHTS, CONFIG, TOKENIZER = shards.WEIGHTS, "config.json", "tokenizer.json"


def read_model(folder: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a model and, where there is one, its tokenizer. Parameters are read from the file when they are used.

    dtype: of the parameters, such as "float32"; None: that of the file where the backend computes in it, else float32
    Raises OSError where a file is missing, ValueError where one does not hold what the configuration needs.
    """
    folder, computing = Path(folder), load(backend)
    fields = read_config(folder)
    module = architecture_of(fields, str(folder / CONFIG))
    stored = by_present_names(shards.read(folder), module)
    config = read_configuration(fields, module, len(stored), str(folder / CONFIG))
    if hasattr(module, "fitted"):  # an architecture with parts that config.json does not tell of
        config = module.fitted(config, stored)
    tensors = by_our_names(stored, module, config, WEIGHTS)
    return Model(module, config, parameters(tensors, computing, dtype), read_tokenizer(folder))


def write_model(
    folder: str | Path,
    model: Model,
    dtype: str | None = None,
    max_shard_size: int | str = shards.LARGEST,
    told: Callable[[int], None] = lambda n: None,
) -> None:
    """Write a model, and its tokenizer if it has one, such that transformers' Auto classes read them.

    dtype: of the stored parameters, such as "bfloat16"; None: their own
    max_shard_size: of a file, in bytes or as "5GB"; a larger model is cut    told: hears how many bytes each tensor had
    Raises OSError where the disk refuses; each old file then stays whole.
    """
    folder = Path(folder)
    stored = dtype or dtype_name(once(model.params, "embedding"))
    if stored not in DTYPE_NAMES.values():
        raise ValueError(f"dtype={stored!r} cannot be stored; choose one of {', '.join(DTYPE_NAMES.values())}.")
    largest = shards.size_in_bytes(max_shard_size)
    fields = model.architecture.hugging_face_config(model.config) | {
        "dtype": stored,  # transformers 5
        "torch_dtype": stored,  # transformers 4
        "bos_token_id": getattr(model.tokenizer, "bos", None),
        "eos_token_id": getattr(model.tokenizer, "eos", None),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, model)
    shards.write(folder, by_their_names(model, stored), largest, told)
    write_atomically(folder / CONFIG, _json(fields))


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of config.json."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a model's folder holds {CONFIG} and {WEIGHTS}.")
    return json_file.read_object(path)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder; None where it has none, or, with a warning, one that cannot be read."""
    try:
        return Tokenizer.load(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"the model in {folder} is loaded without its tokenizer: {error}", stacklevel=4)
        return None


def write_tokenizer(folder: Path, model: Model) -> None:
    """Write tokenizer.json and the file that tells AutoTokenizer how to read it."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return
    tokenizer.save(folder / TOKENIZER)
    special = {f"{kind}_token": getattr(tokenizer, kind, None) for kind in ("bos", "eos", "mask")}
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.max_positions,
        "clean_up_tokenization_spaces": False,
    } | {kind: tokenizer.decode([token]) for kind, token in special.items() if token is not None}
    write_atomically(folder / "tokenizer_config.json", _json(fields))


def _json(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
