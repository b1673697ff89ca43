"""Gemma 2 (Gemma Team 2024, arXiv:2408.00118) and 3 (2025, arXiv:2503.19786): norms around sub-layers, local and global layers.

x = √D · embedding          x ← x + norm(attention(norm(x)))          x ← x + norm(geglu(norm(x)))
logits = c · tanh(norm(x) · head / c)

A gain is learned as its distance from one: norm(x) = rms_norm(x, 1 + gain). In a local layer a query sees a window only.
Gemma 2 makes every other layer local, and caps the scores of attention and the logits softly. Gemma 3 makes five of six local and
has no caps: it normalises every head's queries and keys, and in global layers turns them by lower frequencies than in local ones.
Gemma 1 (2024, arXiv:2403.08295) is here too: it has neither windows nor caps, nor norms after the sub-layers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.array_api import namespace
from refllm.layers.attention import attention_backward
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.geglu import geglu, geglu_backward
from refllm.layers.kv_cache import KVCache
from refllm.layers.linear import linear, linear_backward
from refllm.layers.precision import narrow, widen
from refllm.layers.rms_norm import rms_norm, rms_norm_backward
from refllm.layers.rope import RopeScaling, rope, rope_amplitude, rope_angles, rope_backward, rope_frequencies
from refllm.layers.softcap import softcap, softcap_backward
from refllm.models.heads import merge_heads, split_heads
from refllm.models.llama import read_scaling, scaling_fields
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, advance, attend, last_positions, last_positions_backward, place

AUTOREGRESSIVE = True  # whether a position's logits are of the token after it, and see none after it


@dataclass(frozen=True)
class Config:
    """The sizes of a Gemma."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # H, query heads
    n_kv_heads: int  # G, key/value heads; divides H
    d_head: int  # K, the width of one head; even
    d_ff: int  # F
    query_pre_attn_scalar: int  # scores are divided by its root; mostly d_head
    max_positions: int  # the longest sequence it is meant for
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tied: bool = True  # whether the head is the embedding, transposed
    window: int | None = None  # how many positions a query of a local layer sees, its own included; None: no layer is local
    full_layers: tuple[int, ...] = ()  # the global layers, whose queries see all positions in spite of the window
    post_norms: bool = True  # whether a norm follows each sub-layer too (Gemma 2 and 3)
    qk_norm: bool = False  # whether each head's queries and keys are normalised (Gemma 3)
    attention_softcap: float | None = None  # what no score of attention passes (Gemma 2)
    logit_softcap: float | None = None  # what no logit passes (Gemma 2)
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None  # in local layers, unscaled (Gemma 3); None: they turn as global ones do

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
        for name in ("attention_softcap", "logit_softcap"):
            if (cap := getattr(self, name)) is not None and not cap > 0:
                raise ValueError(f"{name}={cap} cannot be; a cap is positive, or None.")

    def is_local(self, i: int) -> bool:
        """Whether the queries of layer i see a window only."""
        return self.window is not None and i not in self.full_layers


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
    if config.post_norms:
        shapes |= {"attention_post_norm": (D,), "ffn_post_norm": (D,)}
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
    """First values of every parameter, float32 NumPy arrays; those of gains are zero, which makes the factors one."""
    residual = ("attention.o", "ffn.down")
    return initial_values(parameter_shapes(config), seed, gains=(), residual=residual, n_layers=config.n_layers)


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
    local, whole = rotary_angles(positions, config, params["embedding"].dtype)
    views = {True: (local, mask), False: (whole, mask._replace(window=None))}  # by whether a layer is local
    x, embedded = scaled_embedding(tokens, params["embedding"])
    x, dropped = drop(x, dropout, "embedding")
    decoding, blocks = cache is not None, []
    for i in range(config.n_layers):
        p = within(params, f"layers.{i}.", block_shapes(config))
        given = (x, p, config, *views[config.is_local(i)], cache, i, dropout)
        x, cache, saved = block(*given)
        if not decoding:
            blocks.append(given if checkpointing else saved)
        del saved  # where nobody keeps it, the next block need not find room beside it
    x, asked = last_positions(x, last)
    x, normed = norm(x, params["norm"], config)
    logits, headed = linear(x, head(params, config))
    logits, capped = (logits, None) if config.logit_softcap is None else softcap(logits, config.logit_softcap)
    saved = None if decoding else (embedded, dropped, blocks, checkpointing, asked, normed, headed, capped, config)
    return Output(logits, advance(cache, tokens.shape[1]), saved, features=x)


