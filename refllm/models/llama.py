"""Llama (Touvron 2023, arXiv:2302.13971): a pre-norm decoder with RMSNorm, RoPE, grouped-query attention and SwiGLU.

    x ← x + attention(norm(x))          x ← x + swiglu(norm(x))          logits = norm(x) · head

Llama 1, 2 and 3 are configurations of it (Llama 3.1 scales the rotary frequencies, 3.2 ties the head to the embedding). So are
Mistral 7B (Jiang 2023, arXiv:2310.06825), whose queries see a sliding window only; Qwen 2 (Yang 2024, arXiv:2407.10671), which
adds biases to queries, keys and values; and Qwen 3 (Yang 2025, arXiv:2505.09388), which normalises every head's queries and keys.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.array_api import namespace, op
from refllm.layers.attention import attention_backward
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.kv_cache import KVCache
from refllm.layers.linear import affine, affine_backward, linear, linear_backward
from refllm.layers.rms_norm import rms_norm, rms_norm_backward
from refllm.layers.rope import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
    rope,
    rope_amplitude,
    rope_angles,
    rope_backward,
    rope_frequencies,
)
from refllm.layers.swiglu import silu, silu_backward, swiglu, swiglu_backward
from refllm.models.heads import merge_heads, split_heads
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, advance, attend, last_positions, last_positions_backward, place

AUTOREGRESSIVE = True  # whether a position's logits are of the token after it, and see none after it


@dataclass(frozen=True)
class Config:
    """The sizes of a Llama."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # H, query heads
    n_kv_heads: int  # G, key/value heads; divides H
    d_head: int  # K, the width of one head; even
    d_ff: int  # F
    max_positions: int  # the longest sequence it is meant for
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = False  # whether the head is the embedding, transposed
    window: int | None = None  # how many positions a query sees, its own included; None: all before it
    full_layers: tuple[int, ...] = ()  # the layers whose queries see all positions in spite of the window
    qkv_bias: bool = False  # whether queries, keys and values have biases (Qwen 2)
    o_bias: bool = False  # whether the heads' answers have one
    ffn_bias: bool = False  # whether the three matrices of the feed-forward have them
    qk_norm: bool = False  # whether each head's queries and keys are normalised (Qwen 3)
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} query heads cannot share n_kv_heads={self.n_kv_heads}; it must divide them."
            )
        if self.d_head % 2:
            raise ValueError(f"d_head={self.d_head} is odd; rotary positions turn pairs of features, so make it even.")
        if self.full_layers and (self.window is None or not set(self.full_layers) <= set(range(self.n_layers))):
            raise ValueError(f"full_layers={self.full_layers} needs a window, and layers from 0 to {self.n_layers - 1}.")


QKV, FFN = ("attention.q", "attention.k", "attention.v"), ("ffn.gate", "ffn.up", "ffn.down")


def block_shapes(config: Config) -> Shapes:
    """The name and shape of every parameter of one block."""
    D, F, K = config.d_model, config.d_ff, config.d_head
    shapes: Shapes = {
        "attention_norm": (D,),
        "attention.q": (D, config.n_heads * K),
        "attention.k": (D, config.n_kv_heads * K),
        "attention.v": (D, config.n_kv_heads * K),
        "attention.o": (config.n_heads * K, D),
        "ffn_norm": (D,),
        "ffn.gate": (D, F),
        "ffn.up": (D, F),
        "ffn.down": (F, D),
    }
    biased = QKV * config.qkv_bias + ("attention.o",) * config.o_bias + FFN * config.ffn_bias
    shapes |= {f"{name}_bias": (shapes[name][-1],) for name in biased}
    return shapes | ({"attention.q_norm": (K,), "attention.k_norm": (K,)} if config.qk_norm else {})


def parameter_shapes(config: Config) -> Shapes:
    """Every parameter's name and shape, in reading order."""
    V, D = config.vocab_size, config.d_model
    shapes: Shapes = {"embedding": (V, D)}
    for i in range(config.n_layers):
        shapes |= under(f"layers.{i}.", block_shapes(config))
    shapes["norm"] = (D,)
    return shapes if config.tied else shapes | {"lm_head": (D, V)}


def initialise(config: Config, seed: int) -> dict[str, Any]:
    """First values of every parameter, float32 NumPy arrays."""
    residual = ("attention.o", "ffn.down")
    return initial_values(parameter_shapes(config), seed, gains=("norm",), residual=residual, n_layers=config.n_layers)


