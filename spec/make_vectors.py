"""Make the specification's vectors: inputs, outputs and gradients in float64, computed by PyTorch and transformers alone.

    python spec/make_vectors.py [page …]          writes spec/<page>.json for the pages named, or for all

refllm is never imported: the vectors are what an outside implementation says. Every floating input is a multiple of 1/32 below 4
(1/256 below 1 for the parameters of models), so that float16, bfloat16, float32 and float64 hold it exactly.
Needs torch and transformers: pip install 'refllm[oracle]'.
"""

import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def mlp() -> Iterator[Case]:
    def f(x, up, up_bias, down, down_bias, activation):
        approximate = {"gelu_tanh": "tanh", "gelu_erf": "none"}[activation]
        return F.linear(F.gelu(F.linear(x, up.T, up_bias), approximate=approximate), down.T, down_bias)

    for activation in ("gelu_tanh", "gelu_erf"):
        inputs = {"x": draw(2, 3, 4), "up": draw(4, 6), "up_bias": draw(6), "down": draw(6, 4), "down_bias": draw(4)}
        yield case("mlp", f, inputs | {"activation": activation}, ("x", "up", "up_bias", "down", "down_bias"))


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
            yield case("attention", scaled_dot_product(seen), given, ("q", "k", "v"))


def blockwise_attention() -> Iterator[Case]:
    for B, H, G, T, S, K, block in ((2, 2, 1, 3, 5, 2, 2), (1, 2, 2, 4, 4, 3, 3)):
        for mask, seen in masks(B, T, S):
            given = {"q": draw(B, H, T, K), "k": draw(B, G, S, K), "v": draw(B, G, S, K), "mask": mask, "scale": 0.5}
            yield case("blockwise_attention", scaled_dot_product(seen), given | {"block": block}, ("q", "k", "v"))


def scaled_dot_product(seen: torch.Tensor) -> Callable[..., torch.Tensor]:
    """PyTorch's attention; where a query sees nothing it gives NaN, and the specification zero."""

    def f(q, k, v, mask, scale, block=None):
        blind = ~seen.any(-1, keepdim=True)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | blind, scale=scale, enable_gqa=True)
        return torch.where(blind, 0.0, y)

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


PAGES: dict[str, Callable[[], Iterator[Case]]] = {
    "layers/linear": linear,
    "layers/embedding": embedding,
    "layers/rms_norm": rms_norm,
    "layers/layer_norm": layer_norm,
    "layers/softmax": softmax,
    "layers/gelu": gelu,
    "layers/swiglu": swiglu,
    "layers/mlp": mlp,
    "layers/rope": rope,
    "layers/attention": attention,
    "layers/blockwise_attention": blockwise_attention,
    "layers/dropout": dropout,
    "layers/cross_entropy": cross_entropy,
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
