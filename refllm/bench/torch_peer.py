"""The same models in plain eager PyTorch, as a practised user of PyTorch would write them: what refllm is timed against.

They take refllm's weights. Scores never leave `scaled_dot_product_attention`, gradients are autograd's, the optimizer is
`torch.optim.AdamW` with its defaults for the CPU, clipping is `clip_grad_norm_`: nanoGPT's train loop in short.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from refllm.bench.shapes import BETAS, CLIP, EPS, LEARNING_RATE, WEIGHT_DECAY
from refllm.layers.rope import rope_frequencies


class Gpt2Block(nn.Module):
    """One layer of GPT-2. x: (B, T, D) -> (B, T, D)"""

    def __init__(self, c: Any):
        super().__init__()
        self.heads, self.approximate = c.n_heads, "tanh" if c.activation == "gelu_tanh" else "none"
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(c.d_model, eps=c.norm_eps) for _ in range(2))
        self.qkv, self.o = nn.Linear(c.d_model, 3 * c.d_model), nn.Linear(c.d_model, c.d_model)
        self.up, self.down = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = (z.view(B, T, self.heads, -1).transpose(1, 2) for z in self.qkv(self.attention_norm(x)).split(D, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.ffn_norm(x)), approximate=self.approximate))


class Gpt2(nn.Module):
    """tokens: (B, T) -> logits: (B, T, V)"""

    def __init__(self, c: Any):
        super().__init__()
        self.embedding, self.position = nn.Embedding(c.vocab_size, c.d_model), nn.Embedding(c.max_positions, c.d_model)
        self.layers = nn.ModuleList(Gpt2Block(c) for _ in range(c.n_layers))
        self.norm = nn.LayerNorm(c.d_model, eps=c.norm_eps)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.embedding.weight)


class LlamaBlock(nn.Module):
    """One layer of Llama with a cache made once. x: (B, T, D) -> (B, T, D)"""

    def __init__(self, c: Any):
        super().__init__()
        self.c = c
        kv = c.n_kv_heads * c.d_head
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(c.d_model, eps=c.norm_eps) for _ in range(2))
        self.q, self.o = (
            nn.Linear(*sizes, bias=False) for sizes in ((c.d_model, c.n_heads * c.d_head), (c.n_heads * c.d_head, c.d_model))
        )
        self.k, self.v = (nn.Linear(c.d_model, kv, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(c.d_model, c.d_ff, bias=False) for _ in range(2))
        self.down = nn.Linear(c.d_ff, c.d_model, bias=False)

    def forward(self, x, cos, sin, cache, start):
        B, T, _ = x.shape
        c, h = self.c, self.attention_norm(x)
        q, k, v = (z.view(B, T, -1, c.d_head).transpose(1, 2) for z in (self.q(h), self.k(h), self.v(h)))
        keys, values = cache
        keys[:, :, start : start + T] = turned(k, cos, sin)
        values[:, :, start : start + T] = v
        keys, values = keys[:, :, : start + T], values[:, :, : start + T]
        shared = c.n_kv_heads < c.n_heads
        y = F.scaled_dot_product_attention(turned(q, cos, sin), keys, values, is_causal=T > 1, enable_gqa=shared)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def turned(x, cos, sin):
    """Rotary positions, pairs (i, i + K/2)."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Llama(nn.Module):
    """tokens: (B, T), which continue a cache of `start` positions -> logits of the last: (B, V)"""

    def __init__(self, c: Any):
        super().__init__()
        self.embedding = nn.Embedding(c.vocab_size, c.d_model)
        self.layers = nn.ModuleList(LlamaBlock(c) for _ in range(c.n_layers))
        self.norm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        angles = torch.outer(
            torch.arange(c.max_positions), torch.tensor(rope_frequencies(c.d_head, c.rope_theta, c.rope_scaling))
        )
        self.cos, self.sin = (torch.cat((f(angles),) * 2, dim=-1) for f in (torch.cos, torch.sin))

    def forward(self, tokens, caches, start):
        x, here = self.embedding(tokens), slice(start, start + tokens.shape[1])
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, self.cos[here], self.sin[here], cache, start)
        return F.linear(self.norm(x[:, -1]), self.embedding.weight)


MODELS = {"gpt2": Gpt2, "llama": Llama}
NAMES = {  # refllm's parameter names, and the peer's
    "gpt2": {
        "embedding": "embedding.weight",
        "position_embedding": "position.weight",
        "norm.gain": "norm.weight",
        "norm.bias": "norm.bias",
    },
    "llama": {"embedding": "embedding.weight", "norm": "norm.weight"},
}
BLOCK_NAMES = {
    "gpt2": {
        "attention_norm.gain": "attention_norm.weight",
        "attention_norm.bias": "attention_norm.bias",
        "attention.qkv": "qkv.weight",
        "attention.qkv_bias": "qkv.bias",
        "attention.o": "o.weight",
        "attention.o_bias": "o.bias",
        "ffn_norm.gain": "ffn_norm.weight",
        "ffn_norm.bias": "ffn_norm.bias",
        "ffn.up": "up.weight",
        "ffn.up_bias": "up.bias",
        "ffn.down": "down.weight",
        "ffn.down_bias": "down.bias",
    },
    "llama": {
        "attention_norm": "attention_norm.weight",
        "ffn_norm": "ffn_norm.weight",
        **{f"attention.{n}": f"{n}.weight" for n in "qkvo"},
        **{f"ffn.{n}": f"{n}.weight" for n in ("gate", "up", "down")},
    },
}


def build(architecture: str, config: Any, params: Mapping[str, Any]) -> nn.Module:
    """The peer of an architecture with refllm's parameters, NumPy arrays by refllm's names. A tied head only."""
    model: Any = MODELS[architecture](config)
    block = BLOCK_NAMES[architecture].items()
    names = NAMES[architecture] | {f"layers.{i}.{o}": f"layers.{i}.{t}" for i in range(config.n_layers) for o, t in block}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    tensors = {theirs: torch.from_numpy(params[ours]) for ours, theirs in names.items()}
    turned_round = {
        n for n, tensor in tensors.items() if tensor.ndim == 2 and n.rpartition(".")[0] in linear
    }  # ours are (in, out)
    model.load_state_dict({n: tensor.T if n in turned_round else tensor for n, tensor in tensors.items()})
    return model


def optimizer(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    """nanoGPT's: matrices decay, vectors do not."""
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, **({"fused": True} if fused else {}))


def training_step(model: nn.Module, adamw: torch.optim.Optimizer, tokens, targets) -> tuple[float, float]:
    """One update. tokens, targets: (B, T) int64. Returns the loss and the gradient's norm before clipping."""
    adamw.zero_grad(set_to_none=True)
    logits = model(tokens)
    loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    adamw.step()
    return loss.item(), float(norm)


def new_caches(config: Any, length: int, rows: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of every layer for sequences of at most `length` positions."""
    shape = (rows, config.n_kv_heads, length, config.d_head)
    return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.n_layers)]