def forward(
    params: Mapping[str, Any],
    tokens,
    config: Config,
    cache: KVCache | None = None,
    *,
    valid=None,
    last: int | None = None,
    dropout: Dropout | None = None,
    checkpointing: bool = False,
) -> Output:
    """Logits of the token after each position, for training (no cache), prefill and decoding (with one).

    tokens: (B, T) integers 0 … V−1, which continue the cache    valid: (B, T) bool or None, False for padding at the left
    last: logits of the last so many positions only    dropout: after the embedding, attention and feed-forward
    checkpointing: keep each block's input instead of its intermediates; backward computes them again
    Returns logits (B, T, V) or (B, last, V), the extended cache, and what the backward pass needs.
    Raises ValueError for tokens that are not (B, T) or do not fit max_positions or the cache.
    """
    positions, mask, cache = place(tokens, cache, valid, config.window, config.max_positions)
    angles = angles_at(positions, config, params["embedding"].dtype)
    x, embedded = embedding(tokens, params["embedding"])
    x, dropped = drop(x, dropout, "embedding")
    blocks = []
    if cache is not None:
        x, cache = llama_blocks(x, params, config, angles, mask, cache, dropout)
    else:
        for i in range(config.n_layers):
            given = (x, of_layer(params, config, i), config, angles, mask, None, i, dropout)
            x, _, saved = block(*given)
            blocks.append(given if checkpointing else saved)
            del saved  # where nobody keeps it, the next block need not find room beside it
    x, asked = last_positions(x, last)
    x, normed = rms_norm(x, params["norm"], config.norm_eps)
    logits, headed = linear(x, head(params, config))
    saved = None if cache is not None else (embedded, dropped, blocks, checkpointing, asked, normed, headed, config)
    return Output(logits, advance(cache, tokens.shape[1]), saved, features=x)


def backward(dlogits, saved) -> dict[str, Any]:
    """The gradient of every parameter, by its name, given dlogits of logits' shape. Forward, read upwards."""
    embedded, dropped, blocks, checkpointing, asked, normed, headed, config = saved
    grads = {}
    dx, dhead = linear_backward(dlogits, headed)
    dx, grads["norm"] = rms_norm_backward(dx, normed)
    dx = last_positions_backward(dx, asked)
    for i in reversed(range(len(blocks))):
        block_saved = block(*blocks[i])[-1] if checkpointing else blocks[i]
        dx, dblock = block_backward(dx, block_saved)
        grads |= under(f"layers.{i}.", dblock)
    dx = drop_backward(dx, dropped)
    grads["embedding"] = embedding_backward(dx, embedded)
    if config.tied:
        grads["embedding"] = grads["embedding"] + namespace(dhead).matrix_transpose(dhead)  # the table serves twice
    else:
        grads["lm_head"] = dhead
    return grads


@op
def llama_blocks(x, params, config, angles, mask, cache, dropout=None):
    """All layers, in prefill and decoding. It has no backward, since these never go back.

    x: (B, T, D)    params: of the whole model    angles: see `angles_at`    mask: Mask    cache: KVCache
    Returns (B, T, D), and the cache with every layer's keys and values of x.
    """
    for i in range(config.n_layers):
        x, cache, _ = block(x, of_layer(params, config, i), config, angles, mask, cache, i, dropout)
        del _  # the next block need not find room beside what a backward pass would need
    return x, cache


def of_layer(params: Mapping[str, Any], config: Config, i: int) -> dict[str, Any]:
    """The parameters of block i, under their short names."""
    return within(params, f"layers.{i}.", block_shapes(config))


def block(x, p, config: Config, angles, mask, cache, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D), the cache, and what backward needs."""
    h, norm1 = rms_norm(x, p["attention_norm"], config.norm_eps)
    h, cache, attended = self_attention(h, p, config, angles, mask, cache, i)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x = x + h
    h, norm2 = rms_norm(x, p["ffn_norm"], config.norm_eps)
    h, ffn = feed_forward(h, p, config)
    h, drop2 = drop(h, dropout, f"layers.{i}.ffn")
    return x + h, cache, (norm1, attended, drop1, norm2, ffn, drop2)


def block_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes dy on unchanged."""
    norm1, attended, drop1, norm2, ffn, drop2 = saved
    dh = drop_backward(dy, drop2)
    dh, grads = feed_forward_backward(dh, ffn)
    dh, grads["ffn_norm"] = rms_norm_backward(dh, norm2)
    dx = dy + dh
    dh = drop_backward(dx, drop1)
    dh, dattention = self_attention_backward(dh, attended)
    dh, grads["attention_norm"] = rms_norm_backward(dh, norm1)
    return dx + dh, grads | dattention


