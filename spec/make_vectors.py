"""Make the specification's vectors: inputs, outputs and gradients in float64, computed by PyTorch and transformers alone.

    python spec/make_vectors.py [page …]          writes spec/<page>.json for the pages named, or for all

refllm is never imported: the vectors are what an outside implementation says. Every floating input is a multiple of 1/32 below 4
(softmax and cross-entropy: a few times that), which float16, bfloat16, float32 and float64 hold exactly; for the parameters of
models a multiple of 1/256, which all but bfloat16 hold.
Needs torch and transformers: pip install 'refllm[oracle]'.
"""

import datetime
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

# Models that are run "in float64" still cast norms, softmax and angles to float32 by these names.
torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)

import torch.nn.functional as F  # noqa: E402  # after float32 has become float64

Case = dict[str, Any]
FOLDER = Path(__file__).parent


def draw(*shape: int, unit: float = 1 / 32, largest: float = 3.0) -> torch.Tensor:
    """Multiples of a unit, uniform between ±largest."""
    steps = int(largest / unit)
    return torch.randint(-steps, steps + 1, shape).double() * unit


def case(op: str, f: Callable[..., torch.Tensor], inputs: dict[str, Any], differentiate: tuple[str, ...]) -> Case:
    """f of the inputs, and the gradients that autograd gives for a drawn dy."""
    inputs = {n: x.clone().requires_grad_(n in differentiate) if isinstance(x, torch.Tensor) else x for n, x in inputs.items()}
    y = f(**inputs)
    if not differentiate:
        return {"op": op, "inputs": inputs, "outputs": {"y": y}}
    dy = draw(*y.shape, largest=2.0)
    gradients = torch.autograd.grad(y, [inputs[n] for n in differentiate], dy)
    outputs = {"y": y} | {f"d{n}": g for n, g in zip(differentiate, gradients, strict=True)}
    return {"op": op, "inputs": inputs | {"dy": dy}, "outputs": outputs}


def linear() -> Iterator[Case]:
    for lead, d, f in (((2, 3), 4, 5), ((1,), 1, 1), ((6,), 7, 2)):
        yield case("linear", lambda x, weight: x @ weight, {"x": draw(*lead, d), "weight": draw(d, f)}, ("x", "weight"))
    inputs = {"x": draw(2, 3, 4), "weight": draw(4, 5), "bias": draw(5)}
    yield case("affine", lambda x, weight, bias: F.linear(x, weight.T, bias), inputs, ("x", "weight", "bias"))


def embedding() -> Iterator[Case]:
    for tokens in ([[0, 3, 3], [1, 3, 0]], [[2]]):
        inputs = {"tokens": torch.tensor(tokens), "table": draw(5, 4)}
        yield case("embedding", lambda tokens, table: F.embedding(tokens, table), inputs, ("table",))


def rms_norm() -> Iterator[Case]:
    def f(x, gain, eps):
        return F.rms_norm(x, x.shape[-1:], gain, eps)

    for lead, d, eps in (((2, 3), 5, 1e-5), ((1,), 1, 1e-6), ((3,), 64, 1e-6), ((2,), 3, 0.5)):
        yield case("rms_norm", f, {"x": draw(*lead, d), "gain": draw(d), "eps": eps}, ("x", "gain"))
    yield case("rms_norm", f, {"x": torch.zeros(2, 4), "gain": draw(4), "eps": 1e-5}, ("x", "gain"))


def layer_norm() -> Iterator[Case]:
    def f(x, gain, bias, eps):
        return F.layer_norm(x, x.shape[-1:], gain, bias, eps)

    for lead, d, eps in (((2, 3), 5, 1e-5), ((3,), 64, 1e-5), ((2,), 3, 0.5)):
        inputs = {"x": draw(*lead, d), "gain": draw(d), "bias": draw(d), "eps": eps}
        yield case("layer_norm", f, inputs, ("x", "gain", "bias"))


def softmax() -> Iterator[Case]:
    for x in (draw(2, 3, 5), draw(3, 1), draw(2, 33) * 16, torch.full((1, 4), -2.5)):
        yield case("softmax", lambda x: F.softmax(x, dim=-1), {"x": x}, ("x",))