def backward(dlogits, saved) -> dict[str, Any]:
    """The gradient of every parameter, by its name, given dlogits of logits' shape. Forward, read upwards."""
    embedded, dropped, blocks, checkpointing, asked, normed, headed, capped, config = saved
    grads = {}
    dlogits = dlogits if capped is None else softcap_backward(dlogits, capped)
    dx, dhead = linear_backward(dlogits, headed)
    dx, grads["norm"] = norm_backward(dx, normed)
    dx = last_positions_backward(dx, asked)
    for i in reversed(range(len(blocks))):
        block_saved = block(*blocks[i])[-1] if checkpointing else blocks[i]
        dx, dblock = block_backward(dx, block_saved)
        grads |= under(f"layers.{i}.", dblock)
    dx = drop_backward(dx, dropped)
    grads["embedding"] = scaled_embedding_backward(dx, embedded)
    if config.tied:
        grads["embedding"] = grads["embedding"] + namespace(dhead).matrix_transpose(dhead)  # the table serves twice
    else:
        grads["lm_head"] = dhead
    return grads


def head(params: Mapping[str, Any], config: Config):
    """The matrix (D, V) from features to logits."""
    return namespace(params["embedding"]).matrix_transpose(params["embedding"]) if config.tied else params["lm_head"]


def scaled_embedding(tokens, table):
    """tokens: (B, T) -> (B, T, D), their vectors times √D, and what backward needs.

    √D is first rounded to the table's dtype, as in training: in bfloat16 √3072 is 55.5, not 55.43.
    """
    x, saved = embedding(tokens, table)
    root = widen(namespace(x).asarray(math.sqrt(table.shape[-1]), dtype=table.dtype))
    return narrow(widen(x) * root, x), (saved, root)


def scaled_embedding_backward(dx, saved):
    """Return dtable: (V, D), given dx: (B, T, D)."""
    saved, root = saved
    return embedding_backward(narrow(widen(dx) * root, dx), saved)


def norm(x, gain, config: Config):
    """x: (..., D) at unit root-mean-square, times 1 + gain: (D,), and what backward needs."""
    y, saved = rms_norm(x, 1 + widen(gain), config.norm_eps)  # 1 + gain has more digits than a half can store
    return y, (gain, saved)


def norm_backward(dy, saved):
    """Return dx: (..., D) and dgain: (D,)."""
    gain, saved = saved
    dx, dgain = rms_norm_backward(dy, saved)
    return dx, narrow(dgain, gain)


def norm_if(wanted: bool, x, p, name: str, config: Config):
    """x: (..., D) after the norm with the gain of that name, or x itself where the configuration has none."""
    return norm(x, p[name], config) if wanted else (x, None)


def norm_if_backward(dy, saved, name: str):
    """Return dx: (..., D) and the gradient of the gain, if there is one, by its name."""
    if saved is None:
        return dy, {}
    dx, dgain = norm_backward(dy, saved)
    return dx, {name: dgain}


