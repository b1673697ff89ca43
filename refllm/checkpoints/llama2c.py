"""Checkpoints of llama2.c (https://github.com/karpathy/llama2.c), version 0: seven int32 numbers, then all weights in float32.

The numbers: d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size (negative where the head is not the embedding), positions.
The weights, each kind for all layers: embedding, attention norms, q, k, v, o, feed-forward norms, gate, down, up, final norm,
two tables of rotary angles that nobody needs, and the head where it stands alone. Matrices are (out, in).
llama2.c turns neighbouring features (2i, 2i+1) by an angle, this Llama features (i, i + K/2), so q and k are reordered.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import Backend, load
from refllm.checkpoints.names import floating
from refllm.models import llama
from refllm.models.model import Model


def read_model(path: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a llama2.c checkpoint, without tokenizer.

    dtype: of the parameters, "float32" if None
    Raises ValueError where the file is of another version, truncated or too long.
    """
    path = Path(path)
    with open(path, "rb") as file:
        numbers = struct.unpack("<7i", file.read(28).ljust(28, b"\0"))
    d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size, max_positions = numbers
    if min(d_model, d_ff, n_layers, n_heads, n_kv_heads, max_positions) < 1 or vocab_size == 0 or d_model == 0x616B3432:
        raise ValueError(f"{path} is not a llama2.c checkpoint of version 0; export the model with `--version 0`.")
    config = llama.Config(
        vocab_size=abs(vocab_size),
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_model // n_heads,
        d_ff=d_ff,
        max_positions=max_positions,
        tied=vocab_size > 0,
    )
    L, D, F, V, K = n_layers, d_model, d_ff, config.vocab_size, config.d_head
    kinds = {
        "embedding": (V, D),
        "attention_norm": (L, D),
        "attention.q": (L, n_heads * K, D),
        "attention.k": (L, n_kv_heads * K, D),
        "attention.v": (L, n_kv_heads * K, D),
        "attention.o": (L, D, n_heads * K),
        "ffn_norm": (L, D),
        "ffn.gate": (L, F, D),
        "ffn.down": (L, D, F),
        "ffn.up": (L, F, D),
        "norm": (D,),
        "rotary angles": (2, max_positions, K // 2),
    } | ({} if config.tied else {"lm_head": (V, D)})
    size = 4 * (7 + sum(math.prod(shape) for shape in kinds.values()))
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, but its sizes {config} need {size}; fetch or export it again.")
    weights, position = np.memmap(path, dtype="<f4", mode="r", offset=28), 0
    stored: dict[str, Any] = {}
    for kind, shape in kinds.items():
        stored[kind] = weights[position : position + math.prod(shape)].reshape(shape)
        position += math.prod(shape)
    stored["attention.q"] = halves_from_pairs(stored["attention.q"], n_heads)
    stored["attention.k"] = halves_from_pairs(stored["attention.k"], n_kv_heads)
    xp = load(backend).xp
    wanted = floating(dtype or "float32", xp)
    params = {}
    for name in llama.parameter_shapes(config):
        if name.startswith("layers."):
            _, i, kind = name.split(".", 2)
            values = stored[kind][int(i)].T
        else:
            values = stored[name].T if name == "lm_head" else stored[name]
        params[name] = xp.from_numpy(np.ascontiguousarray(values), wanted)
    return Model(llama, config, params)


def halves_from_pairs(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder each head's rows (..., n_heads·K, D) from pairs a₀ b₀ a₁ b₁ … to halves a₀ a₁ … b₀ b₁ …"""
    *leading, width, D = rows.shape
    pairs = rows.reshape(*leading, n_heads, width // n_heads // 2, 2, D)
    return np.swapaxes(pairs, -2, -3).reshape(rows.shape)