def gelu() -> Iterator[Case]:
    for x in (draw(2, 9), torch.tensor([-16.0, -6.0, -1.0, -0.0625, 0.0, 0.0625, 1.0, 6.0, 16.0])):
        yield case("gelu_erf", lambda x: F.gelu(x), {"x": x}, ("x",))
        yield case("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), {"x": x}, ("x",))


def swiglu() -> Iterator[Case]:
    for x in (draw(2, 9), torch.tensor([-64.0, -6.0, -0.0625, 0.0, 0.0625, 6.0, 64.0])):
        yield case("silu", lambda a: F.silu(a), {"a": x}, ("a",))

    def f(x, gate, up, down):
        return (F.silu(x @ gate) * (x @ up)) @ down

    for lead, d, hidden in (((2, 3), 4, 6), ((1,), 1, 1)):
        inputs = {"x": draw(*lead, d), "gate": draw(d, hidden), "up": draw(d, hidden), "down": draw(hidden, d)}
        yield case("swiglu", f, inputs, ("x", "gate", "up", "down"))


def geglu() -> Iterator[Case]:
    def f(x, gate, up, down):
        return (F.gelu(x @ gate, approximate="tanh") * (x @ up)) @ down

    for lead, d, hidden in (((2, 3), 4, 6), ((1,), 1, 1)):
        inputs = {"x": draw(*lead, d), "gate": draw(d, hidden), "up": draw(d, hidden), "down": draw(hidden, d)}
        yield case("geglu", f, inputs, ("x", "gate", "up", "down"))


def softcap() -> Iterator[Case]:
    for x, cap in ((draw(2, 9), 2.0), (draw(3) * 16, 30.0), (torch.tensor([-64.0, -0.0625, 0.0, 0.0625, 64.0]), 0.5)):
        yield case("softcap", lambda x, cap: torch.tanh(x / cap) * cap, {"x": x, "cap": cap}, ("x",))


def mlp() -> Iterator[Case]:
    def f(x, up, up_bias, down, down_bias, activation):
        approximate = {"gelu_tanh": "tanh", "gelu_erf": "none"}[activation]
        return F.linear(F.gelu(F.linear(x, up.T, up_bias), approximate=approximate), down.T, down_bias)

    for activation in ("gelu_tanh", "gelu_erf"):
        inputs = {"x": draw(2, 3, 4), "up": draw(4, 6), "up_bias": draw(6), "down": draw(6, 4), "down_bias": draw(4)}
        yield case("mlp", f, inputs | {"activation": activation}, ("x", "up", "up_bias", "down", "down_bias"))


def mixture_of_experts() -> Iterator[Case]:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    def mixture(x, logits, gate, up, down, top_k):  # every expert answers, and those not among the best weigh nothing
        values, chosen = torch.topk(logits, top_k, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(values, dim=-1))
        hidden = F.silu(torch.einsum("...d,edf->...ef", x, gate)) * torch.einsum("...d,edf->...ef", x, up)
        return torch.einsum("...ef,efd,...e->...d", hidden, down, weights)

    def balance(logits, valid, top_k):
        return load_balancing_loss_func((logits,), logits.shape[-1], top_k, None if valid is None else valid.long())

    def apart(*shape):  # no two logits of a position are equal
        return torch.stack([torch.randperm(4 * shape[-1])[: shape[-1]] for _ in range(math.prod(shape[:-1]))]).reshape(shape) / 4

    for lead, D, hidden, E, k in (((2, 3), 4, 3, 4, 2), ((1,), 1, 1, 2, 1), ((9,), 2, 3, 3, 2), ((2,), 3, 2, 2, 2)):
        experts = {"gate": draw(E, D, hidden), "up": draw(E, D, hidden), "down": draw(E, hidden, D)}
        inputs = {"x": draw(*lead, D), "logits": apart(*lead, E)} | experts | {"top_k": k}
        yield case("mixture_of_experts", mixture, inputs, ("x", "logits", *experts))
    for N, E, k, padded in ((6, 4, 1, 0), (5, 8, 2, 0), (7, 3, 2, 3)):
        valid = torch.arange(N) >= padded if padded else None
        yield case("load_balancing_loss", balance, {"logits": apart(N, E), "valid": valid, "top_k": k}, ("logits",))


def rope() -> Iterator[Case]:
    def rotate_half(x, cos, sin):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        return apply_rotary_pos_emb(x, x, torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None])[0]

    def interleaved(x, cos, sin):  # complex multiplication, as in Meta's own code
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.complex(cos, sin)).reshape(x.shape)

    for shape in ((2, 2, 3, 4), (1, 1, 2, 2)):
        t, half = shape[2], shape[3] // 2
        inputs = {"x": draw(*shape), "cos": draw(t, half, largest=1.0), "sin": draw(t, half, largest=1.0)}
        yield case("rope", rotate_half, inputs, ("x",))
        yield case("rope_interleaved", interleaved, inputs, ("x",))


def masks(B: int, T: int, S: int) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """Masks in the specification's words, and as the (B, 1, T, S) truth values that PyTorch takes."""
    t, s = torch.arange(S - T, S)[:, None], torch.arange(S)[None, :]
    everything = torch.ones(B, 1, T, S, dtype=torch.bool)
    valid = torch.arange(S)[None, :] >= torch.arange(B)[:, None]  # row b begins with b keys of padding
    plain = {"start": S - T, "causal": True, "window": None, "valid": None}
    yield plain, everything & (s <= t)
    yield plain | {"causal": False}, everything
    yield plain | {"window": 2}, everything & (s <= t) & (s > t - 2)
    yield plain | {"valid": valid}, everything & (s <= t) & valid[:, None, None, :]


def attention() -> Iterator[Case]:
    for B, H, G, T, S, K in ((2, 4, 2, 3, 3, 4), (1, 2, 1, 1, 5, 2), (1, 1, 1, 4, 6, 3)):
        for mask, seen in masks(B, T, S):
            given = {"q": draw(B, H, T, K), "k": draw(B, G, S, K), "v": draw(B, G, S, K), "mask": mask, "scale": K**-0.5}
            yield case("attention", scaled_dot_product(seen), given | {"softcap": None}, ("q", "k", "v"))
    for mask, seen in masks(2, 2, 3):
        given = {"q": draw(2, 2, 2, 3), "k": draw(2, 1, 3, 3), "v": draw(2, 1, 3, 3), "mask": mask, "scale": 0.5}
        yield case("attention", capped_attention(seen), given | {"softcap": 1.5}, ("q", "k", "v"))


def blockwise_attention() -> Iterator[Case]:
    for B, H, G, T, S, K, block in ((2, 2, 1, 3, 5, 2, 2), (1, 2, 2, 4, 4, 3, 3)):
        for mask, seen in masks(B, T, S):
            given = {"q": draw(B, H, T, K), "k": draw(B, G, S, K), "v": draw(B, G, S, K), "mask": mask, "scale": 0.5}
            yield case(
                "blockwise_attention", scaled_dot_product(seen), given | {"block": block, "softcap": None}, ("q", "k", "v")
            )
    for mask, seen in masks(2, 2, 3):
        given = {"q": draw(2, 2, 2, 3), "k": draw(2, 1, 3, 3), "v": draw(2, 1, 3, 3), "mask": mask, "scale": 0.5}
        yield case("blockwise_attention", capped_attention(seen), given | {"block": 2, "softcap": 1.5}, ("q", "k", "v"))


