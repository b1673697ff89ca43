"""BERT (Devlin 2018, arXiv:1810.04805): an encoder with learned positions, LayerNorm after each sub-layer, and GELU.

    x = norm(embedding(tokens) + position_embedding(positions) + type_embedding(types))
    x ← norm(x + attention(x))          x ← norm(x + mlp(x))
    logits = norm(gelu(x · dense)) · embeddingᵀ + bias

Every token sees all the others, those after it too. So the logits of a position are guesses of the token that stands there,
learned where it was hidden (`refllm.training.masking`), and the model cannot continue a text.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from refllm.array_api import namespace
from refllm.layers.attention import attention, attention_backward
from refllm.layers.dropout import Dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.kv_cache import KVCache
from refllm.layers.layer_norm import layer_norm, layer_norm_backward
from refllm.layers.linear import affine, affine_backward
from refllm.layers.mlp import ACTIVATIONS, mlp, mlp_backward
from refllm.models.heads import merge_heads, split_heads
from refllm.models.parameters import Shapes, check_sizes, initial_values, under, within
from refllm.models.regularise import drop, drop_backward
from refllm.models.sequence import Output, last_positions, last_positions_backward, place

AUTOREGRESSIVE = False  # whether a position's logits are of the token after it, and see none after it


@dataclass(frozen=True)
class Config:
    """The sizes of a BERT."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # H; divides D into heads of K = D/H
    max_positions: int  # the longest sequence there are positions for
    d_ff: int  # F, 4·D in BERT
    n_types: int = 2  # kinds of text that a token may belong to: the first sentence of a pair, the second
    norm_eps: float = 1e-12
    activation: str = "gelu_erf"
    head: bool = True  # whether it guesses masked tokens, and so has logits
    pooler: bool = False  # whether it has a layer that turns the first token's features into those of the whole text
    next_sentence: bool = False  # whether it judges, from them, if the second sentence follows the first
    padding: int | None = None  # a token whose vector looking it up does not teach (padding_idx of PyTorch)

    def __post_init__(self) -> None:
        check_sizes(self, but=("padding",))
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} cannot be cut into n_heads={self.n_heads} equal heads; make it a multiple.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}.")
        if self.next_sentence and not self.pooler:
            raise ValueError(
                "next_sentence=True needs pooler=True: the two sentences are judged by what the pooler makes of them."
            )
        if self.padding is not None and not 0 <= self.padding < self.vocab_size:
            raise ValueError(f"padding={self.padding} is no token; there are 0 … {self.vocab_size - 1}.")

    @property
    def d_head(self) -> int:
        """K, the width of one head."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        """G: every query head has a key/value head of its own."""
        return self.n_heads


# The two published sizes (Devlin 2018, section 3), as transformers' BertModel: with the pooler, without a head.
SIZES = {
    "bert-base": Config(30_522, 768, 12, 12, 512, 3072, head=False, pooler=True),
    "bert-large": Config(30_522, 1024, 24, 16, 512, 4096, head=False, pooler=True),
}


def block_shapes(config: Config) -> Shapes:
    """The name and shape of every parameter of one block."""
    D, F = config.d_model, config.d_ff
    return {
        "attention.q": (D, D),
        "attention.q_bias": (D,),
        "attention.k": (D, D),
        "attention.k_bias": (D,),
        "attention.v": (D, D),
        "attention.v_bias": (D,),
        "attention.o": (D, D),
        "attention.o_bias": (D,),
        "attention_norm.gain": (D,),
        "attention_norm.bias": (D,),
        "ffn.up": (D, F),
        "ffn.up_bias": (F,),
        "ffn.down": (F, D),
        "ffn.down_bias": (D,),
        "ffn_norm.gain": (D,),
        "ffn_norm.bias": (D,),
    }


def parameter_shapes(config: Config) -> Shapes:
    """Every parameter's name and shape, in reading order."""
    V, D = config.vocab_size, config.d_model
    shapes: Shapes = {
        "embedding": (V, D),
        "position_embedding": (config.max_positions, D),
        "type_embedding": (config.n_types, D),
        "embedding_norm.gain": (D,),
        "embedding_norm.bias": (D,),
    }
    for i in range(config.n_layers):
        shapes |= under(f"layers.{i}.", block_shapes(config))
    if config.pooler:
        shapes |= {"pooler.dense": (D, D), "pooler.dense_bias": (D,)}
    if config.next_sentence:
        shapes |= {"next_sentence.dense": (D, 2), "next_sentence.dense_bias": (2,)}
    if config.head:
        shapes |= {"head.dense": (D, D), "head.dense_bias": (D,), "head.norm.gain": (D,), "head.norm.bias": (D,)}
        shapes |= {"head.bias": (V,)}
    return shapes


