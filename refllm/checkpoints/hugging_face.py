"""Folders of Hugging Face: config.json, model.safetensors (whole or in shards) and tokenizer.json, read and written."""

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from refllm.array_api import Backend, load
from refllm.atomic import write_atomically
from refllm.checkpoints import tensor_file
from refllm.checkpoints.tensor_file import Tensor
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer

WEIGHTS, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # the floating ones


def read_model(folder: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a model and, where there is one, its tokenizer.

    dtype: of the parameters, such as "float32"; None: that of the file where the backend computes in it, else float32
    Raises OSError where a file is missing, ValueError where one does not hold what the configuration needs.
    """
    folder = Path(folder)
    fields = read_config(folder)
    module = architecture_of(fields, folder)
    try:
        config = module.from_hugging_face(fields)
    except KeyError as error:
        raise ValueError(f"{folder / CONFIG} has no {error}, which a model of type {fields['model_type']!r} needs.") from None
    tensors = by_our_names(read_tensors(folder), module, config)
    xp = load(backend).xp
    wanted = floating(dtype or common_dtype(tensors, xp), xp)
    params = {name: xp.from_numpy(tensor.values(), wanted) for name, tensor in tensors.items()}
    return Model(module, config, params, read_tokenizer(folder))


def write_model(folder: str | Path, model: Model, dtype: str | None = None) -> None:
    """Write a model, and its tokenizer if it has one, such that transformers' Auto classes read them.

    dtype: of the stored parameters, such as "bfloat16"; None: their own
    Raises OSError where the disk refuses; each old file then stays whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = dtype or dtype_name(model.params["embedding"])
    if stored not in DTYPE_NAMES.values():
        raise ValueError(f"dtype={stored!r} cannot be stored; choose one of {', '.join(DTYPE_NAMES.values())}.")
    write_tokenizer(folder, model)
    tensor_file.write(folder / WEIGHTS, by_their_names(model, stored), metadata={"format": "pt"})
    fields = model.architecture.hugging_face_config(model.config) | {
        "dtype": stored,  # transformers 5
        "torch_dtype": stored,  # transformers 4
        "bos_token_id": getattr(model.tokenizer, "bos", None),
        "eos_token_id": getattr(model.tokenizer, "eos", None),
    }
    write_atomically(folder / CONFIG, _json(fields))


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of config.json."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a model's folder holds {CONFIG} and {WEIGHTS}.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds a {type(fields).__name__}; a configuration is a JSON object.")
    return fields


def architecture_of(fields: Mapping[str, Any], folder: Path) -> ModuleType:
    """The architecture that computes a configuration's model_type."""
    modules = [architecture(name) for name in ARCHITECTURES]
    for module in modules:
        if fields.get("model_type") in module.MODEL_TYPES:
            return module
    known = ", ".join(name for module in modules for name in module.MODEL_TYPES)
    raise ValueError(f"{folder / CONFIG} has model_type={fields.get('model_type')!r}; the types that can be read are {known}.")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of all the shards that its index names."""
    if (folder / WEIGHTS).is_file():
        return tensor_file.read(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder / WEIGHTS} is missing; a model's folder holds it, or {INDEX} and its shards.")
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} does not say in which shard each tensor lies ({error}).") from error
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise FileNotFoundError(f"{folder / INDEX} names {', '.join(missing)}, missing beside it.")
    return {name: tensor for shard in shards for name, tensor in tensor_file.read(folder / shard).items()}


def by_our_names(tensors: Mapping[str, Tensor], module: ModuleType, config: Any) -> dict[str, Tensor]:
    """The tensors under our names and as (in, out), checked to be exactly those that the configuration needs."""
    shapes, prefix = module.parameter_shapes(config), module.BASE_PREFIX
    prefixed = any(name.startswith(prefix) for name in tensors)
    found, missing, known = {}, [], set()
    for ours, (theirs, transposed) in module.hugging_face_names(config).items():
        whole = isinstance(theirs, str)
        stored = [name if prefixed else name.removeprefix(prefix) for name in ((theirs,) if whole else theirs)]
        known.update(stored)
        if lacking := [name for name in stored if name not in tensors]:
            missing += lacking
            continue
        parts = [transpose(tensors[name]) if transposed else tensors[name] for name in stored]
        found[ours] = parts[0] if whole else stack(parts, ours)
    if missing:
        raise ValueError(f"{WEIGHTS} lacks {_few(missing)}, which {config} needs.")
    buffers = (*module.BUFFERS, *((r"lm_head\.weight",) if "lm_head" not in shapes else ()))
    unexpected = [n for n in tensors if n not in known and not any(re.fullmatch(b, n) for b in buffers)]
    if unexpected:
        raise ValueError(f"{WEIGHTS} holds {_few(unexpected)}, for which {config} has no use.")
    for name, tensor in found.items():
        if tensor.shape != shapes[name]:
            raise ValueError(
                f"{name} is {tensor.shape} in {WEIGHTS}, but Config({_responsible(module, config, name, tensor.shape)}) "
                f"needs {shapes[name]}."
            )
    return found


def by_their_names(model: Model, dtype: str) -> dict[str, Tensor]:
    """The model's parameters as tensors to be written: under Hugging Face's names, in its layout, in a dtype."""
    code = next(code for code, name in DTYPE_NAMES.items() if name == dtype)
    to_numpy = model.backend.xp.to_numpy
    tensors: dict[str, Tensor] = {}
    for ours, (theirs, transposed) in model.architecture.hugging_face_names(model.config).items():
        x, shape = model.params[ours], model.shapes[ours]
        if isinstance(theirs, str):
            parts = {theirs: Tensor(code, shape, lambda x=x: to_numpy(x))}  # type: ignore[misc]  # binds x; mypy wants no default
        else:
            parts = {
                name: Tensor(code, shape[1:], lambda x=x, i=i: to_numpy(x[i, ...]))  # type: ignore[misc]  # the same
                for i, name in enumerate(theirs)
            }
        tensors |= {name: transpose(part) if transposed else part for name, part in parts.items()}
    return tensors


def common_dtype(tensors: Mapping[str, Tensor], xp: Any) -> str:
    """The dtype that holds every tensor exactly, if the backend computes in it; else float32."""
    stored = {DTYPE_NAMES.get(tensor.dtype, "float32") for tensor in tensors.values()}
    wanted = stored.pop() if len(stored) == 1 else ("float64" if "float64" in stored else "float32")
    return wanted if wanted in xp.dtypes() else "float32"


def floating(name: str, xp: Any) -> Any:
    """The backend's floating dtype of that name."""
    if name not in xp.dtypes() or name not in DTYPE_NAMES.values():
        known = ", ".join(sorted(xp.dtypes() & set(DTYPE_NAMES.values())))
        raise ValueError(f"dtype={name!r} cannot be had on {xp.__name__}; it computes in {known}.")
    return getattr(xp, name)