def self_attention(x, p, config: Config, angles, mask, cache, i: int):
    """x: (B, T, D) -> (B, T, D), the cache with the keys and values of x, and what backward needs."""
    q, q_saved = project(x, p, "attention.q")
    k, k_saved = project(x, p, "attention.k")
    v, v_saved = project(x, p, "attention.v")
    q, q_normed = head_norm(split_heads(q, config.n_heads), p, "attention.q_norm", config)  # (B, H, T, K)
    k, k_normed = head_norm(split_heads(k, config.n_kv_heads), p, "attention.k_norm", config)  # (B, G, T, K)
    q, q_turned = rope(q, *angles)
    k, k_turned = rope(k, *angles)
    v = split_heads(v, config.n_kv_heads)
    seen = mask._replace(window=None) if i in config.full_layers else mask
    y, cache, attended = attend(q, k, v, seen, config.d_head**-0.5, cache, i)
    out, o_saved = project(merge_heads(y), p, "attention.o")
    return out, cache, (q_saved, k_saved, v_saved, q_normed, k_normed, q_turned, k_turned, attended, o_saved, config)


def self_attention_backward(dout, saved):
    """Return dx: (B, T, D) and the gradients of q, k, v and o."""
    q_saved, k_saved, v_saved, q_normed, k_normed, q_turned, k_turned, attended, o_saved, config = saved
    dy, grads = project_backward(dout, o_saved, "attention.o")
    dq, dk, dv = attention_backward(split_heads(dy, config.n_heads), attended)
    dq, dq_norm = head_norm_backward(rope_backward(dq, q_turned), q_normed, "attention.q_norm")
    dk, dk_norm = head_norm_backward(rope_backward(dk, k_turned), k_normed, "attention.k_norm")
    dxq, dq = project_backward(merge_heads(dq), q_saved, "attention.q")
    dxk, dk = project_backward(merge_heads(dk), k_saved, "attention.k")
    dxv, dv = project_backward(merge_heads(dv), v_saved, "attention.v")
    return dxq + dxk + dxv, grads | dq | dk | dv | dq_norm | dk_norm


def head_norm(x, p, name: str, config: Config):
    """x: (B, n, T, K) with each head at unit root-mean-square times a gain that all heads share, or x where there is none."""
    return rms_norm(x, p[name], config.norm_eps) if config.qk_norm else (x, None)


def head_norm_backward(dy, saved, name: str):
    """Return dx: (B, n, T, K) and the gradient of the gain, by its name."""
    if saved is None:
        return dy, {}
    dx, dgain = rms_norm_backward(dy, saved)
    return dx, {name: dgain}


def feed_forward(x, p, config: Config):
    """x: (B, T, D) -> (B, T, D) and what backward needs. With biases it is put together from its parts."""
    if not config.ffn_bias:
        y, saved = swiglu(x, p["ffn.gate"], p["ffn.up"], p["ffn.down"])
        return y, (config, saved)
    a, gate_saved = project(x, p, "ffn.gate")
    b, up_saved = project(x, p, "ffn.up")
    s, silu_saved = silu(a)
    y, down_saved = project(s * b, p, "ffn.down")
    return y, (config, (gate_saved, up_saved, silu_saved, s, b, down_saved))


