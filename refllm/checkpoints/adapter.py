"""Folders of PEFT (https://github.com/huggingface/peft) that hold a low-rank adapter, read and written.

adapter_config.json says of which model, and how it is added; adapter_model.safetensors holds, for each adapted module,
base_model.model.<module>.lora_A.weight, (r, in), and lora_B.weight, (out, r): ours, (in, r) and (r, out), transposed.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import Backend, namespace
from refllm.atomic import write_atomically
from refllm.checkpoints import hugging_face, json_file, tensor_file
from refllm.checkpoints.lazy import once
from refllm.checkpoints.names import DTYPE_NAMES
from refllm.checkpoints.tensor_file import Tensor
from refllm.models.model import Model
from refllm.training.config import LoraConfig
from refllm.training.lora import ALL, A, B, adaptable, adapted_weight, adapter_shapes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # what PEFT puts before the names of the model that it wraps
PARTS = {A: ".lora_A.weight", B: ".lora_B.weight"}

# Fields of adapter_config.json that change what an adapter computes, with the values under which it is computed here.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva", None),  # others change the weights adapted, too
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (None,),
    "lora_bias": (False, None),
    "alpha_pattern": ({}, None),
    "layer_replication": ([], None),
    "modules_to_save": ([], None),
    "trainable_token_indices": ({}, [], None),
    "target_parameters": ([], None),
    "alora_invocation_tokens": ([], None),
    "arrow_config": (None,),
    "megatron_config": (None,),
}


def is_adapter(path: str | Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (Path(path) / CONFIG).is_file()


def write(folder: str | Path, base: Model, params: Mapping[str, Any], lora: LoraConfig, name: str) -> None:
    """Write an adapter such that PEFT loads it, and the tokenizer of its model, if that has one.

    base: the model that is adapted    params: every A and B    name: where the model lies, or its name on the Hub
    Raises OSError where the disk refuses; each old file then stays whole.
    """
    folder = Path(folder)
    modules = adaptable(base.architecture, base.config)
    adapted = [ours for ours in modules if ours + A in params]
    tensors = {}
    for ours in adapted:
        for part, ending in PARTS.items():
            x = namespace(params[ours + part]).to_numpy(params[ours + part])
            for module, matrix in zip(modules[ours], x.reshape(-1, *x.shape[-2:]), strict=True):
                tensors[PREFIX + module + ending] = tensor_file.of_array(np.ascontiguousarray(matrix.T))
    names = base.architecture.hugging_face_names(base.config)
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if base.architecture.AUTOREGRESSIVE else None,
        "base_model_name_or_path": name,
        "r": lora.rank,
        "lora_alpha": lora.rank if lora.alpha is None else lora.alpha,
        "use_rslora": lora.rank_stabilised,
        "lora_dropout": 0.0,
        "target_modules": target_modules(modules, adapted),
        "fan_in_fan_out": not names[adapted[0]][1],  # whether the module's matrices are (in, out), as those of GPT-2
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    hugging_face.write_tokenizer(folder, base)
    tensor_file.write(folder / WEIGHTS, tensors, {"format": "pt"})
    write_atomically(folder / CONFIG, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())


def target_modules(modules: Mapping[str, tuple[str, ...]], adapted: list[str]) -> list[str]:
    """PEFT's names for the adapted modules: the last word where that says which they are, else the whole name."""
    ours = {module: name for name, spellings in modules.items() for module in spellings}
    left_out = {last(module) for module, name in ours.items() if name not in adapted}
    wanted = [module for module, name in ours.items() if name in adapted]
    return sorted({module if last(module) in left_out else last(module) for module in wanted})


def last(module: str) -> str:
    """The last word of a module's name."""
    return module.rpartition(".")[2]


def read_model(
    folder: str | Path, backend: str | Backend | None = None, dtype: str | None = None, base: str | Path | None = None
) -> Model:
    """Read an adapter and the model that it adapts, and add the one to the other as parameters are used.

    dtype: of the parameters; None: the adapted model's own    base: where that model lies; None: where the adapter says
    Raises OSError where a file is missing, ValueError where one does not hold what it should.
    """
    from refllm.checkpoints import load  # which reads adapters by this

    folder = Path(folder)
    fields = read_config(folder)
    place = find_base(folder, fields, base)
    model = load(place, backend, dtype)
    tensors = tensor_file.read(folder / WEIGHTS)
    spelled = _by_our_names(tensors, model, str(folder / WEIGHTS))
    _require_targets(fields, model, spelled, folder)
    adapters = {ours: (a, b, _scale(fields, a.shape[-1])) for ours, (a, b) in spelled.items()}
    own = hugging_face.read_tokenizer(folder)
    return Model(model.architecture, model.config, MergedParameters(model.params, adapters), own or model.tokenizer)


