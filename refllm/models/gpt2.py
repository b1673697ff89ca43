"""GPT-2 (Radford 2019): a pre-norm decoder with learned positions, LayerNorm, biases and a GELU feed-forward.

x = embedding(tokens) + position_embedding(positions)
x ← x + attention(norm(x))          x ← x + mlp(norm(x))          logits = norm(x) · embeddingᵀ
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.array_api import namespace
from refllm.layers.attention import attention_backward
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.kv_cache import KVCache
from refllm.layers.layer_norm import layer_norm, layer_norm_backward
from refllm.layers.linear import affine, affine_backward, linear, linear_backward
from refllm.layers.mlp import ACTIVATIONS, mlp, mlp_backward
from refllm.models.heads import merge_heads, split_heads
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, advance, attend, last_positions, last_positions_backward, place

AUTOREGRESSIVE = True  # whether a position's logits are of the token after it, and see none after it


@dataclass(frozen=True)
class Config:
    """The sizes of a GPT-2."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # H; divides D into heads of K = D/H
    max_positions: int  # the longest sequence there are positions for
    d_ff: int  # F, 4·D in GPT-2
    norm_eps: float = 1e-5
    activation: str = "gelu_tanh"  # OpenAI's; nanoGPT has "gelu_erf"

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} cannot be cut into n_heads={self.n_heads} equal heads; make it a multiple.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}.")

    @property
    def d_head(self) -> int:
        """K, the width of one head."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        """G: every query head has a key/value head of its own."""
        return self.n_heads


def _sized(d_model: int, n_layers: int, n_heads: int, vocab_size: int, max_positions: int) -> Config:
    return Config(vocab_size, d_model, n_layers, n_heads, max_positions, d_ff=4 * d_model)


# The published sizes: Radford 2019, table 2; Brown et al. 2020 (arXiv:2005.14165), table 2.1, whose every other layer sees a
# band of positions only, which has no parameters and is not computed here. Two rows do not add up: 24 heads of width 128 are
# not the 2048 of the 1.3B row, which has 16 here, and 40 are not the 5140 of the 13B row, which has 5120 here.
SIZES = {
    "gpt2": _sized(768, 12, 12, 50_257, 1024),
    "gpt2-medium": _sized(1024, 24, 16, 50_257, 1024),
    "gpt2-large": _sized(1280, 36, 20, 50_257, 1024),
    "gpt2-xl": _sized(1600, 48, 25, 50_257, 1024),
    "gpt3-125m": _sized(768, 12, 12, 50_257, 2048),
    "gpt3-350m": _sized(1024, 24, 16, 50_257, 2048),
    "gpt3-760m": _sized(1536, 24, 16, 50_257, 2048),
    "gpt3-1.3b": _sized(2048, 24, 16, 50_257, 2048),
    "gpt3-2.7b": _sized(2560, 32, 32, 50_257, 2048),
    "gpt3-6.7b": _sized(4096, 32, 32, 50_257, 2048),
    "gpt3-13b": _sized(5120, 40, 40, 50_257, 2048),
    "gpt3-175b": _sized(12_288, 96, 96, 50_257, 2048),
}


def block_shapes(config: Config) -> Shapes:
    """The name and shape of every parameter of one block."""
    D, F = config.d_model, config.d_ff
    return {
        "attention_norm.gain": (D,),
        "attention_norm.bias": (D,),
        "attention.qkv": (D, 3 * D),
        "attention.qkv_bias": (3 * D,),
        "attention.o": (D, D),
        "attention.o_bias": (D,),
        "ffn_norm.gain": (D,),
        "ffn_norm.bias": (D,),
        "ffn.up": (D, F),
        "ffn.up_bias": (F,),
        "ffn.down": (F, D),
        "ffn.down_bias": (D,),
    }


def parameter_shapes(config: Config) -> Shapes:
    """Every parameter's name and shape, in reading order."""
    V, D = config.vocab_size, config.d_model
    shapes: Shapes = {"embedding": (V, D), "position_embedding": (config.max_positions, D)}
    for i in range(config.n_layers):
        shapes |= under(f"layers.{i}.", block_shapes(config))
    return shapes | {"norm.gain": (D,), "norm.bias": (D,)}