def initialise(config: Config, seed: int) -> dict[str, Any]:
    """First values of every parameter, float32 NumPy arrays."""
    return initial_values(parameter_shapes(config), seed, gains=("gain",), residual=(), n_layers=config.n_layers)


def forward(
    params: Mapping[str, Any],
    tokens,
    config: Config,
    cache: KVCache | None = None,
    *,
    valid=None,
    token_types=None,
    last: int | None = None,
    dropout: Dropout | None = None,
    checkpointing: bool = False,
) -> Output:
    """Logits of the token at each position.

    tokens: (B, T) integers 0 … V−1    cache: None, for every token sees those after it
    valid: (B, T) bool or None, False for padding, which nobody sees and which may stand anywhere: positions count it
    token_types: (B, T) integers 0 … n_types−1, the kind of text that each token belongs to; None: all are of kind 0
    last: logits of the last so many positions only    dropout: after the embedding, attention and feed-forward
    checkpointing: keep each block's input instead of its intermediates; backward computes them again
    Returns logits (B, T, V) or (B, last, V), and what the backward pass needs.
    Raises ValueError for tokens that are not (B, T) or do not fit max_positions, for a cache, and where there is no head.
    """
    if cache is not None:
        raise ValueError("BERT keeps no cache: every token sees those after it, so it reads a text whole; pass cache=None.")
    if not config.head:
        raise ValueError("this BERT has no masked-token head, so it has no logits; encode gives the features of its tokens.")
    x, encoded = encode(
        params, tokens, config, valid=valid, token_types=token_types, dropout=dropout, checkpointing=checkpointing
    )
    x, asked = last_positions(x, last)
    logits, headed = guess(x, params, config)
    unused = {name: params[name] for name in parameter_shapes(config) if name.startswith(("pooler.", "next_sentence."))}
    return Output(logits, None, (encoded, asked, headed, unused))


def backward(dlogits, saved) -> dict[str, Any]:
    """The gradient of every parameter, by its name, given dlogits of logits' shape. Forward, read upwards."""
    encoded, asked, headed, unused = saved
    xp = namespace(dlogits)
    dx, dtable, grads = guess_backward(dlogits, headed)
    dx = last_positions_backward(dx, asked)
    grads |= encode_backward(dx, encoded)
    grads["embedding"] = grads["embedding"] + dtable  # the table serves twice
    return grads | {name: xp.zeros_like(p) for name, p in unused.items()}  # logits do not come by the pooler


def encode(
    params: Mapping[str, Any],
    tokens,
    config: Config,
    *,
    valid=None,
    token_types=None,
    dropout: Dropout | None = None,
    checkpointing: bool = False,
):
    """Features of every token, each seen with all the others: (B, T, D), and what the backward pass needs.

    The arguments are those of `forward`, which makes logits of the features, and so are the errors, but those of cache and head.
    """
    where, mask, _ = place(tokens, None, valid, None, config.max_positions)
    where = namespace(tokens).arange(tokens.shape[1], dtype=where.dtype)  # padding has a position here, as the others have
    mask = mask._replace(causal=False)
    if token_types is not None and token_types.shape != tokens.shape:
        needed = f"it needs that of tokens, {tuple(tokens.shape)}"
        raise ValueError(f"token_types has shape {tuple(token_types.shape)}; {needed}.")
    kinds = namespace(tokens).zeros_like(where) if token_types is None else token_types
    x, embedded = embedding(tokens, params["embedding"])
    position, placed = embedding(where, params["position_embedding"])  # (T, D)
    kind, typed = embedding(kinds, params["type_embedding"])  # (B, T, D), or (T, D) where all are of kind 0
    x, normed = layer_norm(x + position + kind, params["embedding_norm.gain"], params["embedding_norm.bias"], config.norm_eps)
    x, dropped = drop(x, dropout, "embedding")
    blocks = []
    for i in range(config.n_layers):
        given = (x, within(params, f"layers.{i}.", block_shapes(config)), config, mask, i, dropout)
        x, saved = block(*given)
        blocks.append(given if checkpointing else saved)
    return x, (tokens, config, embedded, placed, kinds, typed, normed, dropped, blocks, checkpointing)