def cached_attention() -> Iterator[Case]:
    """Attention of keys and values that are cut into blocks, of which the first has one row for all."""
    for B, H, G, T, sizes, K, cap in (
        (2, 4, 2, 1, (2, 2, 1), 4, None),
        (1, 2, 1, 3, (4, 1), 3, None),
        (2, 2, 2, 1, (2, 1), 2, 1.5),
    ):
        S = sum(sizes)
        for mask, seen in masks(B, T, S):
            keys, values = (tuple(draw(1 if i == 0 else B, G, s, K) for i, s in enumerate(sizes)) for _ in range(2))
            given = {"q": draw(B, H, T, K), "keys": keys, "values": values, "mask": mask, "scale": 0.5, "softcap": cap}
            f = scaled_dot_product(seen) if cap is None else capped_attention(seen)
            yield case("cached_attention", over_blocks(f), given, ())


def over_blocks(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """An attention of blocks joined."""

    def joined(blocks: tuple[torch.Tensor, ...], B: int) -> torch.Tensor:
        return torch.cat([block.expand(B, -1, -1, -1) for block in blocks], dim=2)

    def g(q, keys, values, mask, scale, softcap):
        return f(q, joined(keys, len(q)), joined(values, len(q)), mask, scale, softcap)

    return g


def scaled_dot_product(seen: torch.Tensor) -> Callable[..., torch.Tensor]:
    """PyTorch's attention; where a query sees nothing it gives NaN, and the specification zero."""

    def f(q, k, v, mask, scale, softcap, block=None):
        blind = ~seen.any(-1, keepdim=True)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | blind, scale=scale, enable_gqa=True)
        return torch.where(blind, 0.0, y)

    return f


def capped_attention(seen: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The attention of transformers' Gemma 2; where a query sees nothing it gives the mean, and the specification zero."""

    def f(q, k, v, mask, scale, softcap, block=None):
        from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

        layer = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
        unseen = torch.where(seen, 0.0, torch.finfo(torch.float64).min)
        y, _ = eager_attention_forward(layer, q, k, v, unseen, scaling=scale, softcap=softcap)
        return torch.where(seen.any(-1, keepdim=True), y.transpose(1, 2), 0.0)

    return f


def dropout() -> Iterator[Case]:
    def f(x, uniforms, rate):
        return x * (uniforms >= rate) / (1 - rate)

    for rate in (0.0, 0.25, 0.5):
        inputs = {"x": draw(3, 5), "uniforms": torch.randint(0, 32, (3, 5)).double() / 32, "rate": rate}
        yield case("dropout", f, inputs, ("x",))


def cross_entropy() -> Iterator[Case]:
    def f(logits, targets, ignore_index):
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=ignore_index)

    def with_head(x, weight, targets, ignore_index, block):
        return f(x @ weight, targets, ignore_index)

    for logits, targets in (
        (draw(2, 3, 5), [[0, 4, 2], [1, 1, 3]]),
        (draw(2, 3, 5) * 8, [[-100, 4, 2], [1, -100, 3]]),
        (draw(1, 1), [0]),
        (draw(3, 33), [32, 0, 7]),
    ):
        inputs = {"logits": logits, "targets": torch.tensor(targets), "ignore_index": -100}
        yield case("cross_entropy", f, inputs, ("logits",))
    for targets, block in (([0, 6, 3], 4), ([-100, 2, 5], 100)):
        inputs = {"x": draw(3, 4), "weight": draw(4, 7), "targets": torch.tensor(targets), "ignore_index": -100, "block": block}
        yield case("linear_cross_entropy", with_head, inputs, ("x", "weight"))


# Models, by transformers. Names and layouts on the left are the specification's, on the right Hugging Face's.

