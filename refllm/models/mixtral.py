"""Mixtral (Jiang 2024, arXiv:2401.04088): a Llama whose feed-forward is a mixture of experts.

    x ← x + attention(norm(x))          x ← x + mixture_of_experts(norm(x))          logits = norm(x) · head

A router weighs E experts at every position and layer; the position goes through the top_k that weigh most. Where the
configuration asks for it, a loss that spreads the positions evenly over the experts joins the cross-entropy in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.array_api import namespace
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.kv_cache import KVCache
from refllm.layers.linear import linear, linear_backward
from refllm.layers.mixture_of_experts import (
    load_balancing_loss,
    load_balancing_loss_backward,
    mixture_of_experts,
    mixture_of_experts_backward,
)
from refllm.layers.rms_norm import rms_norm, rms_norm_backward
from refllm.layers.rope import RopeScaling
from refllm.models import llama
from refllm.models.llama import angles_at, head, read_scaling, scaling_fields, self_attention, self_attention_backward
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, advance, last_positions, last_positions_backward, place


@dataclass(frozen=True)
class Config:
    """The sizes of a Mixtral."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # H, query heads
    n_kv_heads: int  # G, key/value heads; divides H
    d_head: int  # K, the width of one head; even
    d_ff: int  # F, the hidden width of one expert
    n_experts: int  # E
    top_k: int  # how many experts each position goes through
    max_positions: int  # the longest sequence it is meant for
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-5
    tied: bool = False  # whether the head is the embedding, transposed
    window: int | None = None  # how many positions a query sees, its own included; None: all before it
    rope_scaling: RopeScaling | None = None
    balanced: bool = False  # whether training adds the load-balancing loss
    balance_weight: float = 0.001  # times which it is added

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k={self.top_k} experts cannot be chosen of n_experts={self.n_experts}.")
        _ = self.dense  # raises where heads do not fit each other

    @property
    def dense(self) -> llama.Config:
        """The Llama with this attention, and one expert at every position."""
        return llama.Config(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            d_ff=self.d_ff,
            max_positions=self.max_positions,
            rope_theta=self.rope_theta,
            norm_eps=self.norm_eps,
            tied=self.tied,
            window=self.window,
            rope_scaling=self.rope_scaling,
        )


EXPERTS = ("experts.gate", "experts.up", "experts.down")


def block_shapes(config: Config) -> Shapes:
    """The name and shape of every parameter of one block."""
    D, F, K, E = config.d_model, config.d_ff, config.d_head, config.n_experts
    return {
        "attention_norm": (D,),
        "attention.q": (D, config.n_heads * K),
        "attention.k": (D, config.n_kv_heads * K),
        "attention.v": (D, config.n_kv_heads * K),
        "attention.o": (config.n_heads * K, D),
        "ffn_norm": (D,),
        "router": (D, E),
        "experts.gate": (E, D, F),
        "experts.up": (E, D, F),
        "experts.down": (E, F, D),
    }


def parameter_shapes(config: Config) -> Shapes:
    """Every parameter's name and shape, in reading order."""
    V, D = config.vocab_size, config.d_model
    shapes: Shapes = {"embedding": (V, D)}
    for i in range(config.n_layers):
        shapes |= under(f"layers.{i}.", block_shapes(config))
    shapes["norm"] = (D,)
    return shapes if config.tied else shapes | {"lm_head": (D, V)}


def active_shapes(config: Config) -> Shapes:
    """The same for the parameters that one position uses: of the experts, the top_k that it goes through."""
    return {
        name: (config.top_k, *shape[1:]) if name.endswith(EXPERTS) else shape for name, shape in parameter_shapes(config).items()
    }


def has_auxiliary(config: Config) -> bool:
    """Whether forward's Output has an auxiliary loss: a batch's is then not the mean of its rows'."""
    return config.balanced