def block(x, p, config: Config, angles, mask, cache, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D), the cache, and what backward needs."""
    h, norm1 = norm(x, p["attention_norm"], config)
    h, cache, attended = self_attention(h, p, config, angles, mask, cache, i)
    h, post1 = norm_if(config.post_norms, h, p, "attention_post_norm", config)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x = x + h
    h, norm2 = norm(x, p["ffn_norm"], config)
    h, ffn = geglu(h, p["ffn.gate"], p["ffn.up"], p["ffn.down"])
    h, post2 = norm_if(config.post_norms, h, p, "ffn_post_norm", config)
    h, drop2 = drop(h, dropout, f"layers.{i}.ffn")
    return x + h, cache, (norm1, attended, post1, drop1, norm2, ffn, post2, drop2)


def block_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes dy on unchanged."""
    norm1, attended, post1, drop1, norm2, ffn, post2, drop2 = saved
    dh = drop_backward(dy, drop2)
    dh, grads = norm_if_backward(dh, post2, "ffn_post_norm")
    dh, grads["ffn.gate"], grads["ffn.up"], grads["ffn.down"] = geglu_backward(dh, ffn)
    dh, grads["ffn_norm"] = norm_backward(dh, norm2)
    dx = dy + dh
    dh = drop_backward(dx, drop1)
    dh, dpost = norm_if_backward(dh, post1, "attention_post_norm")
    dh, dattention = self_attention_backward(dh, attended)
    dh, grads["attention_norm"] = norm_backward(dh, norm1)
    return dx + dh, grads | dpost | dattention


def self_attention(x, p, config: Config, angles, mask, cache, i: int):
    """x: (B, T, D) -> (B, T, D), the cache with the keys and values of x, and what backward needs."""
    q, q_saved = linear(x, p["attention.q"])
    k, k_saved = linear(x, p["attention.k"])
    v, v_saved = linear(x, p["attention.v"])
    q, q_normed = norm_if(config.qk_norm, split_heads(q, config.n_heads), p, "attention.q_norm", config)  # (B, H, T, K)
    k, k_normed = norm_if(config.qk_norm, split_heads(k, config.n_kv_heads), p, "attention.k_norm", config)  # (B, G, T, K)
    q, q_turned = rope(q, *angles)
    k, k_turned = rope(k, *angles)
    v = split_heads(v, config.n_kv_heads)
    y, cache, attended = attend(q, k, v, mask, config.query_pre_attn_scalar**-0.5, cache, i, config.attention_softcap)
    out, o_saved = linear(merge_heads(y), p["attention.o"])
    return out, cache, (q_saved, k_saved, v_saved, q_normed, k_normed, q_turned, k_turned, attended, o_saved, config)


def self_attention_backward(dout, saved):
    """Return dx: (B, T, D) and the gradients of q, k, v and o, and of their norms."""
    q_saved, k_saved, v_saved, q_normed, k_normed, q_turned, k_turned, attended, o_saved, config = saved
    grads = {}
    dy, grads["attention.o"] = linear_backward(dout, o_saved)
    dq, dk, dv = attention_backward(split_heads(dy, config.n_heads), attended)
    dq, dq_norm = norm_if_backward(rope_backward(dq, q_turned), q_normed, "attention.q_norm")
    dk, dk_norm = norm_if_backward(rope_backward(dk, k_turned), k_normed, "attention.k_norm")
    dxq, grads["attention.q"] = linear_backward(merge_heads(dq), q_saved)
    dxk, grads["attention.k"] = linear_backward(merge_heads(dk), k_saved)
    dxv, grads["attention.v"] = linear_backward(merge_heads(dv), v_saved)
    return dxq + dxk + dxv, grads | dq_norm | dk_norm


def rotary_angles(positions, config: Config, dtype):
    """The angles (see `angles_at`) of local layers and of global ones."""
    whole = angles_at(positions, config.d_head, config.rope_theta, config.rope_scaling, dtype)
    if config.local_rope_theta is None:
        return whole, whole
    return angles_at(positions, config.d_head, config.local_rope_theta, None, dtype), whole


def angles_at(positions, d_head: int, theta: float, scaling: RopeScaling | None, dtype):
    """cos and sin of every position's rotary angles: (T, K/2), or (B, 1, T, K/2) for positions (B, T)."""
    cos, sin = rope_angles(positions, rope_frequencies(d_head, theta, scaling), dtype, rope_amplitude(scaling))
    if positions.ndim == 1:
        return cos, sin
    xp = namespace(cos)
    return xp.expand_dims(cos, axis=1), xp.expand_dims(sin, axis=1)  # every head turns alike


