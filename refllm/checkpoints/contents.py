"""What a checkpoint holds, told from its configuration and its headers: no weight is read."""

import math
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from refllm import checkpoints
from refllm.checkpoints import adapter, gguf_file, hugging_face, names, shards, tensor_file
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model

MOST_LAYERS = 10_000  # that a configuration without weights may speak of


class Stored(NamedTuple):
    """The tensors of one dtype."""

    dtype: str  # as the file calls it, BF16 or Q4_K
    tensors: int
    numbers: int
    bytes: int


class Contents(NamedTuple):
    """What lies under a path, or goes by a name."""

    kind: str  # of checkpoint
    architecture: ModuleType
    config: Any
    tokenizer: Any  # a refllm.tokenizer.Tokenizer, or None
    stored: tuple[Stored, ...]  # the commonest dtype first; nothing where there are no weights


def contents(path: str | Path) -> Contents:
    """What a checkpoint holds: a Hugging Face folder, also one without weights, a llama2.c .bin, a GGUF file, a folder of PEFT's
    with the model that it adapts, or the name of a published size, "gpt2-xl" for instance.

    Raises FileNotFoundError for what is neither a path nor a name, ValueError for a file that does not hold what it should.
    """
    path = Path(path)
    if not path.exists():
        return _published(str(path))
    if path.name == hugging_face.CONFIG:
        path = path.parent
    if (path / hugging_face.CONFIG).is_file() and not _has_weights(path):
        return _without_weights(path)
    if adapter.is_adapter(path):
        return _adapted(path)
    model = checkpoints.load(path, "numpy")
    kind, stored = _stored(path, model)
    return Contents(kind, model.architecture, model.config, model.tokenizer, stored)


def published() -> dict[str, tuple[ModuleType, Any]]:
    """The architecture and the configuration of every published size, by its name."""
    modules = [architecture(name) for name in ARCHITECTURES]
    return {name: (module, config) for module in modules for name, config in getattr(module, "SIZES", {}).items()}


def _published(name: str) -> Contents:
    sizes = published()
    if name not in sizes:
        raise FileNotFoundError(f"{name} is neither there nor the name of a published size; those known are {', '.join(sizes)}.")
    return Contents("published size", *sizes[name], None, ())


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (shards.WEIGHTS, shards.INDEX))


def _without_weights(folder: Path) -> Contents:
    where = str(folder / hugging_face.CONFIG)
    fields = hugging_face.read_config(folder)
    module = names.architecture_of(fields, where)
    config = names.read_configuration(fields, module, MOST_LAYERS, where)
    return Contents("configuration without weights", module, config, hugging_face.read_tokenizer(folder), ())


def _adapted(folder: Path) -> Contents:
    """An adapter together with the model that it adapts."""
    base = adapter.find_base(folder, adapter.read_config(folder))
    found, tensors = contents(base), tensor_file.read(folder / adapter.WEIGHTS).values()
    sizes = ((t.dtype, math.prod(t.shape), tensor_file.size_of(t)) for t in tensors)
    tokenizer = hugging_face.read_tokenizer(folder) or found.tokenizer
    kind = f"adapter of {base}, a {found.kind}"
    return found._replace(kind=kind, tokenizer=tokenizer, stored=(*found.stored, *_by_dtype(sizes)))


def _stored(path: Path, model: Model) -> tuple[str, tuple[Stored, ...]]:
    """The kind of a checkpoint that can be loaded, and its tensors by dtype."""
    if path.is_dir() and (path / hugging_face.CONFIG).is_file():
        sharded = "" if (path / shards.WEIGHTS).is_file() else ", sharded"
        tensors = shards.read(path).values()
        sizes = ((t.dtype, math.prod(t.shape), tensor_file.size_of(t)) for t in tensors)
        return f"Hugging Face folder{sharded}", _by_dtype(sizes)
    file = next(path.glob("*.gguf")) if path.is_dir() else path
    with file.open("rb") as opened:
        head = opened.read(8)
    if head[:4] != b"GGUF":
        version = int.from_bytes(head[4:], "little") if head[:4] == b"24ka" else 0
        dtype, numbers = "Q8_0" if version == 2 else "F32", model.n_parameters
        return f"llama2.c checkpoint, version {version}", (Stored(dtype, len(model.shapes), numbers, file.stat().st_size),)
    known = {number: name for number, (name, *_) in (gguf_file.PLAIN | gguf_file.QUANTISED).items()}
    sizes = ((known[t.type], math.prod(t.shape), t.data.nbytes) for t in gguf_file.read(file).tensors.values())
    return "GGUF file", _by_dtype(sizes)


def _by_dtype(sizes: Iterable[tuple[str, int, int]]) -> tuple[Stored, ...]:
    """sizes: dtype, numbers and bytes of each tensor"""
    found: dict[str, Stored] = {}
    for dtype, numbers, n_bytes in sizes:
        before = found.get(dtype, Stored(dtype, 0, 0, 0))
        found[dtype] = Stored(dtype, before.tensors + 1, before.numbers + numbers, before.bytes + n_bytes)
    return tuple(sorted(found.values(), key=lambda stored: -stored.bytes))