def feed_forward_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of gate, up and down."""
    config, saved = saved
    if not config.ffn_bias:
        dx, *dffn = swiglu_backward(dy, saved)
        return dx, dict(zip(FFN, dffn, strict=True))
    gate_saved, up_saved, silu_saved, s, b, down_saved = saved
    dh, grads = project_backward(dy, down_saved, "ffn.down")
    dx_gate, dgate = project_backward(silu_backward(dh * b, silu_saved), gate_saved, "ffn.gate")
    dx_up, dup = project_backward(dh * s, up_saved, "ffn.up")
    return dx_gate + dx_up, grads | dgate | dup


def project(x, p, name: str):
    """x: (..., D) times the matrix of that name, plus its bias where it has one, and what backward needs."""
    bias = p.get(f"{name}_bias")
    y, saved = linear(x, p[name]) if bias is None else affine(x, p[name], bias)
    return y, (bias is not None, saved)


def project_backward(dy, saved, name: str):
    """Return dx: (..., D) and the gradients of the matrix and its bias, by their names."""
    biased, saved = saved
    if not biased:
        dx, dweight = linear_backward(dy, saved)
        return dx, {name: dweight}
    dx, dweight, dbias = affine_backward(dy, saved)
    return dx, {name: dweight, f"{name}_bias": dbias}


def angles_at(positions, config: Config, dtype):
    """cos and sin of every position's rotary angles: (T, K/2), or (B, 1, T, K/2) for positions (B, T)."""
    frequencies = rope_frequencies(config.d_head, config.rope_theta, config.rope_scaling)
    cos, sin = rope_angles(positions, frequencies, dtype, rope_amplitude(config.rope_scaling))
    if positions.ndim == 1:
        return cos, sin
    xp = namespace(cos)
    return xp.expand_dims(cos, axis=1), xp.expand_dims(sin, axis=1)  # every head turns alike


def head(params: Mapping[str, Any], config: Config):
    """The matrix (D, V) from features to logits."""
    return namespace(params["embedding"]).matrix_transpose(params["embedding"]) if config.tied else params["lm_head"]


MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")  # of config.json
BASE_PREFIX = "model."  # of tensor names; a file saved without the head lacks it
BUFFERS = (r".*\.rotary_emb\.inv_freq",)  # tensors of old files that nobody learns


def hugging_face_type(config: Config) -> str:
    """The model_type whose code in transformers computes a configuration. Raises ValueError where none does."""
    c = config
    kinds = {
        "llama": c.window is None and not c.qk_norm and c.qkv_bias == c.o_bias,
        "mistral": not (c.full_layers or c.qkv_bias or c.o_bias or c.ffn_bias or c.qk_norm),
        "qwen2": c.qkv_bias and not (c.o_bias or c.ffn_bias or c.qk_norm),
        "qwen3": c.qk_norm and c.qkv_bias == c.o_bias and not c.ffn_bias,
    }
    fitting = next((kind for kind, fits in kinds.items() if fits), None)
    if fitting is None:
        raise ValueError(
            f"transformers has no model with the biases, norms and windows of {config}; it cannot be written for it."
        )
    return fitting


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields, in the spellings of transformers 4 and 5 both."""
    kind = hugging_face_type(config)
    scaling = scaling_fields(config.rope_scaling)
    fields = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": config.o_bias,
        "mlp_bias": config.ffn_bias,
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta} | (scaling or {}),
    }
    if kind == "mistral":
        fields["sliding_window"] = config.window
    elif kind != "llama":
        windowed = [config.window is not None and i not in config.full_layers for i in range(config.n_layers)]
        fields["use_sliding_window"] = config.window is not None
        fields["sliding_window"] = config.window
        fields["max_window_layers"] = windowed.index(True) if True in windowed else config.n_layers
        fields["layer_types"] = ["sliding_attention" if w else "full_attention" for w in windowed]
    return fields


def scaling_fields(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The fields of rope_scaling."""
    if scaling is None:
        return None
    fields = {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, Llama3Scaling):
        fields["low_freq_factor"] = scaling.low_freq_factor
        fields["high_freq_factor"] = scaling.high_freq_factor
        fields["original_max_position_embeddings"] = scaling.original_max_position
    elif isinstance(scaling, YarnScaling):
        fields["original_max_position_embeddings"] = scaling.original_max_position
        fields["beta_fast"], fields["beta_slow"] = scaling.fast_turns, scaling.slow_turns
        fields["attention_factor"], fields["truncate"] = scaling.amplitude, scaling.whole
    return fields


def read_scaling(fields: Mapping[str, Any], max_positions: int) -> RopeScaling | None:
    """The scaling that rope_scaling or rope_parameters describes. Raises ValueError for a kind that is not computed here."""
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(float(fields["factor"]))
    if kind == "llama3":
        original = fields["original_max_position_embeddings"]
        return Llama3Scaling(fields["factor"], fields["low_freq_factor"], fields["high_freq_factor"], original)
    if kind != "yarn":
        raise ValueError(
            f"config.json has rope_type={kind!r}; rotary positions are plain here, or scaled as linear, llama3 or yarn."
        )
    original = fields.get("original_max_position_embeddings") or max_positions
    factor = fields.get("factor") or max_positions / original
    amplitude = fields.get("attention_factor")
    if amplitude is None:
        over, under = fields.get("mscale") or 0, fields.get("mscale_all_dim") or 0
        amplitude = yarn_amplitude(factor, over) / yarn_amplitude(factor, under) if over and under else yarn_amplitude(factor, 1)
    fast, slow = float(fields.get("beta_fast") or 32), float(fields.get("beta_slow") or 1)
    return YarnScaling(float(factor), original, fast, slow, float(amplitude), fields.get("truncate", True))


