"""The tensors of a Hugging Face folder: in model.safetensors, or in several files that an index names.

The index holds {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}, the files lie beside it.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from refllm.atomic import replacing
from refllm.checkpoints import json_file, tensor_file
from refllm.checkpoints.tensor_file import Tensor, size_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST = 50_000_000_000  # bytes of tensors in one file, as transformers 5 writes them
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
METADATA = {"format": "pt"}  # which transformers asks for
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def read(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of all the files that its index names.

    Raises OSError where one is missing, ValueError where one is damaged or is not what the index says.
    """
    if (folder / WEIGHTS).is_file():
        return tensor_file.read(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if any((folder / name).is_file() for name in PICKLED):
        raise FileNotFoundError(
            f"{folder / WEIGHTS} is missing. {PICKLED[0]} is not read: it is a pickle, which can run any program. Convert it "
            "with transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)."
        )
    raise FileNotFoundError(f"{folder / WEIGHTS} is missing; a model's folder holds it, or {INDEX} and its shards.")


def write(
    folder: Path, tensors: Mapping[str, Tensor], largest: int = LARGEST, told: Callable[[int], None] = lambda n: None
) -> None:
    """Write tensors to model.safetensors or, where they have more bytes than the largest file may, to several and an index.

    told: hears how many bytes each tensor had
    All files are written whole before the first takes the place of an old one; those of an older model that are no more
    needed are then removed. Raises OSError where the disk refuses; the old files are then unchanged.
    """
    older = {path for path in (folder / WEIGHTS, folder / INDEX) if path.is_file()}
    with suppress(OSError, ValueError):
        older |= {folder / shard for shard in _weight_map(folder).values()}
    parts = split(tensors, largest)
    files = {WEIGHTS: parts[0]} if len(parts) == 1 else {_name(i, len(parts)): part for i, part in enumerate(parts)}
    with ExitStack() as stack:  # which ends its files from the last to the first
        if len(parts) > 1:
            weight_map = {name: file for file, part in files.items() for name in part}
            about = {"total_size": sum(map(size_of, tensors.values()))}
            index = {"metadata": about, "weight_map": dict(sorted(weight_map.items()))}
            stack.enter_context(replacing(folder / INDEX)).write(json.dumps(index, indent=2).encode() + b"\n")
        opened = [stack.enter_context(replacing(folder / file)) for file in files]
        for file, part in zip(opened, files.values(), strict=True):
            tensor_file.write_to(file, part, METADATA, told)
            file.flush()
            os.fsync(file.fileno())  # so that taking their places is a moment's work
    for path in older - {folder / file for file in (*files, *((INDEX,) if len(parts) > 1 else ()))}:
        path.unlink(missing_ok=True)


def split(tensors: Mapping[str, Tensor], largest: int) -> list[dict[str, Tensor]]:
    """The tensors, in their order, in parts of at most so many bytes; a tensor of more is a part by itself."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + size_of(tensor) > largest:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += size_of(tensor)
    return parts


def size_in_bytes(size: int | str) -> int:
    """A size such as 5000000, "5GB" or "200MiB" in bytes. Raises ValueError for another word, and for none at all."""
    digits, unit = (str(size).rstrip("BGIKMTbgikmt"), str(size).lstrip("0123456789. ").upper())
    try:
        n = int(float(digits) * (UNITS[unit] if unit else 1))
    except (KeyError, ValueError, OverflowError):
        n = 0
    if n < 1:
        raise ValueError(f"{size!r} is no size of a file; write bytes, or a number with KB, MB, GB, MiB or GiB, such as 5GB.")
    return n


def _name(i: int, n: int) -> str:
    return f"model-{i + 1:05d}-of-{n:05d}.safetensors"


def _weight_map(folder: Path) -> dict[str, str]:
    """The file that holds each tensor. Raises ValueError for an index that does not say so, or names a file elsewhere."""
    path = folder / INDEX
    weight_map = json_file.read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{path} does not say in which shard each tensor lies: it needs a weight_map from names to files.")
    for shard in weight_map.values():
        if not shard.endswith(".safetensors") or "/" in shard or "\\" in shard or "\0" in shard:
            raise ValueError(f"{path} names {shard!r}; a shard is a .safetensors file beside it, and no other is opened.")
    return weight_map


def _read_shards(folder: Path) -> dict[str, Tensor]:
    weight_map = _weight_map(folder)
    shards = sorted(set(weight_map.values()))
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise FileNotFoundError(f"{folder / INDEX} names {', '.join(missing)}, missing beside it.")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in tensor_file.read(folder / shard).items():
            if weight_map.get(name) != shard:
                said = f"says that it lies in {weight_map[name]}" if name in weight_map else "does not speak of it"
                raise ValueError(f"{folder / shard} holds {name}, but {INDEX} {said}.")
            tensors[name] = tensor
    if lacking := sorted(weight_map.keys() - tensors.keys()):
        raise ValueError(f"{folder / INDEX} says that {lacking[0]} lies in {weight_map[lacking[0]]}, which does not hold it.")
    return tensors