def encode_backward(dx, saved) -> dict[str, Any]:
    """The gradient of every parameter below the heads, by its name, given that of the features: (B, T, D)."""
    tokens, config, embedded, placed, kinds, typed, normed, dropped, blocks, checkpointing = saved
    xp = namespace(dx)
    grads: dict[str, Any] = {}
    for i in reversed(range(len(blocks))):
        block_saved = block(*blocks[i])[-1] if checkpointing else blocks[i]
        dx, dblock = block_backward(dx, block_saved)
        grads |= under(f"layers.{i}.", dblock)
    dx = drop_backward(dx, dropped)
    dx, grads["embedding_norm.gain"], grads["embedding_norm.bias"] = layer_norm_backward(dx, normed)
    dposition = xp.sum(dx, axis=0)  # rows share their positions
    grads["type_embedding"] = embedding_backward(dposition if kinds.ndim == 1 else dx, typed)
    grads["position_embedding"] = embedding_backward(dposition, placed)
    if config.padding is not None:
        dx = xp.where((tokens != config.padding)[..., None], dx, 0.0)
    grads["embedding"] = embedding_backward(dx, embedded)
    return grads


def block(x, p, config: Config, mask, i: int, dropout):
    """Layer i. x: (B, T, D) -> (B, T, D) and what backward needs."""
    h, attended = self_attention(x, p, config, mask)
    h, drop1 = drop(h, dropout, f"layers.{i}.attention")
    x, norm1 = layer_norm(x + h, p["attention_norm.gain"], p["attention_norm.bias"], config.norm_eps)
    h, ffn = mlp(x, p["ffn.up"], p["ffn.up_bias"], p["ffn.down"], p["ffn.down_bias"], config.activation)
    h, drop2 = drop(h, dropout, f"layers.{i}.ffn")
    x, norm2 = layer_norm(x + h, p["ffn_norm.gain"], p["ffn_norm.bias"], config.norm_eps)
    return x, (attended, drop1, norm1, ffn, drop2, norm2)


def block_backward(dy, saved):
    """Return dx: (B, T, D) and the gradients of the block's parameters. A residual passes its gradient on unchanged."""
    attended, drop1, norm1, ffn, drop2, norm2 = saved
    grads = {}
    dx, grads["ffn_norm.gain"], grads["ffn_norm.bias"] = layer_norm_backward(dy, norm2)
    dh, *dmlp = mlp_backward(drop_backward(dx, drop2), ffn)
    grads["ffn.up"], grads["ffn.up_bias"], grads["ffn.down"], grads["ffn.down_bias"] = dmlp
    dx, grads["attention_norm.gain"], grads["attention_norm.bias"] = layer_norm_backward(dx + dh, norm1)
    dh, dattention = self_attention_backward(drop_backward(dx, drop1), attended)
    return dx + dh, grads | dattention


def self_attention(x, p, config: Config, mask):
    """x: (B, T, D) -> (B, T, D) and what backward needs."""
    q, q_saved = affine(x, p["attention.q"], p["attention.q_bias"])
    k, k_saved = affine(x, p["attention.k"], p["attention.k_bias"])
    v, v_saved = affine(x, p["attention.v"], p["attention.v_bias"])
    heads = [split_heads(z, config.n_heads) for z in (q, k, v)]  # (B, H, T, K) each
    y, attended = attention(*heads, mask, config.d_head**-0.5)
    out, o_saved = affine(merge_heads(y), p["attention.o"], p["attention.o_bias"])
    return out, (q_saved, k_saved, v_saved, attended, o_saved, config.n_heads)