def yarn_amplitude(factor: float, weight: float) -> float:
    """YaRN's amplitude for a context longer by a factor (arXiv:2309.00071, equation 22)."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields in either spelling; those left out have transformers' defaults.

    Raises ValueError for a variant of Llama that this file does not compute.
    """
    kind = fields["model_type"]
    rope_fields = {**(fields.get("rope_scaling") or {}), **(fields.get("rope_parameters") or {})}
    partial = rope_fields.get("partial_rotary_factor", fields.get("partial_rotary_factor") or 1)
    computed = {
        f"hidden_act={fields.get('hidden_act')!r}": fields.get("hidden_act", "silu") == "silu",
        f"partial_rotary_factor={partial}": partial == 1,
    }
    if unknown := [setting for setting, known in computed.items() if not known]:
        raise ValueError(f"config.json has {', '.join(unknown)}; this Llama has SiLU, and rotary positions over the whole head.")
    n_heads, n_layers = fields["num_attention_heads"], fields["num_hidden_layers"]
    max_positions = fields.get("max_position_embeddings", DEFAULTS[kind]["max_position_embeddings"])
    biased = bool(fields.get("attention_bias")) and kind in ("llama", "qwen3")
    window, full_layers = read_windows(fields)
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=fields.get("num_key_value_heads", DEFAULTS[kind]["num_key_value_heads"]) or n_heads,
        d_head=fields.get("head_dim") or DEFAULTS[kind].get("head_dim") or fields["hidden_size"] // n_heads,
        d_ff=fields["intermediate_size"],
        max_positions=max_positions,
        rope_theta=float(rope_fields.get("rope_theta", fields.get("rope_theta", 10_000.0))),
        norm_eps=fields.get("rms_norm_eps", 1e-6),
        tied=fields.get("tie_word_embeddings", False),
        window=window,
        full_layers=full_layers,
        qkv_bias=biased or kind == "qwen2",
        o_bias=biased,
        ffn_bias=bool(fields.get("mlp_bias")) and kind == "llama",
        qk_norm=kind == "qwen3",
        rope_scaling=read_scaling(rope_fields, max_positions),
    )


# transformers' own, where config.json leaves a field out
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "num_key_value_heads": None},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
}


def read_windows(fields: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """The window, and the layers that see everything in spite of it."""
    kind, n_layers = fields["model_type"], fields["num_hidden_layers"]
    if kind == "mistral":
        return fields.get("sliding_window", 4096), ()
    if kind == "llama" or not fields.get("use_sliding_window"):
        return None, ()
    window = fields.get("sliding_window", 4096)
    full = list(range(min(fields.get("max_window_layers", 28), n_layers)))
    if types := fields.get("layer_types"):
        full = [i for i, layer_type in enumerate(types) if layer_type == "full_attention"]
    return (None, ()) if window is None or len(full) == n_layers else (window, tuple(full))


def hugging_face_names(config: Config) -> dict[str, tuple[str, bool]]:
    """Each parameter's name in model.safetensors, and whether it lies there transposed, as (out, in)."""
    parts = {
        "attention_norm": "input_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.o": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn.gate": "mlp.gate_proj",
        "ffn.up": "mlp.up_proj",
        "ffn.down": "mlp.down_proj",
    }
    names = {"embedding": ("model.embed_tokens.weight", False)}
    for i in range(config.n_layers):
        for ours, shape in block_shapes(config).items():
            part, kind = parts[ours.removesuffix("_bias")], "bias" if ours.endswith("_bias") else "weight"
            names[f"layers.{i}.{ours}"] = (f"model.layers.{i}.{part}.{kind}", len(shape) == 2)
    names["norm"] = ("model.norm.weight", False)
    return names if config.tied else names | {"lm_head": ("lm_head.weight", True)}
