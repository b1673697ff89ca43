"""Llama (Touvron 2023, arXiv:2302.13971): a pre-norm decoder with RMSNorm, RoPE, grouped-query attention and SwiGLU.

    x ← x + attention(norm(x))          x ← x + swiglu(norm(x))          logits = norm(x) · head

Llama 1, 2 and 3 are configurations of it (Llama 3.1 scales the rotary frequencies, 3.2 ties the head to the embedding), and so
is Mistral 7B (Jiang 2023, arXiv:2310.06825), whose queries see a sliding window only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.array_api import namespace
from refllm.layers.attention import attention, attention_backward
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.kv_cache import KVCache, append
from refllm.layers.linear import linear, linear_backward
from refllm.layers.rms_norm import rms_norm, rms_norm_backward
from refllm.layers.rope import RopeScaling, rope, rope_angles, rope_backward, rope_frequencies
from refllm.layers.swiglu import swiglu, swiglu_backward
from refllm.models.heads import merge_heads, split_heads
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, advance, last_positions, last_positions_backward, place


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
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} query heads cannot share n_kv_heads={self.n_kv_heads}; it must divide them."
            )
        if self.d_head % 2:
            raise ValueError(f"d_head={self.d_head} is odd; rotary positions turn pairs of features, so make it even.")


def block_shapes(config: Config) -> Shapes:
    """The name and shape of every parameter of one block."""
    D, F, K = config.d_model, config.d_ff, config.d_head
    return {
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
    decoding, blocks = cache is not None, []
    for i in range(config.n_layers):
        given = (x, within(params, f"layers.{i}.", block_shapes(config)), config, angles, mask, cache, i, dropout)
        x, cache, saved = block(*given)
        if not decoding:
            blocks.append(given if checkpointing else saved)
    x, asked = last_positions(x, last)
    x, normed = rms_norm(x, params["norm"], config.norm_eps)
    logits, headed = linear(x, head(params, config))
    saved = None if decoding else (embedded, dropped, blocks, checkpointing, asked, normed, headed, config)
    return Output(logits, advance(cache, tokens.shape[1]), saved)


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


def block(x, p, config: Config, angles, mask, cache, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D), the cache, and what backward needs."""
    h, norm1 = rms_norm(x, p["attention_norm"], config.norm_eps)
    h, cache, attended = self_attention(h, p, config, angles, mask, cache, i)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x = x + h
    h, norm2 = rms_norm(x, p["ffn_norm"], config.norm_eps)
    h, ffn = swiglu(h, p["ffn.gate"], p["ffn.up"], p["ffn.down"])
    h, drop2 = drop(h, dropout, f"layers.{i}.ffn")
    return x + h, cache, (norm1, attended, drop1, norm2, ffn, drop2)


def block_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes dy on unchanged."""
    norm1, attended, drop1, norm2, ffn, drop2 = saved
    grads = {}
    dh = drop_backward(dy, drop2)
    dh, grads["ffn.gate"], grads["ffn.up"], grads["ffn.down"] = swiglu_backward(dh, ffn)
    dh, grads["ffn_norm"] = rms_norm_backward(dh, norm2)
    dx = dy + dh
    dh = drop_backward(dx, drop1)
    dh, dattention = self_attention_backward(dh, attended)
    dh, grads["attention_norm"] = rms_norm_backward(dh, norm1)
    return dx + dh, grads | dattention


def self_attention(x, p, config: Config, angles, mask, cache, i: int):
    """x: (B, T, D) -> (B, T, D), the cache with the keys and values of x, and what backward needs."""
    q, q_saved = linear(x, p["attention.q"])
    k, k_saved = linear(x, p["attention.k"])
    v, v_saved = linear(x, p["attention.v"])
    q, q_turned = rope(split_heads(q, config.n_heads), *angles)  # (B, H, T, K)
    k, k_turned = rope(split_heads(k, config.n_kv_heads), *angles)  # (B, G, T, K)
    v = split_heads(v, config.n_kv_heads)
    if cache is not None:
        cache, k, v = append(cache, i, k, v)  # (B, G, S, K)
    y, attended = attention(q, k, v, mask, config.d_head**-0.5)
    out, o_saved = linear(merge_heads(y), p["attention.o"])
    return out, cache, (q_saved, k_saved, v_saved, q_turned, k_turned, attended, o_saved, config)


def self_attention_backward(dout, saved):
    """Return dx: (B, T, D) and the gradients of q, k, v and o."""
    q_saved, k_saved, v_saved, q_turned, k_turned, attended, o_saved, config = saved
    grads = {}
    dy, grads["attention.o"] = linear_backward(dout, o_saved)
    dq, dk, dv = attention_backward(split_heads(dy, config.n_heads), attended)
    dq = merge_heads(rope_backward(dq, q_turned))
    dk = merge_heads(rope_backward(dk, k_turned))
    dxq, grads["attention.q"] = linear_backward(dq, q_saved)
    dxk, grads["attention.k"] = linear_backward(dk, k_saved)
    dxv, grads["attention.v"] = linear_backward(merge_heads(dv), v_saved)
    return dxq + dxk + dxv, grads


def angles_at(positions, config: Config, dtype):
    """cos and sin of every position's rotary angles: (T, K/2), or (B, 1, T, K/2) for positions (B, T)."""
    frequencies = rope_frequencies(config.d_head, config.rope_theta, config.rope_scaling)
    cos, sin = rope_angles(positions, frequencies, dtype)
    if positions.ndim == 1:
        return cos, sin
    xp = namespace(cos)
    return xp.expand_dims(cos, axis=1), xp.expand_dims(sin, axis=1)  # every head turns alike