def initialise(config: Config, seed: int) -> dict[str, Any]:
    """First values of every parameter, float32 NumPy arrays."""
    residual = ("attention.o", "ffn.down")
    return initial_values(parameter_shapes(config), seed, gains=("gain",), residual=residual, n_layers=config.n_layers)


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
    xp = namespace(tokens)
    positions, mask, cache = place(tokens, cache, valid, None, config.max_positions)
    x, embedded = embedding(tokens, params["embedding"])
    where, placed = embedding(positions, params["position_embedding"])  # (T, D), or (B, T, D) where rows are padded
    x, dropped = drop(x + where, dropout, "embedding")
    decoding, blocks = cache is not None, []
    for i in range(config.n_layers):
        given = (x, within(params, f"layers.{i}.", block_shapes(config)), config, mask, cache, i, dropout)
        x, cache, saved = block(*given)
        if not decoding:
            blocks.append(given if checkpointing else saved)
        del saved  # where nobody keeps it, the next block need not find room beside it
    x, asked = last_positions(x, last)
    x, normed = layer_norm(x, params["norm.gain"], params["norm.bias"], config.norm_eps)
    logits, headed = linear(x, xp.matrix_transpose(params["embedding"]))
    saved = None if decoding else (embedded, placed, positions.ndim, dropped, blocks, checkpointing, asked, normed, headed)
    return Output(logits, advance(cache, tokens.shape[1]), saved, features=x)


def backward(dlogits, saved) -> dict[str, Any]:
    """The gradient of every parameter, by its name, given dlogits of logits' shape. Forward, read upwards."""
    embedded, placed, position_axes, dropped, blocks, checkpointing, asked, normed, headed = saved
    xp = namespace(dlogits)
    grads = {}
    dx, dhead = linear_backward(dlogits, headed)
    dx, grads["norm.gain"], grads["norm.bias"] = layer_norm_backward(dx, normed)
    dx = last_positions_backward(dx, asked)
    for i in reversed(range(len(blocks))):
        block_saved = block(*blocks[i])[-1] if checkpointing else blocks[i]
        dx, dblock = block_backward(dx, block_saved)
        grads |= under(f"layers.{i}.", dblock)
    dx = drop_backward(dx, dropped)
    dwhere = xp.sum(dx, axis=0) if position_axes == 1 else dx  # rows without padding share their positions
    grads["position_embedding"] = embedding_backward(dwhere, placed)
    grads["embedding"] = embedding_backward(dx, embedded) + xp.matrix_transpose(dhead)  # the table serves twice
    return grads


def block(x, p, config: Config, mask, cache, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D), the cache, and what backward needs."""
    h, norm1 = layer_norm(x, p["attention_norm.gain"], p["attention_norm.bias"], config.norm_eps)
    h, cache, attended = self_attention(h, p, config, mask, cache, i)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x = x + h
    h, norm2 = layer_norm(x, p["ffn_norm.gain"], p["ffn_norm.bias"], config.norm_eps)
    h, ffn = mlp(h, p["ffn.up"], p["ffn.up_bias"], p["ffn.down"], p["ffn.down_bias"], config.activation)
    h, drop2 = drop(h, dropout, f"layers.{i}.ffn")
    return x + h, cache, (norm1, attended, drop1, norm2, ffn, drop2)


def block_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes dy on unchanged."""
    norm1, attended, drop1, norm2, ffn, drop2 = saved
    grads = {}
    dh = drop_backward(dy, drop2)
    dh, *dmlp = mlp_backward(dh, ffn)
    grads["ffn.up"], grads["ffn.up_bias"], grads["ffn.down"], grads["ffn.down_bias"] = dmlp
    dh, grads["ffn_norm.gain"], grads["ffn_norm.bias"] = layer_norm_backward(dh, norm2)
    dx = dy + dh
    dh = drop_backward(dx, drop1)
    dh, dattention = self_attention_backward(dh, attended)
    dh, grads["attention_norm.gain"], grads["attention_norm.bias"] = layer_norm_backward(dh, norm1)
    return dx + dh, grads | dattention