def initialise(config: Config, seed: int) -> dict[str, Any]:
    """First values of every parameter, float32 NumPy arrays."""
    residual = ("attention.o", "experts.down")
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
    last: logits of the last so many positions only    dropout: after the embedding, attention and experts
    checkpointing: keep each block's input and router logits instead of its intermediates; backward computes them again
    Returns logits (B, T, V) or (B, last, V), the extended cache, what the backward pass needs, and without a cache, where the
    configuration asks for it, the load-balancing loss of all layers and valid positions together.
    Raises ValueError for tokens that are not (B, T) or do not fit max_positions or the cache.
    """
    positions, mask, cache = place(tokens, cache, valid, config.window, config.max_positions)
    angles = angles_at(positions, config.dense, params["embedding"].dtype)
    x, embedded = embedding(tokens, params["embedding"])
    x, dropped = drop(x, dropout, "embedding")
    decoding, blocks, routers = cache is not None, [], []
    for i in range(config.n_layers):
        given = (x, within(params, f"layers.{i}.", block_shapes(config)), config, angles, mask, cache, i, dropout)
        x, cache, routed, saved = block(*given)
        if not decoding:
            routers.append(routed)
            blocks.append(given if checkpointing else saved)
        del saved  # where nobody keeps it, the next block need not find room beside it
    x, asked = last_positions(x, last)
    x, normed = rms_norm(x, params["norm"], config.norm_eps)
    logits, headed = linear(x, head(params, config.dense))
    if decoding:
        return Output(logits, advance(cache, tokens.shape[1]), None, features=x)
    auxiliary, balanced = balance(routers, valid, config)
    saved = (embedded, dropped, blocks, checkpointing, balanced, asked, normed, headed, config)
    return Output(logits, None, saved, auxiliary, x)


def router_logits(params: Mapping[str, Any], tokens, config: Config, valid=None):
    """What the routers of all layers say of every token, (L, B, T, E), to see who goes where: forward takes the top_k largest.

    tokens, valid: as forward takes them
    """
    positions, mask, _ = place(tokens, None, valid, config.window, config.max_positions)
    angles = angles_at(positions, config.dense, params["embedding"].dtype)
    x, _ = embedding(tokens, params["embedding"])
    logits = []
    for i in range(config.n_layers):
        p = within(params, f"layers.{i}.", block_shapes(config))
        x, _, routed, _ = block(x, p, config, angles, mask, None, i, None)
        logits.append(routed)
    return namespace(x).stack(logits)


def backward(dlogits, saved, dauxiliary=None) -> dict[str, Any]:
    """The gradient of every parameter, by its name: of Σ dlogits·logits + dauxiliary·auxiliary. Forward, read upwards.

    dlogits: of logits' shape    dauxiliary: (), one if not given
    """
    embedded, dropped, blocks, checkpointing, balanced, asked, normed, headed, config = saved
    grads = {}
    drouters = balance_backward(dauxiliary, balanced, config)
    dx, dhead = linear_backward(dlogits, headed)
    dx, grads["norm"] = rms_norm_backward(dx, normed)
    dx = last_positions_backward(dx, asked)
    for i in reversed(range(len(blocks))):
        block_saved = block(*blocks[i])[-1] if checkpointing else blocks[i]
        dx, dblock = block_backward(dx, drouters[i], block_saved)
        grads |= under(f"layers.{i}.", dblock)
    dx = drop_backward(dx, dropped)
    grads["embedding"] = embedding_backward(dx, embedded)
    if config.tied:
        grads["embedding"] = grads["embedding"] + namespace(dhead).matrix_transpose(dhead)  # the table serves twice
    else:
        grads["lm_head"] = dhead
    return grads


def block(x, p, config: Config, angles, mask, cache, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D), the cache, the router's logits (B, T, E), and what backward needs."""
    h, norm1 = rms_norm(x, p["attention_norm"], config.norm_eps)
    h, cache, attended = self_attention(h, p, config.dense, angles, mask, cache, i)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x = x + h
    h, norm2 = rms_norm(x, p["ffn_norm"], config.norm_eps)
    logits, routed = linear(h, p["router"])
    h, mixed = mixture_of_experts(h, logits, *(p[name] for name in EXPERTS), config.top_k)
    h, drop2 = drop(h, dropout, f"layers.{i}.experts")
    return x + h, cache, logits, (norm1, attended, drop1, norm2, routed, mixed, drop2)