def self_attention_backward(dout, saved):
    """Return dx: (B, T, D) and the gradients of q, k, v and o."""
    q_saved, k_saved, v_saved, attended, o_saved, H = saved
    grads = {}
    dy, grads["attention.o"], grads["attention.o_bias"] = affine_backward(dout, o_saved)
    dq, dk, dv = attention_backward(split_heads(dy, H), attended)
    dxq, grads["attention.q"], grads["attention.q_bias"] = affine_backward(merge_heads(dq), q_saved)
    dxk, grads["attention.k"], grads["attention.k_bias"] = affine_backward(merge_heads(dk), k_saved)
    dxv, grads["attention.v"], grads["attention.v_bias"] = affine_backward(merge_heads(dv), v_saved)
    return dxq + dxk + dxv, grads


def guess(x, params: Mapping[str, Any], config: Config):
    """The masked-token head. x: (B, T, D), features -> logits (B, T, V) and what backward needs."""
    bend, _ = ACTIVATIONS[config.activation]
    h, dense = affine(x, params["head.dense"], params["head.dense_bias"])
    h, bent = bend(h)
    h, normed = layer_norm(h, params["head.norm.gain"], params["head.norm.bias"], config.norm_eps)
    table = namespace(h).matrix_transpose(params["embedding"])  # (D, V)
    logits, decoded = affine(h, table, params["head.bias"])
    return logits, (dense, bent, normed, decoded, config)


def guess_backward(dlogits, saved):
    """Return dx: (B, T, D), the head's share of the embedding's gradient: (V, D), and the gradients of the head."""
    dense, bent, normed, decoded, config = saved
    _, bend_backward = ACTIVATIONS[config.activation]
    grads = {}
    dh, dtable, grads["head.bias"] = affine_backward(dlogits, decoded)
    dh, grads["head.norm.gain"], grads["head.norm.bias"] = layer_norm_backward(dh, normed)
    dx, grads["head.dense"], grads["head.dense_bias"] = affine_backward(bend_backward(dh, bent), dense)
    return dx, namespace(dtable).matrix_transpose(dtable), grads


def pool(x, params: Mapping[str, Any]):
    """Features of whole texts, from those of their first tokens. x: (B, T, D) -> (B, D) and what backward needs."""
    h, dense = affine(x[:, 0, :], params["pooler.dense"], params["pooler.dense_bias"])
    y = namespace(h).tanh(h)
    return y, (x, dense, y)


def pool_backward(dy, saved):
    """Return dx: (B, T, D), zero but for the first tokens, and the pooler's gradients, given dy: (B, D).   tanh' = 1 − tanh²."""
    x, dense, y = saved
    xp = namespace(dy)
    dfirst, dweight, dbias = affine_backward(dy * (1 - y * y), dense)
    dx = xp.concat([dfirst[:, None, :], xp.zeros_like(x[:, 1:, :])], axis=1)
    return dx, {"pooler.dense": dweight, "pooler.dense_bias": dbias}


def judge_next_sentence(pooled, params: Mapping[str, Any]):
    """Logits of the second sentence following the first, and of its being another: (B, 2), and what affine_backward needs.

    pooled: (B, D)
    """
    return affine(pooled, params["next_sentence.dense"], params["next_sentence.dense_bias"])


MODEL_TYPES = ("bert",)  # of config.json
BASE_PREFIX = "bert."  # of tensor names; a file saved without heads lacks it
BUFFERS = (r"(bert\.)?embeddings\.(position|token_type)_ids", r"cls\.predictions\.decoder\.(weight|bias)")  # the last: tied
OLD_NAMES = (
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # as TensorFlow had them
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)

ACTIVATION_NAMES = {"gelu_erf": ("gelu",), "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh")}  # theirs; the first is written
CLASSES = {  # transformers' classes, by head, pooler and next_sentence
    (True, False, False): "BertForMaskedLM",
    (True, True, True): "BertForPreTraining",
    (False, True, False): "BertModel",
    (False, True, True): "BertForNextSentencePrediction",
}