GPT2_NAMES = {
    "embedding": "transformer.wte.weight",
    "position_embedding": "transformer.wpe.weight",
    "layers.{i}.attention_norm.gain": "transformer.h.{i}.ln_1.weight",
    "layers.{i}.attention_norm.bias": "transformer.h.{i}.ln_1.bias",
    "layers.{i}.attention.qkv": "transformer.h.{i}.attn.c_attn.weight",
    "layers.{i}.attention.qkv_bias": "transformer.h.{i}.attn.c_attn.bias",
    "layers.{i}.attention.o": "transformer.h.{i}.attn.c_proj.weight",
    "layers.{i}.attention.o_bias": "transformer.h.{i}.attn.c_proj.bias",
    "layers.{i}.ffn_norm.gain": "transformer.h.{i}.ln_2.weight",
    "layers.{i}.ffn_norm.bias": "transformer.h.{i}.ln_2.bias",
    "layers.{i}.ffn.up": "transformer.h.{i}.mlp.c_fc.weight",
    "layers.{i}.ffn.up_bias": "transformer.h.{i}.mlp.c_fc.bias",
    "layers.{i}.ffn.down": "transformer.h.{i}.mlp.c_proj.weight",
    "layers.{i}.ffn.down_bias": "transformer.h.{i}.mlp.c_proj.bias",
    "norm.gain": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
}
LLAMA_NAMES = {  # all matrices but the embedding lie transposed
    "embedding": "model.embed_tokens.weight",
    "layers.{i}.attention_norm": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.attention.q": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.attention.q_bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.attention.k": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.attention.k_bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.attention.v": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.attention.v_bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.attention.o": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.attention.o_bias": "model.layers.{i}.self_attn.o_proj.bias",
    "layers.{i}.attention.q_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.attention.k_norm": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.ffn.gate": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.{i}.ffn.gate_bias": "model.layers.{i}.mlp.gate_proj.bias",
    "layers.{i}.ffn.up": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.ffn.up_bias": "model.layers.{i}.mlp.up_proj.bias",
    "layers.{i}.ffn.down": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.ffn.down_bias": "model.layers.{i}.mlp.down_proj.bias",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


BERT_NAMES = {  # the matrices but the embeddings lie transposed
    "embedding": "bert.embeddings.word_embeddings.weight",
    "position_embedding": "bert.embeddings.position_embeddings.weight",
    "type_embedding": "bert.embeddings.token_type_embeddings.weight",
    "embedding_norm.gain": "bert.embeddings.LayerNorm.weight",
    "embedding_norm.bias": "bert.embeddings.LayerNorm.bias",
    "layers.{i}.attention.q": "bert.encoder.layer.{i}.attention.self.query.weight",
    "layers.{i}.attention.q_bias": "bert.encoder.layer.{i}.attention.self.query.bias",
    "layers.{i}.attention.k": "bert.encoder.layer.{i}.attention.self.key.weight",
    "layers.{i}.attention.k_bias": "bert.encoder.layer.{i}.attention.self.key.bias",
    "layers.{i}.attention.v": "bert.encoder.layer.{i}.attention.self.value.weight",
    "layers.{i}.attention.v_bias": "bert.encoder.layer.{i}.attention.self.value.bias",
    "layers.{i}.attention.o": "bert.encoder.layer.{i}.attention.output.dense.weight",
    "layers.{i}.attention.o_bias": "bert.encoder.layer.{i}.attention.output.dense.bias",
    "layers.{i}.attention_norm.gain": "bert.encoder.layer.{i}.attention.output.LayerNorm.weight",
    "layers.{i}.attention_norm.bias": "bert.encoder.layer.{i}.attention.output.LayerNorm.bias",
    "layers.{i}.ffn.up": "bert.encoder.layer.{i}.intermediate.dense.weight",
    "layers.{i}.ffn.up_bias": "bert.encoder.layer.{i}.intermediate.dense.bias",
    "layers.{i}.ffn.down": "bert.encoder.layer.{i}.output.dense.weight",
    "layers.{i}.ffn.down_bias": "bert.encoder.layer.{i}.output.dense.bias",
    "layers.{i}.ffn_norm.gain": "bert.encoder.layer.{i}.output.LayerNorm.weight",
    "layers.{i}.ffn_norm.bias": "bert.encoder.layer.{i}.output.LayerNorm.bias",
    "head.dense": "cls.predictions.transform.dense.weight",
    "head.dense_bias": "cls.predictions.transform.dense.bias",
    "head.norm.gain": "cls.predictions.transform.LayerNorm.weight",
    "head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "head.bias": "cls.predictions.bias",
}
MIXTRAL_NAMES = {ours: theirs for ours, theirs in LLAMA_NAMES.items() if ".ffn." not in ours} | {
    "layers.{i}.router": "model.layers.{i}.mlp.gate.weight",
    "layers.{i}.experts.gate_up": "model.layers.{i}.mlp.experts.gate_up_proj",  # (E, 2F, D), cut in two where it is shown
    "layers.{i}.experts.down": "model.layers.{i}.mlp.experts.down_proj",
}


GEMMA_NAMES = {  # all matrices but the embedding lie transposed; Gemma 1 has the norm before its feed-forward under another name
    "embedding": "model.embed_tokens.weight",
    "layers.{i}.attention_norm": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.attention.q": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.attention.k": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.attention.v": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.attention.o": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.attention.q_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.attention.k_norm": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.{i}.attention_post_norm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.ffn_norm": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "layers.{i}.ffn.gate": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.{i}.ffn.up": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.ffn.down": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.ffn_post_norm": "model.layers.{i}.post_feedforward_layernorm.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


class Made(NamedTuple):
    """A model of transformers beside its parameters under the specification's names."""

    op: str
    config: dict[str, Any]
    model: torch.nn.Module
    tensors: dict[str, torch.nn.Parameter]

    def transposed(self, name: str) -> bool:
        return self.op != "gpt2" and self.tensors[name].ndim >= 2 and not name.endswith("embedding")

    def shown(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        shown = (tensor.mT if self.transposed(name) else tensor).detach().clone()
        if not name.endswith("gate_up"):
            return {name: shown}
        gate, up = shown.chunk(2, dim=-1)
        return {name.replace("gate_up", "gate"): gate.clone(), name.replace("gate_up", "up"): up.clone()}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {n: x for name, tensor in self.tensors.items() for n, x in self.shown(name, tensor).items()}

    def gradients(self) -> dict[str, torch.Tensor]:
        return {f"d{n}": x for name, tensor in self.tensors.items() for n, x in self.shown(name, tensor.grad).items()}


def made(op: str, config: dict[str, Any], model: torch.nn.Module, names: dict[str, str]) -> Made:
    """Give every parameter a drawn value: matrices within ±1/2, gains and biases as deviations of at most 1/4."""
    theirs = dict(model.named_parameters())
    every = [n.format(i=i) for n in names for i in range(config["n_layers"] if "{i}" in n else 1)]
    order = sorted(every, key=lambda n: (_place(n), every.index(n)))
    paths = {ours.format(i=i): path.format(i=i) for ours, path in names.items() for i in range(config["n_layers"])}
    tensors = {n: theirs[paths[n]] for n in order if paths[n] in theirs}
    for name, tensor in tensors.items():
        gain = tensor.ndim == 1 and not name.endswith("bias")
        unit, largest = (1 / 256, 0.25) if tensor.ndim == 1 else (1 / 128, 0.5)
        tensor.data = draw(*tensor.shape, unit=unit, largest=largest) + (1.0 if gain and op != "gemma" else 0.0)
    assert len(tensors) == len(theirs)
    return Made(op, config, model.double().eval(), tensors)


def _place(name: str) -> tuple[int, int]:
    """Reading order: the embeddings, the layers by number, what follows them."""
    if name.startswith("layers."):
        return 1, int(name.split(".")[1])
    return (0, 0) if "embedding" in name else (2, 0)


def make_gpt2(**changes: Any) -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 7, "d_model": 6, "n_layers": 2, "n_heads": 2, "max_positions": 10, "d_ff": 8}
    config = sizes | {"norm_eps": 1e-5, "activation": "gelu_tanh"} | changes
    theirs = GPT2Config(
        vocab_size=config["vocab_size"],
        n_embd=config["d_model"],
        n_layer=config["n_layers"],
        n_head=config["n_heads"],
        n_positions=config["max_positions"],
        n_inner=config["d_ff"],
        layer_norm_epsilon=config["norm_eps"],
        activation_function={"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}[config["activation"]],
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return made("gpt2", config, GPT2LMHeadModel(theirs), GPT2_NAMES)


def make_llama(**changes: Any) -> Made:
    """The class of transformers is the one whose variants are asked for: Qwen 3 with q/k norms, Qwen 2 with q/k/v biases, …"""
    import transformers

    sizes = {"vocab_size": 7, "d_model": 8, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "d_ff": 5}
    rest = {"max_positions": 10, "rope_theta": 100.0, "norm_eps": 1e-5, "tied": False, "window": None, "rope_scaling": None}
    kinds = {"full_layers": [], "qkv_bias": False, "o_bias": False, "ffn_bias": False, "qk_norm": False}
    config = sizes | rest | kinds | changes
    parameters = {"rope_type": "default", "rope_theta": config["rope_theta"]} | their_scaling(config["rope_scaling"] or {})
    fields = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config["n_kv_heads"],
        "head_dim": config["d_head"],
        "intermediate_size": config["d_ff"],
        "max_position_embeddings": config["max_positions"],
        "rms_norm_eps": config["norm_eps"],
        "rope_parameters": parameters,
        "tie_word_embeddings": config["tied"],
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "attn_implementation": "eager",
    }
    if config["qk_norm"] or (config["qkv_bias"] and not config["o_bias"]):
        name = "Qwen3" if config["qk_norm"] else "Qwen2"
        full = config["full_layers"] if config["window"] else range(config["n_layers"])
        fields["layer_types"] = [f"{'full' if i in full else 'sliding'}_attention" for i in range(config["n_layers"])]
        fields |= {"use_sliding_window": config["window"] is not None, "sliding_window": config["window"]}
        fields |= {"attention_bias": config["o_bias"]} if config["qk_norm"] else {}
    elif config["window"]:
        name = "Mistral"
        fields["sliding_window"] = config["window"]
    else:
        name = "Llama"
        fields |= {"attention_bias": config["o_bias"], "mlp_bias": config["ffn_bias"]}
    theirs = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**fields))
    return made("llama", config, theirs, LLAMA_NAMES)


def make_bert(**changes: Any) -> Made:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"vocab_size": 7, "d_model": 6, "n_layers": 2, "n_heads": 2, "max_positions": 8, "d_ff": 8, "n_types": 2}
    config = sizes | {"norm_eps": 1e-12, "activation": "gelu_erf", "padding": None} | changes
    theirs = BertConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_hidden_layers=config["n_layers"],
        num_attention_heads=config["n_heads"],
        intermediate_size=config["d_ff"],
        max_position_embeddings=config["max_positions"],
        type_vocab_size=config["n_types"],
        layer_norm_eps=config["norm_eps"],
        hidden_act={"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}[config["activation"]],
        pad_token_id=config["padding"],
        attn_implementation="eager",
    )
    return made("bert", config, BertForMaskedLM(theirs), BERT_NAMES)