def block_backward(dy, drouter, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes dy on unchanged.

    drouter: (B, T, E), the load-balancing loss's gradient in the router's logits, or None
    """
    norm1, attended, drop1, norm2, routed, mixed, drop2 = saved
    grads = {}
    dh, dlogits, *dexperts = mixture_of_experts_backward(drop_backward(dy, drop2), mixed)
    grads |= dict(zip(EXPERTS, dexperts, strict=True))
    dlogits = dlogits if drouter is None else dlogits + drouter
    dh_routed, grads["router"] = linear_backward(dlogits, routed)
    dh, grads["ffn_norm"] = rms_norm_backward(dh + dh_routed, norm2)
    dx = dy + dh
    dh = drop_backward(dx, drop1)
    dh, dattention = self_attention_backward(dh, attended)
    dh, grads["attention_norm"] = rms_norm_backward(dh, norm1)
    return dx + dh, grads | dattention


def balance(routers: list, valid, config: Config):
    """The load-balancing loss over the router logits of all layers, each (B, T, E), weighted; and what backward needs."""
    if not config.balanced:
        return None, None
    xp = namespace(routers[0])
    everywhere = None if valid is None else xp.broadcast_to(valid[None, ...], (len(routers), *valid.shape))
    loss, saved = load_balancing_loss(xp.stack(routers), everywhere, config.top_k)  # of (L, B, T, E)
    return loss * config.balance_weight, (loss, saved)


def balance_backward(dauxiliary, saved, config: Config) -> list:
    """The gradient of every layer's router logits, each (B, T, E) or None."""
    if saved is None:
        return [None] * config.n_layers
    loss, saved = saved
    xp = namespace(loss)
    dloss = (xp.ones_like(loss) if dauxiliary is None else dauxiliary) * config.balance_weight
    dlogits = load_balancing_loss_backward(dloss, saved)
    return [dlogits[i, ...] for i in range(config.n_layers)]


MODEL_TYPES = ("mixtral",)  # of config.json
AUTOREGRESSIVE = True
BASE_PREFIX = "model."  # of tensor names; a file saved without the head lacks it
BUFFERS = (r".*\.rotary_emb\.inv_freq",)  # tensors of old files that nobody learns


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields, in the spellings of transformers 4 and 5 both."""
    scaling = scaling_fields(config.rope_scaling)
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "num_local_experts": config.n_experts,
        "num_experts_per_tok": config.top_k,
        "output_router_logits": config.balanced,
        "router_aux_loss_coef": config.balance_weight,
        "router_jitter_noise": 0.0,
        "max_position_embeddings": config.max_positions,
        "sliding_window": config.window,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta} | (scaling or {}),
    }


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields in either spelling; those left out have transformers' defaults.

    Raises ValueError for a variant of Mixtral that this file does not compute.
    """
    if (activation := fields.get("hidden_act", "silu")) != "silu":
        raise ValueError(f"config.json has hidden_act={activation!r}; the experts of this Mixtral have SiLU.")
    rope_fields = {**(fields.get("rope_scaling") or {}), **(fields.get("rope_parameters") or {})}
    n_heads = fields["num_attention_heads"]
    max_positions = fields.get("max_position_embeddings", 131_072)
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=fields["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=fields.get("num_key_value_heads", 8) or n_heads,
        d_head=fields.get("head_dim") or fields["hidden_size"] // n_heads,
        d_ff=fields["intermediate_size"],
        n_experts=fields.get("num_local_experts", 8),
        top_k=fields.get("num_experts_per_tok", 2),
        max_positions=max_positions,
        rope_theta=float(rope_fields.get("rope_theta", fields.get("rope_theta", 1_000_000.0))),
        norm_eps=fields.get("rms_norm_eps", 1e-5),
        tied=fields.get("tie_word_embeddings", False),
        window=fields.get("sliding_window"),
        rope_scaling=read_scaling(rope_fields, max_positions),
        balanced=fields.get("output_router_logits", False),
        balance_weight=fields.get("router_aux_loss_coef", 0.001),
    )


def hugging_face_names(config: Config) -> dict[str, tuple[str | tuple[str, ...], bool]]:
    """Each parameter's name in model.safetensors, or its parts' along the first axis, and whether they lie there as (out, in)."""
    parts = {
        "attention_norm": "input_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.o": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "router": "block_sparse_moe.gate",
    }
    matrices = {"experts.gate": "w1", "experts.up": "w3", "experts.down": "w2"}
    names: dict[str, tuple[str | tuple[str, ...], bool]] = {"embedding": ("model.embed_tokens.weight", False)}
    for i in range(config.n_layers):
        layer = f"model.layers.{i}"
        for ours, part in parts.items():
            names[f"layers.{i}.{ours}"] = (f"{layer}.{part}.weight", not ours.endswith("norm"))
        for ours, w in matrices.items():
            experts = tuple(f"{layer}.block_sparse_moe.experts.{e}.{w}.weight" for e in range(config.n_experts))
            names[f"layers.{i}.{ours}"] = (experts, True)
    names["norm"] = ("model.norm.weight", False)
    return names if config.tied else names | {"lm_head": ("lm_head.weight", True)}
