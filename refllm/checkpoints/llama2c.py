"""Checkpoints of llama2.c (https://github.com/karpathy/llama2.c, export.py): versions 0, 1 and 2 read, version 0 written.

Seven int32 numbers say d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size and positions.

    0    the numbers, a negative vocab_size where the head is not the embedding, and float32 weights: embedding, attention norms,
         q, k, v, o, feed-forward norms, gate, down, up, final norm, two tables of rotary angles that nobody needs, and the head
    1    "ak42" as uint32, the version, the numbers, one byte that says whether the head is the embedding, zeros up to byte 256,
         and float32 weights: attention norms, feed-forward norms, final norm, embedding, q, k, v, o, gate, down, up and the head
    2    the same, and behind that byte the int32 n, the size of a group; the norms as before, and then each matrix by itself
         as int8 numbers and a float32 scale for every n of them, whose product they are

Each kind stands there for all layers, and head only where it is not the embedding. Matrices are (out, in).
llama2.c turns neighbouring features (2i, 2i+1) by an angle, this Llama features (i, i + K/2), so q and k are reordered.
"""

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from refllm.array_api import Backend, load, namespace
from refllm.atomic import replacing
from refllm.checkpoints.lazy import once
from refllm.checkpoints.names import parameters
from refllm.checkpoints.tensor_file import Tensor
from refllm.layers.rope import rope_frequencies
from refllm.models import llama
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer

MAGIC, HEADER = 0x616B3432, 256  # "ak42", and how many bytes stand before the weights of versions 1 and 2
NORMS, BODY = ("attention_norm", "ffn_norm", "norm"), ("attention.q", "attention.k", "attention.v", "attention.o")
FFN = ("ffn.gate", "ffn.down", "ffn.up")  # w1, w2, w3
ORDER_0 = ("embedding", "attention_norm", *BODY, "ffn_norm", *FFN, "norm", "rotary angles", "lm_head")
ORDER_1 = (*NORMS, "embedding", *BODY, *FFN, "lm_head")
CHECKED = 64  # scales of a file of version 2 that are looked at when it is opened