def self_attention(x, p, config: Config, mask, cache, i: int):
    """x: (B, T, D) -> (B, T, D), the cache with the keys and values of x, and what backward needs."""
    D, H = config.d_model, config.n_heads
    qkv, qkv_saved = affine(x, p["attention.qkv"], p["attention.qkv_bias"])  # (B, T, 3·D)
    q = split_heads(qkv[..., :D], H)  # (B, H, T, K)
    k = split_heads(qkv[..., D : 2 * D], H)
    v = split_heads(qkv[..., 2 * D :], H)
    y, cache, attended = attend(q, k, v, mask, config.d_head**-0.5, cache, i)
    out, o_saved = affine(merge_heads(y), p["attention.o"], p["attention.o_bias"])
    return out, cache, (qkv_saved, attended, o_saved, H)


def self_attention_backward(dout, saved):
    """Return dx: (B, T, D) and the gradients of qkv and o."""
    qkv_saved, attended, o_saved, H = saved
    grads = {}
    dy, grads["attention.o"], grads["attention.o_bias"] = affine_backward(dout, o_saved)
    dqkv = attention_backward(split_heads(dy, H), attended)
    dqkv = namespace(dy).concat([merge_heads(d) for d in dqkv], axis=-1)  # (B, T, 3·D)
    dx, grads["attention.qkv"], grads["attention.qkv_bias"] = affine_backward(dqkv, qkv_saved)
    return dx, grads


MODEL_TYPES = ("gpt2",)  # of config.json
BASE_PREFIX = "transformer."  # of tensor names; OpenAI's own file lacks it
BUFFERS = (r".*\.attn\.(masked_)?bias", r"lm_head\.weight")  # causal masks of old files, and the embedding once more

ACTIVATION_NAMES = {"gelu_tanh": ("gelu_new", "gelu_pytorch_tanh"), "gelu_erf": ("gelu",)}  # theirs; the first is written


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_positions": config.max_positions,
        "n_ctx": config.max_positions,
        "n_inner": config.d_ff,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": ACTIVATION_NAMES[config.activation][0],
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields; those left out have transformers' defaults.

    Raises ValueError for a variant of GPT-2 that this file does not compute.
    """
    theirs = fields.get("activation_function", "gelu_new")
    activation = next((ours for ours, names in ACTIVATION_NAMES.items() if theirs in names), None)
    computed = {
        "activation_function": activation is not None,
        "tie_word_embeddings": fields.get("tie_word_embeddings", True),
        "scale_attn_weights": fields.get("scale_attn_weights", True),
        "scale_attn_by_inverse_layer_idx": not fields.get("scale_attn_by_inverse_layer_idx"),
        "add_cross_attention": not fields.get("add_cross_attention"),
    }
    if activation is None or not all(computed.values()):
        unknown = ", ".join(f"{name}={fields[name]!r}" for name, known in computed.items() if not known)
        raise ValueError(f"config.json has {unknown}; this GPT-2 has a GELU, a tied head, and scores scaled by 1/√d_head.")
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["n_embd"],
        n_layers=fields["n_layer"],
        n_heads=fields["n_head"],
        max_positions=fields.get("n_positions", 1024),
        d_ff=fields.get("n_inner") or 4 * fields["n_embd"],
        norm_eps=fields.get("layer_norm_epsilon", 1e-5),
        activation=activation,
    )


def hugging_face_names(config: Config) -> dict[str, tuple[str, bool]]:
    """Each parameter's name in model.safetensors; none lies transposed, for GPT-2's Conv1D is (in, out) too."""
    block = {
        "attention_norm.gain": "ln_1.weight",
        "attention_norm.bias": "ln_1.bias",
        "attention.qkv": "attn.c_attn.weight",
        "attention.qkv_bias": "attn.c_attn.bias",
        "attention.o": "attn.c_proj.weight",
        "attention.o_bias": "attn.c_proj.bias",
        "ffn_norm.gain": "ln_2.weight",
        "ffn_norm.bias": "ln_2.bias",
        "ffn.up": "mlp.c_fc.weight",
        "ffn.up_bias": "mlp.c_fc.bias",
        "ffn.down": "mlp.c_proj.weight",
        "ffn.down_bias": "mlp.c_proj.bias",
    }
    names = {"embedding": "wte.weight", "position_embedding": "wpe.weight"}
    for i in range(config.n_layers):
        names |= {f"layers.{i}.{ours}": f"h.{i}.{theirs}" for ours, theirs in block.items()}
    names |= {"norm.gain": "ln_f.weight", "norm.bias": "ln_f.bias"}
    return {ours: (f"transformer.{theirs}", False) for ours, theirs in names.items()}