def make_mixtral(**changes: Any) -> Made:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 7, "d_model": 4, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 2, "d_ff": 3}
    rest = {"max_positions": 10, "rope_theta": 100.0, "norm_eps": 1e-5, "tied": False, "window": None}
    kinds = {"n_experts": 4, "top_k": 2, "balanced": False, "balance_weight": 0.5}
    config = sizes | rest | kinds | changes
    theirs = MixtralConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_hidden_layers=config["n_layers"],
        num_attention_heads=config["n_heads"],
        num_key_value_heads=config["n_kv_heads"],
        head_dim=config["d_head"],
        intermediate_size=config["d_ff"],
        num_local_experts=config["n_experts"],
        num_experts_per_tok=config["top_k"],
        output_router_logits=config["balanced"],
        router_aux_loss_coef=config["balance_weight"],
        max_position_embeddings=config["max_positions"],
        sliding_window=config["window"],
        rms_norm_eps=config["norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": config["rope_theta"]},
        tie_word_embeddings=config["tied"],
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return made("mixtral", config, MixtralForCausalLM(theirs), MIXTRAL_NAMES)


def make_gemma(**changes: Any) -> Made:
    """Gemma 3 with q/k norms, Gemma 1 without norms after the sub-layers, else Gemma 2."""
    import transformers

    sizes = {"vocab_size": 7, "d_model": 4, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_head": 4, "d_ff": 5}
    rest = {"query_pre_attn_scalar": 3, "max_positions": 10, "rope_theta": 100.0, "norm_eps": 1e-5, "tied": True}
    kinds = {"window": None, "full_layers": [], "post_norms": True, "qk_norm": False, "attention_softcap": None}
    config = sizes | rest | kinds | {"logit_softcap": None, "rope_scaling": None, "local_rope_theta": None} | changes
    whole = {"rope_type": "default", "rope_theta": config["rope_theta"]} | their_scaling(config["rope_scaling"] or {})
    fields = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config["n_kv_heads"],
        "head_dim": config["d_head"],
        "intermediate_size": config["d_ff"],
        "max_position_embeddings": config["max_positions"],
        "rms_norm_eps": config["norm_eps"],
        "tie_word_embeddings": config["tied"],
        "rope_parameters": whole,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "attn_implementation": "eager",
    }
    if not config["post_norms"]:
        theirs = transformers.GemmaForCausalLM(transformers.GemmaConfig(**fields))
        before_ffn = "model.layers.{i}.post_attention_layernorm.weight"
        names = {ours: path for ours, path in GEMMA_NAMES.items() if not ours.endswith("post_norm")}
        return made("gemma", config, theirs, names | {"layers.{i}.ffn_norm": before_ffn})
    local = [config["window"] is not None and i not in config["full_layers"] for i in range(config["n_layers"])]
    fields["layer_types"] = ["sliding_attention" if is_local else "full_attention" for is_local in local]
    fields["sliding_window"] = config["window"] or config["max_positions"]
    fields["query_pre_attn_scalar"] = config["query_pre_attn_scalar"]
    fields["final_logit_softcapping"] = config["logit_softcap"]
    if not config["qk_norm"]:
        fields["attn_logit_softcapping"] = config["attention_softcap"]
        return made("gemma", config, transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**fields)), GEMMA_NAMES)
    near = {"rope_type": "default", "rope_theta": config["local_rope_theta"]}
    fields["rope_parameters"] = {"full_attention": whole, "sliding_attention": near}
    return made("gemma", config, transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**fields)), GEMMA_NAMES)