MODEL_TYPES = ("gemma", "gemma2", "gemma3_text")  # of config.json
BASE_PREFIX = "model."  # of tensor names; a file saved without the head lacks it
BUFFERS = (r".*\.rotary_emb\.inv_freq",)  # tensors of old files that nobody learns
CLASSES = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
LOCAL, GLOBAL = "sliding_attention", "full_attention"  # in layer_types


def hugging_face_type(config: Config) -> str:
    """The model_type whose code in transformers computes a configuration. Raises ValueError where none does."""
    c = config
    plain = c.window is None and c.attention_softcap is None and c.logit_softcap is None
    kinds = {
        "gemma": plain and not c.post_norms and not c.qk_norm and c.query_pre_attn_scalar == c.d_head,
        "gemma2": c.post_norms and not c.qk_norm and (c.local_rope_theta is None or c.window is None),
        "gemma3_text": c.post_norms
        and c.qk_norm
        and c.attention_softcap is None
        and (c.local_rope_theta is not None or c.rope_scaling is None or c.window is None),
    }
    fitting = next((kind for kind, fits in kinds.items() if fits), None)
    if fitting is None:
        raise ValueError(
            f"transformers has no model with the norms, caps, windows and positions of {config}; it cannot be written for it."
        )
    return fitting


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields, in the spellings of transformers 4 and 5 both."""
    kind = hugging_face_type(config)
    scaling = scaling_fields(config.rope_scaling)
    turning = {"rope_type": "default", "rope_theta": config.rope_theta} | (scaling or {})
    fields = {
        "architectures": [CLASSES[kind]],
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
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "pad_token_id": None,  # transformers' default is a token, whose embedding would then not be learned
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": turning,
    }
    if kind == "gemma":
        return fields
    fields["query_pre_attn_scalar"] = config.query_pre_attn_scalar
    fields["attn_logit_softcapping"] = config.attention_softcap
    fields["final_logit_softcapping"] = config.logit_softcap
    fields["sliding_window"] = config.window or config.max_positions  # wanted even where no layer is local
    fields["layer_types"] = [LOCAL if config.is_local(i) else GLOBAL for i in range(config.n_layers)]
    if kind == "gemma3_text":
        local_theta = config.rope_theta if config.local_rope_theta is None else config.local_rope_theta
        fields["rope_local_base_freq"] = local_theta
        fields["rope_parameters"] = {GLOBAL: turning, LOCAL: {"rope_type": "default", "rope_theta": local_theta}}
    return fields


# transformers' own, where config.json leaves a field out
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"max_position_embeddings": 8192, "num_key_value_heads": 16},
    "gemma2": {
        "max_position_embeddings": 8192,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
    },
    "gemma3_text": {
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
}


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields in either spelling; those left out have transformers' defaults.

    Raises ValueError for a variant of Gemma that this file does not compute.
    """
    kind = fields["model_type"]
    check_computed(fields)
    fields = DEFAULTS[kind] | {"head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True} | dict(fields)
    window, full_layers = read_windows(fields)
    theta, scaling, local_theta = read_positions(fields)
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=fields["num_hidden_layers"],
        n_heads=fields["num_attention_heads"],
        n_kv_heads=fields["num_key_value_heads"],
        d_head=fields["head_dim"],
        d_ff=fields["intermediate_size"],
        query_pre_attn_scalar=fields["head_dim"] if kind == "gemma" else fields["query_pre_attn_scalar"],
        max_positions=fields["max_position_embeddings"],
        rope_theta=theta,
        norm_eps=fields["rms_norm_eps"],
        tied=fields["tie_word_embeddings"],
        window=window,
        full_layers=full_layers,
        post_norms=kind != "gemma",
        qk_norm=kind == "gemma3_text",
        attention_softcap=None if kind == "gemma" else fields.get("attn_logit_softcapping"),
        logit_softcap=None if kind == "gemma" else fields.get("final_logit_softcapping"),
        rope_scaling=scaling,
        local_rope_theta=local_theta,
    )