class MergedParameters(Mapping[str, Any]):
    """The parameters of a model with adapters added: a matrix is adapted when it is first asked for, and kept.

    params: the model's    adapters: A, B and the scale of each adapted one, NumPy arrays
    """

    def __init__(self, params: Mapping[str, Any], adapters: Mapping[str, tuple[np.ndarray, np.ndarray, float]]):
        self._params = params
        self._adapters = adapters
        self._kept: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._adapters:
            return self._params[name]
        if name not in self._kept:
            weight = once(self._params, name)
            xp = namespace(weight)
            wide = xp.result_type(weight.dtype, xp.float32)
            a, b, scale = self._adapters[name]
            self._kept[name], _ = adapted_weight(weight, xp.from_numpy(a, wide), xp.from_numpy(b, wide), scale)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of adapter_config.json. Raises ValueError for an adapter that is not computed here."""
    fields = json_file.read_object(folder / CONFIG)
    for name, plain in PLAIN.items():
        if fields.get(name, plain[-1]) not in plain:
            raise ValueError(
                f"{folder / CONFIG} has {name}={fields[name]!r}; what is read is plain LoRA, with {name}={plain[0]!r}."
            )
    for name in ("r", "lora_alpha"):
        if type(fields.get(name)) not in (int, float) or not 0 < fields[name] < math.inf:
            raise ValueError(f"{folder / CONFIG} has {name}={fields.get(name)!r}; it must be a number above 0.")
    return fields


def find_base(folder: Path, fields: Mapping[str, Any], given: str | Path | None = None) -> Path:
    """Where the adapted model lies: as given, or as the adapter says, from here or from its own folder."""
    name = fields.get("base_model_name_or_path")
    if given is None and (not isinstance(name, str) or not name):
        raise ValueError(f"{folder / CONFIG} does not say of which model it is an adapter; name it: refllm merge --base MODEL.")
    places = [Path(given)] if given is not None else [Path(str(name)), folder / str(name)]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} is an adapter of {given or name}, which is not here; fetch that and name it: refllm merge --base MODEL."
        )
    if is_adapter(found):
        raise ValueError(f"{folder} is an adapter of {found}, an adapter itself; make a whole model of that first: refllm merge.")
    return found


def _scale(fields: Mapping[str, Any], rank: int) -> float:
    return fields["lora_alpha"] / (math.sqrt(rank) if fields.get("use_rslora") else rank)


def _by_our_names(tensors: Mapping[str, Tensor], model: Model, where: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B of each adapted parameter in our layout, checked to be whole and to fit the model.

    where: the file, for errors
    """
    modules, base = adaptable(model.architecture, model.config), model.architecture.BASE_PREFIX
    prefixed = any(name.startswith(PREFIX + base) for name in tensors)
    left: dict[str, Tensor] = dict(tensors)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for ours, spellings in modules.items():
        stored = [PREFIX + (module if prefixed else module.removeprefix(base)) for module in spellings]
        parts = {part: [name + ending for name in stored] for part, ending in PARTS.items()}
        lacking = [name for names in parts.values() for name in names if name not in left]
        if len(lacking) == len(PARTS) * len(stored):
            continue
        if lacking:
            raise ValueError(f"{where} lacks {lacking[0]}, without which {ours} is adapted in part.")
        a, b = (_matrices([left.pop(name) for name in parts[part]], parts[part][0], where) for part in PARTS)
        found[ours] = a, b
    if left:
        raise ValueError(f"{where} holds {next(iter(left))}, for which {model.config} has no use.")
    if not found:
        raise ValueError(f"{where} holds no adapter of a matrix of this model.")
    for ours, (a, b) in found.items():
        needed = adapter_shapes(model.shapes, (ours,), a.shape[-1])
        if (a.shape, b.shape) != (needed[ours + A], needed[ours + B]):
            raise ValueError(
                f"the adapter of {ours} in {where} is {a.shape} times {b.shape}, but the matrix is {model.shapes[ours]}."
            )
    return found


def _matrices(tensors: list[Tensor], name: str, where: str) -> np.ndarray:
    """Matrices of the file, transposed; several, of one shape, as one array with a new first axis."""
    for tensor in tensors:
        if tensor.dtype not in DTYPE_NAMES or len(tensor.shape) != 2 or tensor.shape != tensors[0].shape:
            raise ValueError(
                f"{name} in {where} is {tensor.dtype} {tensor.shape}; an adapter's are matrices of floating numbers."
            )
    matrices = [np.ascontiguousarray(tensor.values().T) for tensor in tensors]
    return matrices[0] if len(matrices) == 1 else np.stack(matrices)


def _require_targets(fields: Mapping[str, Any], model: Model, found: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError where a module that target_modules lists has no adapter in the file."""
    targets = fields.get("target_modules")
    if not isinstance(targets, list) or fields.get("layers_to_transform") is not None or fields.get("exclude_modules"):
        return  # a pattern, or a choice among layers: the file decides
    modules = adaptable(model.architecture, model.config)
    ends = [f".{target}" for target in targets if target != ALL]
    for ours, spellings in modules.items():
        if ours not in found and any(f".{module}".endswith(end) for module in spellings for end in ends):
            raise ValueError(f"{folder / WEIGHTS} lacks the adapter of {ours}, which target_modules in {CONFIG} lists.")