def margin(made: Made, tokens: torch.Tensor) -> float:
    """How far the last expert chosen is from the next, at the closest of all choices."""
    routed = torch.cat(made.model(tokens, output_router_logits=True).router_logits)
    ordered, k = routed.sort(dim=-1, descending=True).values, made.config["top_k"]
    return float((ordered[:, k - 1] - ordered[:, k]).min().detach())


def their_scaling(scaling: dict[str, Any]) -> dict[str, Any]:
    """The fields of rope_parameters for the specification's of rope_scaling."""
    names = {"kind": "rope_type", "original_max_position": "original_max_position_embeddings", "amplitude": "attention_factor"}
    names |= {"fast_turns": "beta_fast", "slow_turns": "beta_slow", "whole": "truncate"}
    return {names.get(name, name): value for name, value in scaling.items()}


SCALING = {"kind": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position": 8}

LINEAR = {"kind": "linear", "factor": 2.0}
YARN = {"kind": "yarn", "factor": 4.0, "original_max_position": 64, "fast_turns": 8.0, "slow_turns": 1.0, "amplitude": 1.25}
YARN |= {"whole": True}


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-100)


def forward_and_backward(made: Made, B: int, T: int, more: dict[str, torch.Tensor] | None = None, **theirs: Any) -> Case:
    """more: further inputs under the specification's names    theirs: under those of transformers"""
    tokens, targets = (torch.randint(0, made.config["vocab_size"], (B, T)) for _ in range(2))
    targets[0, 0] = -100
    while made.op == "mixtral" and margin(made, tokens) < 1 / 16:  # so that rounding chooses no other expert
        tokens = torch.randint(0, made.config["vocab_size"], (B, T))
    inputs = {"config": made.config, "params": made.parameters(), "tokens": tokens, "targets": targets}
    inputs |= more or {}
    output = made.model(tokens, **theirs)
    loss = loss_of(output.logits, targets)
    if made.config.get("balanced"):
        loss = loss + made.config["balance_weight"] * output.aux_loss
    loss.backward()
    return {"op": made.op, "inputs": inputs, "outputs": {"logits": output.logits, "loss": loss} | made.gradients()}


def gemma() -> Iterator[Case]:
    yield forward_and_backward(make_gemma(window=2, full_layers=[1], attention_softcap=0.5, logit_softcap=2.0), 2, 5)
    yield forward_and_backward(make_gemma(n_layers=1, post_norms=False, n_kv_heads=2, query_pre_attn_scalar=4, tied=False), 1, 4)
    gemma3 = {"qk_norm": True, "window": 3, "local_rope_theta": 20.0, "rope_scaling": LINEAR}
    yield forward_and_backward(make_gemma(**gemma3, full_layers=[1], d_head=6, d_ff=4), 1, 6)


def gpt2() -> Iterator[Case]:
    yield forward_and_backward(make_gpt2(), 2, 5)
    yield forward_and_backward(make_gpt2(n_layers=1, n_heads=3, activation="gelu_erf"), 1, 4)


def llama() -> Iterator[Case]:
    yield forward_and_backward(make_llama(d_model=4, n_kv_heads=1, d_head=2), 2, 5)
    yield forward_and_backward(make_llama(n_layers=1, tied=True, n_kv_heads=1, norm_eps=1e-6), 1, 4)
    yield forward_and_backward(make_llama(n_layers=1, rope_scaling=SCALING, d_head=6, n_heads=2), 1, 6)
    yield forward_and_backward(make_llama(n_layers=1, window=3, n_kv_heads=4, d_model=4), 1, 7)
    small = {"n_layers": 1, "d_model": 4, "n_heads": 2, "d_head": 2, "vocab_size": 5, "d_ff": 2}
    yield forward_and_backward(make_llama(**small, qkv_bias=True, o_bias=True, ffn_bias=True, rope_scaling=LINEAR), 1, 4)
    yield forward_and_backward(
        make_llama(**small | {"n_layers": 2}, n_kv_heads=1, window=2, full_layers=[0], qkv_bias=True), 1, 4
    )
    yield forward_and_backward(make_llama(**small, qk_norm=True, rope_scaling=YARN, n_kv_heads=1), 1, 5)


def bert() -> Iterator[Case]:
    for made, padding, types in (
        (make_bert(), [[False] * 5, [False, True, False, False, True]], [[0] * 5, [0, 0, 1, 1, 1]]),
        (make_bert(n_layers=1, n_heads=3, activation="gelu_tanh", norm_eps=1e-5), [[False] * 4], [[0] * 4]),
        (make_bert(n_layers=1, n_types=3, padding=4), [[True, False, False, False]], [[0, 2, 1, 2]]),
    ):
        valid, token_types = ~torch.tensor(padding), torch.tensor(types)
        yield forward_and_backward(
            made,
            *valid.shape,
            {"valid": valid, "token_types": token_types},
            attention_mask=valid.long(),
            token_type_ids=token_types,
        )