def head(params: Mapping[str, Any], config: Config):
    """The matrix (D, V) from features to logits."""
    return namespace(params["embedding"]).matrix_transpose(params["embedding"]) if config.tied else params["lm_head"]


MODEL_TYPES = ("llama", "mistral")  # of config.json
BASE_PREFIX = "model."  # of tensor names; a file saved without the head lacks it
BUFFERS = (r".*\.rotary_emb\.inv_freq",)  # tensors of old files that nobody learns


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields, in the spellings of transformers 4 and 5 both."""
    scaling = None
    if config.rope_scaling is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_freq_factor,
            "high_freq_factor": config.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": config.rope_scaling.original_max_position,
        }
    fields = {
        "architectures": ["LlamaForCausalLM" if config.window is None else "MistralForCausalLM"],
        "model_type": "llama" if config.window is None else "mistral",
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
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta} | (scaling or {}),
    }
    return fields if config.window is None else fields | {"sliding_window": config.window}


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields in either spelling; those left out have transformers' defaults.

    Raises ValueError for a variant of Llama that this file does not compute.
    """
    mistral = fields["model_type"] == "mistral"
    rope_fields = {**(fields.get("rope_scaling") or {}), **(fields.get("rope_parameters") or {})}
    kind = rope_fields.get("rope_type", rope_fields.get("type", "default"))
    partial = rope_fields.get("partial_rotary_factor", fields.get("partial_rotary_factor") or 1)
    computed = {
        f"hidden_act={fields.get('hidden_act')!r}": fields.get("hidden_act", "silu") == "silu",
        "attention_bias=True": not fields.get("attention_bias"),
        "mlp_bias=True": not fields.get("mlp_bias"),
        f"rope_type={kind!r}": kind in ("default", "llama3"),
        f"partial_rotary_factor={partial}": partial == 1,
    }
    if unknown := [setting for setting, known in computed.items() if not known]:
        raise ValueError(
            f"config.json has {', '.join(unknown)}; this Llama has SiLU, no biases, and rotary positions over the whole head, "
            "plain or scaled as llama3."
        )
    scaling = None
    if kind == "llama3":
        original = rope_fields["original_max_position_embeddings"]
        scaling = RopeScaling(rope_fields["factor"], rope_fields["low_freq_factor"], rope_fields["high_freq_factor"], original)
    n_heads = fields["num_attention_heads"]
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=fields["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=fields.get("num_key_value_heads") or n_heads,
        d_head=fields.get("head_dim") or fields["hidden_size"] // n_heads,
        d_ff=fields["intermediate_size"],
        max_positions=fields.get("max_position_embeddings", 131_072 if mistral else 2048),
        rope_theta=float(rope_fields.get("rope_theta", fields.get("rope_theta", 10_000.0))),
        norm_eps=fields.get("rms_norm_eps", 1e-6),
        tied=fields.get("tie_word_embeddings", False),
        window=fields.get("sliding_window", 4096) if mistral else None,
        rope_scaling=scaling,
    )


def hugging_face_names(config: Config) -> dict[str, tuple[str, bool]]:
    """Each parameter's name in model.safetensors, and whether it lies there transposed, as (out, in)."""
    block = {
        "attention_norm": ("input_layernorm", False),
        "attention.q": ("self_attn.q_proj", True),
        "attention.k": ("self_attn.k_proj", True),
        "attention.v": ("self_attn.v_proj", True),
        "attention.o": ("self_attn.o_proj", True),
        "ffn_norm": ("post_attention_layernorm", False),
        "ffn.gate": ("mlp.gate_proj", True),
        "ffn.up": ("mlp.up_proj", True),
        "ffn.down": ("mlp.down_proj", True),
    }
    names = {"embedding": ("model.embed_tokens.weight", False)}
    for i in range(config.n_layers):
        names |= {f"layers.{i}.{ours}": (f"model.layers.{i}.{theirs}.weight", t) for ours, (theirs, t) in block.items()}
    names["norm"] = ("model.norm.weight", False)
    return names if config.tied else names | {"lm_head": ("lm_head.weight", True)}