def read_model(path: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a llama2.c checkpoint, and the tokenizer.bin beside it. Parameters are read from the file when they are used.

    dtype: of the parameters, "float32" if None
    Raises ValueError where the file is of another kind, truncated or too long.
    """
    path, computing = Path(path), load(backend)
    with open(path, "rb") as file:
        head = file.read(HEADER).ljust(HEADER, b"\0")
    magic, version = struct.unpack_from("<Ii", head)
    if magic != MAGIC:
        version, start, group = 0, 28, 0
        numbers = struct.unpack_from("<7i", head)
        tied, numbers = numbers[5] > 0, (*numbers[:5], abs(numbers[5]), numbers[6])
    else:
        start, (group,) = HEADER, struct.unpack_from("<i", head, 37)
        numbers, tied = struct.unpack_from("<7i", head, 8), bool(head[36])
    if version not in (0, 1, 2):
        raise ValueError(f"{path} is a llama2.c checkpoint of version {version}; versions 0, 1 and 2 can be read.")
    config = _config(path, numbers, tied)
    size = start + (_floats(config, version) * 4 if version < 2 else _quantised_size(path, config, group))
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, but its sizes {config} need {size}; fetch or export it again.")
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", offset=start))
    rows = dict(_plain(data, config, version) if version < 2 else _quantised(path, data, config, group))
    tensors = {name: _ours(name, rows[name], config) for name in llama.parameter_shapes(config)}
    return Model(llama, config, parameters(tensors, computing, dtype), _tokenizer(path.with_name("tokenizer.bin"), config))


def write_model(path: str | Path, model: Model, told: Callable[[int], None] = lambda n: None) -> None:
    """Write a model as a checkpoint of version 0, in float32, without its tokenizer.

    told: hears how many bytes each tensor had
    Raises ValueError for a model that llama2.c does not compute, OSError where the disk refuses; the old file then stays whole.
    """
    c = model.config
    kept = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "max_positions", "tied")
    plain = model.architecture is llama and llama.Config(
        **{name: getattr(c, name) for name in kept}, d_head=c.d_model // c.n_heads
    )
    if c != plain:
        raise ValueError(
            f"llama2.c has no model like {c}: it computes a Llama with rope_theta=10000.0, norm_eps=1e-05 and "
            "d_head = d_model / n_heads, without biases, query and key norms, windows and scaled rotary positions."
        )
    head = struct.pack(
        "<7i", c.d_model, c.d_ff, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size * (1 if c.tied else -1), c.max_positions
    )
    to_numpy = namespace(once(model.params, "embedding")).to_numpy
    with replacing(path) as file:
        file.write(head)
        for kind, shape in _kinds(c, 0).items():
            for name in _names(kind, c):
                if kind == "rotary angles":
                    angles = np.outer(np.arange(c.max_positions), rope_frequencies(c.d_head, c.rope_theta))
                    values = np.stack((np.cos(angles), np.sin(angles)))
                else:
                    values = _theirs(kind, to_numpy(once(model.params, name)), c)
                file.write(np.ascontiguousarray(values, dtype="<f4").data.cast("B"))
                told(4 * math.prod(shape))


def _tokenizer(path: Path, config: llama.Config) -> Tokenizer | None:
    """The tokenizer in a file; None where there is no file, or, with a warning, one that is not this model's."""
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.load(path)
        if tokenizer.vocab_size != config.vocab_size:
            raise ValueError(f"{path} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}.")
    except ValueError as error:
        warnings.warn(f"the model is loaded without its tokenizer: {error}", stacklevel=4)
        return None
    return tokenizer


def _config(path: Path, numbers: tuple[int, ...], tied: bool) -> llama.Config:
    d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size, max_positions = numbers
    if min(numbers) < 1 or d_model % n_heads:
        raise ValueError(f"{path} is not a llama2.c checkpoint: its first numbers, {numbers}, are no sizes of a model.")
    try:
        return llama.Config(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            d_head=d_model // n_heads,
            d_ff=d_ff,
            max_positions=max_positions,
            tied=tied,
        )
    except ValueError as error:
        raise ValueError(f"{path} is not a llama2.c checkpoint: {error}") from None


def _kinds(config: llama.Config, version: int) -> dict[str, tuple[int, ...]]:
    """The kinds of weights in the order of the file, and the shape of one of each, (out, in)."""
    shapes = llama.block_shapes(config) | {
        "embedding": (config.d_model, config.vocab_size),
        "norm": (config.d_model,),
        "rotary angles": (config.d_head // 2, config.max_positions, 2),
        "lm_head": (config.d_model, config.vocab_size),
    }
    order = ORDER_0 if version == 0 else ORDER_1
    return {kind: shapes[kind][::-1] for kind in order if not (kind == "lm_head" and config.tied)}


def _names(kind: str, config: llama.Config) -> list[str]:
    """Our names of all weights of a kind, in the order of the file."""
    return [f"layers.{i}.{kind}" for i in range(config.n_layers)] if kind in llama.block_shapes(config) else [kind]


def _count(kind: str, config: llama.Config) -> int:
    return config.n_layers if kind in llama.block_shapes(config) else 1


def _floats(config: llama.Config, version: int) -> int:
    return sum(_count(kind, config) * math.prod(shape) for kind, shape in _kinds(config, version).items())


def _plain(data: np.ndarray, config: llama.Config, version: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Each weight of versions 0 and 1 by our name, in the file's layout: a view of it."""
    place, numbers = 0, data.view("<f4")
    for kind, shape in _kinds(config, version).items():
        for name in _names(kind, config):
            begin, place = place, place + math.prod(shape)
            yield name, partial(numbers[begin:place].reshape, shape)


def _quantised_size(path: Path, config: llama.Config, group: int) -> int:
    """How many bytes the weights of version 2 take."""
    size = 0
    for kind, shape in _kinds(config, 2).items():
        n = math.prod(shape)
        if kind not in NORMS and (group < 1 or n % group):
            raise ValueError(f"{path} has groups of {group} numbers, into which {kind} of shape {shape} cannot be cut.")
        size += _count(kind, config) * (4 * n if kind in NORMS else n + 4 * (n // group))
    return size


def _quantised(path: Path, data: np.ndarray, config: llama.Config, group: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Each weight of version 2 by our name, in the file's layout, as float32."""
    place = 0
    for kind, shape in _kinds(config, 2).items():
        n = math.prod(shape)
        for name in _names(kind, config):
            if kind in NORMS:
                begin, place = place, place + 4 * n
                yield name, partial(data[begin:place].view, "<f4")
                continue
            numbers, place = data[place : place + n].view(np.int8).reshape(-1, group), place + n
            scales, place = data[place : place + 4 * (n // group)], place + 4 * (n // group)
            if kind == "embedding" and not np.all(np.isfinite(few := np.frombuffer(scales, "<f4")[:CHECKED]) & (few >= 0)):
                raise ValueError(
                    f"{path} has no scales where they should lie: an early export.py of llama2.c wrote them all at the end. "
                    "Export it again."
                )
            yield name, partial(_dequantised, numbers, scales, shape)


def _dequantised(numbers: np.ndarray, scales: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """numbers: (n, group) int8    scales: (4·n,) bytes of float32, which need not lie aligned"""
    return (numbers * np.frombuffer(scales, "<f4")[:, None]).reshape(shape)


def _ours(name: str, rows: Callable[[], np.ndarray], config: llama.Config) -> Tensor:
    """A parameter in our layout. rows: reads it as it lies in the file"""
    kind, shape = name.rpartition("layers.")[2].partition(".")[2] or name, llama.parameter_shapes(config)[name]

    def values() -> np.ndarray:
        if kind in ("attention.q", "attention.k"):
            return halves_from_pairs(rows(), shape[1] // config.d_head).T
        return rows() if kind == "embedding" else rows().T

    return Tensor("F32", shape, values)


def _theirs(kind: str, values: np.ndarray, config: llama.Config) -> np.ndarray:
    """A parameter in llama2.c's layout."""
    if kind in ("attention.q", "attention.k"):
        return pairs_from_halves(values.T, values.shape[1] // config.d_head)
    return values if kind == "embedding" else values.T


def halves_from_pairs(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder each head's rows (..., n_heads·K, D) from pairs a₀ b₀ a₁ b₁ … to halves a₀ a₁ … b₀ b₁ …"""
    *leading, width, D = rows.shape
    pairs = rows.reshape(*leading, n_heads, width // n_heads // 2, 2, D)
    return np.swapaxes(pairs, -2, -3).reshape(rows.shape)


def pairs_from_halves(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder each head's rows (..., n_heads·K, D) from halves a₀ a₁ … b₀ b₁ … to pairs a₀ b₀ a₁ b₁ …"""
    *leading, width, D = rows.shape
    halves = rows.reshape(*leading, n_heads, 2, width // n_heads // 2, D)
    return np.swapaxes(halves, -2, -3).reshape(rows.shape)