def check_computed(fields: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that this file does not compute."""
    kind = fields["model_type"]
    named = "hidden_act" if kind == "gemma" and not fields.get("hidden_activation") else "hidden_activation"
    activation = fields.get(named, "gelu_pytorch_tanh")
    computed = {  # Gemma 1's first files say gelu and mean its approximation
        f"{named}={activation!r}": activation == "gelu_pytorch_tanh" or (kind == "gemma" and activation == "gelu"),
        "attention_bias=true": not fields.get("attention_bias"),
        "use_bidirectional_attention=true": not fields.get("use_bidirectional_attention"),
        f"attn_logit_softcapping={fields.get('attn_logit_softcapping')}": kind != "gemma3_text"
        or fields.get("attn_logit_softcapping") is None,  # which transformers reads and does not heed
    }
    if unknown := [setting for setting, known in computed.items() if not known]:
        raise ValueError(
            f"config.json has {', '.join(unknown)}; this Gemma has GELU's tanh approximation, no biases, "
            "causal attention, and no capped scores in the third generation."
        )


def read_windows(fields: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """The window of local layers, and which layers are global in spite of it."""
    kind, n_layers = fields["model_type"], fields["num_hidden_layers"]
    if kind == "gemma":
        return None, ()
    every = fields["sliding_window_pattern"]
    types = fields.get("layer_types") or [LOCAL if (i + 1) % every else GLOBAL for i in range(n_layers)]
    if len(types) != n_layers or not set(types) <= {LOCAL, GLOBAL}:
        raise ValueError(f"config.json has layer_types={types}; it needs {n_layers}, each of them {LOCAL!r} or {GLOBAL!r}.")
    if LOCAL not in types:
        return None, ()
    if fields["sliding_window"] is None:
        raise ValueError(
            f"config.json has layers of the type {LOCAL!r}, but sliding_window=null; it needs a number of positions."
        )
    return fields["sliding_window"], tuple(i for i, layer_type in enumerate(types) if layer_type == GLOBAL)


def read_positions(fields: Mapping[str, Any]) -> tuple[float, Any, float | None]:
    """The rotary base and scaling of global layers, and the base of local ones where it is another."""
    longest, of_layers = fields["max_position_embeddings"], fields.get("rope_parameters") or {}
    if fields["model_type"] != "gemma3_text":
        whole = {**(fields.get("rope_scaling") or {}), **of_layers}
        return float(whole.get("rope_theta", fields.get("rope_theta", 10_000.0))), read_scaling(whole, longest), None
    if not set(of_layers) <= {LOCAL, GLOBAL}:
        raise ValueError(f"config.json has rope_parameters={of_layers}; this Gemma needs them by {LOCAL!r} and {GLOBAL!r}.")
    whole = {**(of_layers.get(GLOBAL) or {}), **(fields.get("rope_scaling") or {})}
    local = of_layers.get(LOCAL) or {}
    if read_scaling(local, longest) is not None:
        raise ValueError(f"config.json has rope_parameters with {local} in local layers; here only global layers are scaled.")
    theta = float(whole.get("rope_theta", fields.get("rope_theta", 1_000_000.0)))
    return theta, read_scaling(whole, longest), float(local.get("rope_theta", fields.get("rope_local_base_freq", 10_000.0)))


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
        "attention_post_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm" if config.post_norms else "post_attention_layernorm",
        "ffn.gate": "mlp.gate_proj",
        "ffn.up": "mlp.up_proj",
        "ffn.down": "mlp.down_proj",
        "ffn_post_norm": "post_feedforward_layernorm",
    }
    names = {"embedding": ("model.embed_tokens.weight", False)}
    for i in range(config.n_layers):
        for ours, shape in block_shapes(config).items():
            names[f"layers.{i}.{ours}"] = (f"model.layers.{i}.{parts[ours]}.weight", len(shape) == 2)
    names["norm"] = ("model.norm.weight", False)
    return names if config.tied else names | {"lm_head": ("lm_head.weight", True)}