def hugging_face_config(config: Config) -> dict[str, Any]:
    """config.json's fields. Of parts that no class has together, BertForPreTraining's is the one with room for all."""
    has = (config.head, config.pooler, config.next_sentence)
    return {
        "architectures": [CLASSES.get(has, "BertForPreTraining" if config.head else "BertModel")],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.n_types,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": ACTIVATION_NAMES[config.activation][0],
        "position_embedding_type": "absolute",
        "pad_token_id": config.padding,
        "tie_word_embeddings": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def from_hugging_face(fields: Mapping[str, Any]) -> Config:
    """Read config.json's fields; those left out have transformers' defaults. Which heads there are the class says.

    Raises ValueError for a variant of BERT that this file does not compute.
    """
    theirs = fields.get("hidden_act", "gelu")
    activation = next((ours for ours, names in ACTIVATION_NAMES.items() if theirs in names), None)
    computed = {
        "hidden_act": activation is not None,
        "position_embedding_type": fields.get("position_embedding_type", "absolute") == "absolute",
        "tie_word_embeddings": fields.get("tie_word_embeddings", True),
        "is_decoder": not fields.get("is_decoder"),
        "add_cross_attention": not fields.get("add_cross_attention"),
    }
    if activation is None or not all(computed.values()):
        unknown = ", ".join(f"{name}={fields[name]!r}" for name, known in computed.items() if not known)
        raise ValueError(f"config.json has {unknown}; this BERT is an encoder with a GELU, learned positions and a tied head.")
    kind = (fields.get("architectures") or ["BertModel"])[0]
    head, pooler, next_sentence = next((has for has, name in CLASSES.items() if name == kind), (False, True, False))
    return Config(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=fields["num_hidden_layers"],
        n_heads=fields["num_attention_heads"],
        max_positions=fields.get("max_position_embeddings", 512),
        d_ff=fields["intermediate_size"],
        n_types=fields.get("type_vocab_size", 2),
        norm_eps=fields.get("layer_norm_eps", 1e-12),
        activation=activation,
        head=head,
        pooler=pooler,
        next_sentence=next_sentence,
        padding=fields.get("pad_token_id", 0),
    )


def fitted(config: Config, names: Collection[str]) -> Config:
    """The configuration with the heads that a checkpoint of these tensors has, whatever class config.json speaks of.

    BERT's own file, for one, is said to be of the masked-token model's class, and holds the pooler too.
    """

    def holds(part: str) -> bool:
        return any(name.removeprefix(BASE_PREFIX).startswith(part) for name in names)

    pooler, follows = holds("pooler."), holds("cls.seq_relationship.")
    return replace(config, head=holds("cls.predictions."), pooler=pooler, next_sentence=follows)


def hugging_face_names(config: Config) -> dict[str, tuple[str, bool]]:
    """Each parameter's name in model.safetensors, and whether it lies there transposed, as (out, in)."""
    names = {
        "embedding": "bert.embeddings.word_embeddings.weight",
        "position_embedding": "bert.embeddings.position_embeddings.weight",
        "type_embedding": "bert.embeddings.token_type_embeddings.weight",
        "embedding_norm": "bert.embeddings.LayerNorm",
        "pooler.dense": "bert.pooler.dense",
        "next_sentence.dense": "cls.seq_relationship",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.bias": "cls.predictions.bias",
    }
    parts = {
        "attention.q": "attention.self.query",
        "attention.k": "attention.self.key",
        "attention.v": "attention.self.value",
        "attention.o": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "ffn.up": "intermediate.dense",
        "ffn.down": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
    for i in range(config.n_layers):
        names |= {f"layers.{i}.{ours}": f"bert.encoder.layer.{i}.{theirs}" for ours, theirs in parts.items()}
    found = {}
    for ours, shape in parameter_shapes(config).items():
        part = ours.removesuffix("_bias").removesuffix(".gain")
        if part in names:
            kind = "" if names[part].endswith((".weight", ".bias")) else ".bias" if ours.endswith("_bias") else ".weight"
        else:
            part, kind = part.removesuffix(".bias"), ".bias"
        found[ours] = (names[part] + kind, len(shape) == 2 and not part.endswith("embedding"))
    if config.head or config.next_sentence:
        return found
    return {ours: (name.removeprefix(BASE_PREFIX), transposed) for ours, (name, transposed) in found.items()}