def dtype_name(x: Any) -> str:
    """The name of an array's dtype, in any backend."""
    return str(x.dtype).rpartition(".")[-1]


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder; None where it has none, or, with a warning, one that cannot be read."""
    if not (folder / TOKENIZER).is_file():
        return None
    try:
        return Tokenizer.load(folder / TOKENIZER)
    except ValueError as error:
        warnings.warn(f"the model in {folder} is loaded without its tokenizer: {error}", stacklevel=4)
        return None


def write_tokenizer(folder: Path, model: Model) -> None:
    """Write tokenizer.json and the file that tells AutoTokenizer how to read it."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return
    tokenizer.save(folder / TOKENIZER)
    special = {f"{kind}_token": getattr(tokenizer, kind) for kind in ("bos", "eos")}
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.max_positions,
        "clean_up_tokenization_spaces": False,
    } | {kind: tokenizer.decode([token]) for kind, token in special.items() if token is not None}
    write_atomically(folder / "tokenizer_config.json", _json(fields))


def _json(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def transpose(tensor: Tensor) -> Tensor:
    """The same tensor, its two axes exchanged."""
    return Tensor(tensor.dtype, tensor.shape[::-1], lambda: np.ascontiguousarray(tensor.values().T))


def stack(parts: list[Tensor], name: str) -> Tensor:
    """Tensors of one shape and dtype as one, along a new first axis. Raises ValueError where they differ."""
    if len({(part.dtype, part.shape) for part in parts}) > 1:
        differ = ", ".join(sorted({f"{part.dtype} {part.shape}" for part in parts}))
        raise ValueError(f"the {len(parts)} tensors that make up {name} differ: {differ}.")
    return Tensor(parts[0].dtype, (len(parts), *parts[0].shape), lambda: np.stack([part.values() for part in parts]))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _responsible(module: ModuleType, config: Any, name: str, came: tuple[int, ...]) -> str:
    """The fields of a configuration that set those axes of a parameter which came out wrong."""
    needed = module.parameter_shapes(config)[name]
    wrong = [axis for axis, n in enumerate(needed) if len(came) != len(needed) or came[axis] != n]
    blamed = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for other in (1, 2, 2 * value) if type(value) is int else ():  # the first that makes a valid configuration
            try:
                shape = module.parameter_shapes(dataclasses.replace(config, **{field.name: other})).get(name, needed)
            except ValueError:
                continue
            if any(shape[axis] != needed[axis] for axis in wrong):
                blamed.append(f"{field.name}={value}")
                break
    return ", ".join(blamed)
