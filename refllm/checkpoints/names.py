"""Tensors of a checkpoint under our names and in our layout, and the other way round; what does not fit is said.

A checkpoint's matrices are (out, in), ours (in, out); one parameter of ours may be several tensors there, a list of experts.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from refllm.array_api import Backend, namespace
from refllm.checkpoints.lazy import LazyParameters, once
from refllm.checkpoints.tensor_file import DTYPE_NAMES, Tensor, common_dtype
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model

LOOPED = ("num_hidden_layers", "n_layer", "num_local_experts", "num_experts")  # fields that say how many tensors there are


def architecture_of(fields: Mapping[str, Any], where: str) -> ModuleType:
    """The architecture that computes a configuration's model_type. where: the file, for the error."""
    modules = [architecture(name) for name in ARCHITECTURES]
    for module in modules:
        if fields.get("model_type") in module.MODEL_TYPES:
            return module
    known = ", ".join(name for module in modules for name in module.MODEL_TYPES)
    raise ValueError(f"{where} has model_type={fields.get('model_type')!r}; the types that can be read are {known}.")


def read_configuration(fields: Mapping[str, Any], module: ModuleType, n_tensors: int, where: str) -> Any:
    """The architecture's Config that the fields of a config.json describe.

    n_tensors: how many the checkpoint holds, which bounds how many layers and experts it can speak of
    Raises ValueError, which names the file, for a field that is missing, of a wrong type or not computed.
    """
    for name in LOOPED:
        if isinstance(fields.get(name), int) and fields[name] > n_tensors:
            raise ValueError(f"{where} has {name}={fields[name]}, but the checkpoint holds only {n_tensors} tensors.")
    try:
        config = module.from_hugging_face(fields)
    except KeyError as error:
        raise ValueError(f"{where} has no {error}, which a model of type {fields['model_type']!r} needs.") from None
    except ValueError as error:
        said = str(error)
        raise ValueError(
            where + said.removeprefix("config.json") if said.startswith("config.json") else f"{where}: {said}"
        ) from error
    except (TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"{where} does not describe a model of type {fields['model_type']!r}: {error}.") from error
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if not _fits(value := getattr(config, field.name), hints[field.name]):
            raise ValueError(f"{where} gives {field.name} the value {value!r}, a {type(value).__name__}; that cannot be.")
    return config


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of the type that a hint asks for; whole numbers stand for floats, which are finite."""
    if hint in (bool, int, str):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(element, get_args(hint)[0]) for element in value)
    if get_args(hint):
        return any(_fits(value, kind) for kind in get_args(hint))
    return isinstance(value, hint) if isinstance(hint, type) else True


def by_present_names(tensors: Mapping[str, Tensor], module: ModuleType) -> dict[str, Tensor]:
    """The tensors of a checkpoint, those of the names that old ones gave them under the present names (module.OLD_NAMES)."""

    def present(name: str) -> str:
        for old, new in getattr(module, "OLD_NAMES", ()):
            name = re.sub(old, new, name)
        return name

    renamed = {present(name): tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        twice = next(name for name in tensors if name != present(name) and present(name) in tensors)
        raise ValueError(f"the checkpoint holds both {twice} and {present(twice)}, which are names of one tensor.")
    return renamed


def by_our_names(tensors: Mapping[str, Tensor], module: ModuleType, config: Any, where: str) -> dict[str, Tensor]:
    """The tensors under our names and as (in, out), checked to be exactly those that the configuration needs.

    where: the file, for errors
    Raises ValueError where a tensor is missing, unexpected, of another shape, or not of floating numbers.
    """
    shapes, prefix = module.parameter_shapes(config), module.BASE_PREFIX
    prefixed = any(name.startswith(prefix) for name in tensors)
    found, missing, known = {}, [], set()

    def stored_name(name: str) -> str:
        bare = name.removeprefix(prefix)
        return next((n for n in (name, bare, prefix + name) if n in tensors), name if prefixed else bare)

    for ours, (theirs, transposed) in module.hugging_face_names(config).items():
        whole = isinstance(theirs, str)
        stored = [stored_name(name) for name in ((theirs,) if whole else theirs)]
        known.update(stored)
        if lacking := [name for name in stored if name not in tensors]:
            missing += lacking
            continue
        parts = [transpose(tensors[name]) if transposed else tensors[name] for name in stored]
        found[ours] = parts[0] if whole else stack(parts, ours)
    if missing:
        raise ValueError(f"{where} lacks {_few(missing)}, which {config} needs.")
    buffers = (*module.BUFFERS, *((r"lm_head\.weight",) if "lm_head" not in shapes else ()))
    unexpected = [n for n in tensors if n not in known and not any(re.fullmatch(b, n) for b in buffers)]
    if unexpected:
        raise ValueError(f"{where} holds {_few(unexpected)}, for which {config} has no use.")
    if "lm_head" not in shapes and "lm_head.weight" in tensors:
        _check_tied(tensors["lm_head.weight"], found["embedding"], where)
    for name, tensor in found.items():
        if tensor.dtype not in DTYPE_NAMES:
            raise ValueError(f"{name} is stored in {tensor.dtype} in {where}; {', '.join(DTYPE_NAMES)} can be read.")
        if tensor.shape != shapes[name]:
            raise ValueError(
                f"{name} is {tensor.shape} in {where}, but Config({_responsible(module, config, name, tensor.shape)}) "
                f"needs {shapes[name]}."
            )
    return found


def _check_tied(head: Tensor, embedding: Tensor, where: str) -> None:
    """Raise ValueError where a head that is to be the embedding is stored and is another; eight rows are compared."""
    same = head[:2] == embedding[:2]
    if same and head.shape[0]:
        step = -(-head.shape[0] // 8)
        same = np.array_equal(head.values()[::step], embedding.values()[::step], equal_nan=True)
    if not same:
        raise ValueError(f"{where} holds a lm_head.weight that is not the embedding, but the configuration ties the two.")


def by_their_names(model: Model, dtype: str) -> dict[str, Tensor]:
    """The model's parameters as tensors to be written: under Hugging Face's names, in its layout, in a dtype.

    They are read one at a time: of a model that lies in a file, memory holds only the one that is being written.
    """
    code = next(code for code, name in DTYPE_NAMES.items() if name == dtype)
    to_numpy = namespace(once(model.params, "embedding")).to_numpy
    recent: dict[str, Any] = {}  # the parameter read last: experts of one are written one after the other

    def reading(name: str, *index: int) -> Callable[[], np.ndarray]:
        def values() -> np.ndarray:
            if name not in recent:
                recent.clear()
                recent[name] = once(model.params, name)
            x = recent[name]
            return to_numpy(x[(*index, ...)] if index else x)

        return values

    tensors: dict[str, Tensor] = {}
    shapes = model.shapes
    for ours, (theirs, transposed) in model.architecture.hugging_face_names(model.config).items():
        shape = shapes[ours]
        if isinstance(theirs, str):
            parts = {theirs: Tensor(code, shape, reading(ours))}
        else:
            parts = {name: Tensor(code, shape[1:], reading(ours, i)) for i, name in enumerate(theirs)}
        tensors |= {name: transpose(part) if transposed else part for name, part in parts.items()}
    return tensors


def parameters(tensors: Mapping[str, Tensor], backend: Backend, dtype: str | None) -> LazyParameters:
    """The tensors of a file as a model's parameters, none of them read yet.

    dtype: of the parameters; None: that of the file where the backend computes in it, else float32
    """
    own = common_dtype(tensors)
    return LazyParameters(tensors, backend, floating(dtype or (own if own in backend.xp.dtypes() else "float32"), backend.xp))


def floating(name: str, xp: Any) -> Any:
    """The backend's floating dtype of that name."""
    if name not in xp.dtypes() or name not in DTYPE_NAMES.values():
        known = ", ".join(sorted(xp.dtypes() & set(DTYPE_NAMES.values())))
        raise ValueError(f"dtype={name!r} cannot be had on {xp.__name__}; it computes in {known}.")
    return getattr(xp, name)


def dtype_name(x: Any) -> str:
    """The name of an array's dtype, in any backend."""
    return str(x.dtype).rpartition(".")[-1]


def transpose(tensor: Tensor) -> Tensor:
    """The same tensor, its axes the other way round: a view of it."""
    return Tensor(tensor.dtype, tensor.shape[::-1], lambda: tensor.values().T)


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