def mixtral() -> Iterator[Case]:
    yield forward_and_backward(make_mixtral(), 2, 3)
    yield forward_and_backward(make_mixtral(balanced=True, n_experts=3, n_kv_heads=1), 1, 5)
    yield forward_and_backward(make_mixtral(n_layers=1, n_experts=8, top_k=1, d_ff=2, tied=True, window=2, balanced=True), 1, 5)


def prefill_decode() -> Iterator[Case]:
    for make, prompts in (
        (make_gpt2, [[3, 1, 4]]),
        (make_llama, [[3, 1, 4]]),
        (make_gpt2, [[5, 2, 6, 0], [1], [4, 4]]),
        (lambda: make_llama(n_layers=1, tied=True), [[5, 2, 6, 0], [1], [4, 4]]),
    ):
        made, n_tokens = make(), 5
        T = max(map(len, prompts))
        tokens = torch.tensor([[0] * (T - len(p)) + p for p in prompts])
        valid = torch.tensor([[False] * (T - len(p)) + [True] * len(p) for p in prompts])
        generated = made.model.generate(
            tokens,
            attention_mask=valid.long(),
            do_sample=False,
            max_new_tokens=n_tokens,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        inputs = {"architecture": made.op, "config": made.config, "params": made.parameters(), "tokens": tokens, "valid": valid}
        logits = torch.stack(list(generated.logits), dim=1)
        yield {"op": "decode", "inputs": inputs, "outputs": {"tokens": generated.sequences[:, T:], "logits": logits}}


# Training, by torch.optim


def adamw() -> Iterator[Case]:
    start, decayed = draw(6), 4
    matrix, vector = (torch.nn.Parameter(part.clone()) for part in (start[:decayed], start[decayed:]))
    settings = {"lr": 0.015625, "beta1": 0.75, "beta2": 0.875, "eps": 2.0**-20, "weight_decay": 0.25}
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": settings["weight_decay"]}, {"params": [vector], "weight_decay": 0.0}],
        lr=settings["lr"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
    )
    before = [start, torch.zeros(6), torch.zeros(6)]
    for step in (1, 2, 3):
        grads = draw(6)
        matrix.grad, vector.grad = grads[:decayed].clone(), grads[decayed:].clone()
        optimizer.step()
        after = [torch.cat([matrix.detach(), vector.detach()])]
        after += [torch.cat([optimizer.state[p][moment] for p in (matrix, vector)]) for moment in ("exp_avg", "exp_avg_sq")]
        names = ("parameters", "mean", "square")
        inputs = dict(zip(names, before, strict=True)) | {"grads": grads, "step": step} | settings | {"n_decayed": decayed}
        yield {"op": "adamw_update", "inputs": inputs, "outputs": dict(zip(names, after, strict=True))}
        before = [rounded(x) for x in after]
        matrix.data, vector.data = before[0][:decayed].clone(), before[0][decayed:].clone()
        for p, part in ((matrix, slice(decayed)), (vector, slice(decayed, None))):
            optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"] = before[1][part].clone(), before[2][part].clone()
    for limit in (1.0, 100.0):
        grads = draw(9)
        parameter = torch.nn.Parameter(torch.zeros(9))
        parameter.grad = grads.clone()
        norm = torch.nn.utils.clip_grad_norm_([parameter], limit)
        yield {"op": "clip", "inputs": {"vector": grads, "limit": limit}, "outputs": {"norm": norm, "clipped": parameter.grad}}


def rounded(x: torch.Tensor) -> torch.Tensor:
    """The nearest multiples of 1/256, which every dtype holds as long as they are below 1/2; float32 always."""
    return torch.round(x * 256) / 256


def schedule() -> Iterator[Case]:
    from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

    peak, steps, final = 0.5, 24, 0.125
    for name, warmup, decay in (
        ("cosine", 0, None),
        ("cosine", 5, None),
        ("cosine", 4, 9),
        ("wsd", 4, None),
        ("constant", 3, None),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
        rising = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        if name == "cosine":
            length = decay or steps - warmup
            falling = CosineAnnealingLR(optimizer, T_max=length, eta_min=final * peak)
            parts, ends = [rising, falling, ConstantLR(optimizer, factor=final, total_iters=99)], [warmup, warmup + length]
        elif name == "wsd":
            length = decay or steps // 5
            falling = LinearLR(optimizer, start_factor=1.0, end_factor=final, total_iters=length)
            parts, ends = [rising, ConstantLR(optimizer, factor=1.0), falling], [warmup, steps - length]
        else:
            parts, ends = [rising, ConstantLR(optimizer, factor=1.0)], [warmup]
        if warmup == 0:
            parts, ends = parts[1:], ends[1:]
        scheduler = SequentialLR(optimizer, parts, milestones=ends)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        inputs = {"peak": peak, "schedule": name, "steps": steps, "warmup_steps": warmup, "decay_steps": decay}
        yield {"op": "learning_rate", "inputs": inputs | {"final_fraction": final}, "outputs": {"rates": torch.tensor(rates)}}


def train_step() -> Iterator[Case]:
    """Four updates: micro-batches with ignored targets, clipping, warm-up and cosine, decay on matrices only."""
    for made in (make_gpt2(n_layers=1), make_llama(n_layers=1, tied=True)):
        training = {"steps": 4, "learning_rate": 0.03125, "accumulation": 2, "warmup_steps": 1, "beta2": 0.9375, "eps": 2.0**-10}
        training |= {"final_fraction": 0.125, "beta1": 0.875, "weight_decay": 0.5, "clip": 0.5, "context": 4, "batch": 2}
        before = made.parameters()
        groups = [
            {"params": [p for p in made.tensors.values() if p.ndim >= 2], "weight_decay": training["weight_decay"]},
            {"params": [p for p in made.tensors.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(training["beta1"], training["beta2"]), eps=training["eps"])
        rates = [0.015625, *(0.03125 * (0.125 + 0.875 * (1 + math.cos(math.pi * t / 3)) / 2) for t in range(3))]
        batches, losses, norms = [], [], []
        for rate in rates:
            tokens, targets = (torch.randint(0, made.config["vocab_size"], (2, 2, 4)) for _ in range(2))
            targets = torch.where(torch.rand(targets.shape) < 0.2, -100, targets)
            optimizer.zero_grad()
            loss = loss_of(made.model(tokens.reshape(4, 4)).logits, targets)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(list(made.tensors.values()), training["clip"]))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            losses.append(loss.detach())
            batches.append({"tokens": tokens, "targets": targets})
        inputs = {"architecture": made.op, "config": made.config, "training": training, "params": before, "batches": batches}
        outputs = {"losses": torch.stack(losses), "norms": torch.stack(norms)} | made.parameters()
        yield {"op": "train_step", "inputs": inputs, "outputs": outputs}


# Sampling, by transformers' logits processors and torch's search in the distribution function


def unlike_logits() -> torch.Tensor:
    """Three rows of nine logits, no two of a row equal."""
    return torch.stack([torch.randperm(24)[:9].double() / 4 for _ in range(3)])


def cuts() -> Iterator[Case]:
    from transformers import generation as g

    makers = {
        "top_k": (g.TopKLogitsWarper, "k", (1, 4, 9)),
        "top_p": (g.TopPLogitsWarper, "p", (0.25, 0.5, 0.9375)),
        "min_p": (g.MinPLogitsWarper, "p", (0.0625, 0.3125)),
        "typical": (g.TypicalLogitsWarper, "p", (0.25, 0.5, 0.9375)),
        "epsilon_cut": (g.EpsilonLogitsWarper, "epsilon", (0.015625, 0.125)),
    }
    logits = unlike_logits()
    for op, (maker, limit, values) in makers.items():
        for value in values:
            kept = torch.isfinite(maker(value)(None, logits))
            yield {"op": op, "inputs": {"logits": logits, limit: value}, "outputs": {"kept": kept}}
    for epsilon in (0.015625, 0.125, 0.5):
        kept = torch.isfinite(g.EtaLogitsWarper(epsilon, device="cpu")(None, logits))
        yield {"op": "eta_cut", "inputs": {"logits": logits, "epsilon": epsilon}, "outputs": {"kept": kept}}


def penalties() -> Iterator[Case]:
    from transformers import generation as g

    for penalty in (0.75, 1.25):
        logits, tokens = (torch.randint(-24, 25, (3, 9)).double() / 8), torch.randint(0, 9, (3, 5))
        inputs = {"logits": logits, "tokens": tokens, "penalty": penalty}
        y = g.RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits)
        yield {"op": "repetition", "inputs": inputs, "outputs": {"y": y}}
    for n in (1, 2, 3, 12):
        logits, tokens = unlike_logits(), torch.randint(0, 3, (3, 11))
        kept = torch.isfinite(g.NoRepeatNGramLogitsProcessor(n)(tokens, logits))
        yield {"op": "no_repeat_ngram", "inputs": {"logits": logits, "tokens": tokens, "n": n}, "outputs": {"kept": kept}}


def sampling() -> Iterator[Case]:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = unlike_logits()
    for temperature, k, p in ((0, None, None), (1.0, None, None), (0.5, 5, None), (2.0, None, 0.75), (1.0, 6, 0.75)):
        cut = logits / temperature if temperature else logits
        cut = TopKLogitsWarper(k)(None, cut) if k else cut
        cut = TopPLogitsWarper(p)(None, cut) if p else cut
        uniforms = torch.randint(0, 64, (3,)).double() / 64
        reached = torch.cumsum(F.softmax(cut, dim=-1), dim=-1)
        tokens = torch.searchsorted(reached, uniforms[:, None], right=True)[:, 0] if temperature else torch.argmax(logits, dim=-1)
        sampler = {"temperature": temperature, "top_k": k, "top_p": p}
        yield {
            "op": "sample",
            "inputs": {"logits": logits, "uniforms": uniforms, "sampler": sampler},
            "outputs": {"tokens": tokens},
        }


PAGES: dict[str, Callable[[], Iterator[Case]]] = {
    "layers/linear": linear,
    "layers/embedding": embedding,
    "layers/rms_norm": rms_norm,
    "layers/layer_norm": layer_norm,
    "layers/softmax": softmax,
    "layers/gelu": gelu,
    "layers/swiglu": swiglu,
    "layers/geglu": geglu,
    "layers/softcap": softcap,
    "layers/mlp": mlp,
    "layers/mixture_of_experts": mixture_of_experts,
    "layers/rope": rope,
    "layers/attention": attention,
    "layers/blockwise_attention": blockwise_attention,
    "layers/cached_attention": cached_attention,
    "layers/dropout": dropout,
    "layers/cross_entropy": cross_entropy,
    "models/bert": bert,
    "models/gemma": gemma,
    "models/gpt2": gpt2,
    "models/llama": llama,
    "models/mixtral": mixtral,
    "training/adamw": adamw,
    "training/schedule": schedule,
    "training/train_step": train_step,
    "decoding/cuts": cuts,
    "decoding/penalties": penalties,
    "decoding/sampling": sampling,
    "decoding/prefill_decode": prefill_decode,
}


def to_json(value: Any) -> Any:
    """Tensors as {"dtype", "shape", "values"}, the values in row-major order, each with all its digits."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1).tolist()
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "values": flat}
    if isinstance(value, dict):
        return {key: to_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return value


def write(page: str) -> None:
    torch.manual_seed(sum(page.encode()))
    cases = [to_json(c) for c in PAGES[page]()]
    made = {"by": f"PyTorch {torch.__version__} in float64", "on": datetime.date.today().isoformat()}
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    text = f'{{"made":{json.dumps(made)},"cases":[\n{lines}\n]}}\n'
    path = FOLDER / f"{page}.json"
    path.write_text(text, encoding="utf-8")
    print(f"{path.name:30s} {len(cases):3d} cases {len(text):7d} bytes")


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        write(name)
