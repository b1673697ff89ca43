"""Every layer and its backward, held to the bounded oracle."""

import numpy as np
from hypothesis import strategies as st

from refllm.layers.attention import Mask
from refllm.layers.cached_attention import cached_attention

from .check import Check, layer
from .strategies import integers, leading, normals, reals, truths, width


@st.composite
def _positions(draw, *others):
    """x: (..., D) and vectors (D,)."""
    d = draw(width)
    return (draw(reals((*draw(leading), d))), *(draw(normals((d,))) for _ in others))


@st.composite
def _rms_norm(draw):
    x, gain = draw(_positions("gain"))
    return x, gain, draw(st.sampled_from([1e-5, 1e-6]))


@st.composite
def _layer_norm(draw):
    x, gain, bias = draw(_positions("gain", "bias"))
    return x, gain, bias, 1e-5


@st.composite
def _linear(draw, bias=False):
    i, o = draw(width), draw(width)
    x, weight = draw(reals((*draw(leading), i))), draw(normals((i, o)))
    return (x, weight, draw(normals((o,)))) if bias else (x, weight)


@st.composite
def _embedding(draw):
    v, d = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    return draw(integers((2, draw(st.integers(1, 12))), 0, v)), draw(normals((v, d)))


@st.composite
def _softcap(draw):
    return draw(reals((*draw(leading), draw(width)))), draw(st.sampled_from([0.5, 3.0, 50.0]))


@st.composite
def _gated(draw):
    d, f = draw(st.integers(1, 12)), draw(st.integers(1, 16))
    x = draw(reals((*draw(leading), d), largest=30.0))
    return x, draw(normals((d, f))), draw(normals((d, f))), draw(normals((f, d)))


@st.composite
def _mixture_of_experts(draw):
    d, f, e = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    shape = draw(st.sampled_from([(1,), (3,), (2, 3), (2, 12)]))
    x, logits = draw(reals((*shape, d), largest=30.0)), draw(normals((*shape, e), scale=2.0))
    experts = (draw(normals((e, d, f))), draw(normals((e, d, f))), draw(normals((e, f, d))))
    return x, logits, *experts, draw(st.integers(1, e))


@st.composite
def _load_balancing_loss(draw):
    shape, e = draw(st.sampled_from([(1,), (5,), (2, 2, 3)])), draw(st.integers(1, 8))
    valid = draw(truths(shape)) if draw(st.booleans()) else None
    return draw(normals((*shape, e), scale=3.0)), valid, draw(st.integers(1, e))


@st.composite
def _mlp(draw):
    d, f = draw(st.integers(1, 12)), draw(st.integers(1, 16))
    x = draw(reals((*draw(leading), d), largest=30.0))
    activation = draw(st.sampled_from(["gelu_tanh", "gelu_erf"]))
    return x, draw(normals((d, f))), draw(normals((f,))), draw(normals((f, d))), draw(normals((d,))), activation


@st.composite
def _rope(draw):
    t, k = draw(st.integers(1, 9)), 2 * draw(st.integers(1, 8))
    angle = draw(normals((t, k // 2), scale=10.0)).astype(np.float64)
    return draw(reals((2, 3, t, k))), np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


@st.composite
def _attention(draw, block=False):
    b, g, r, k = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4, 8, 5]))
    t, past = draw(st.integers(1, 9)), draw(st.sampled_from([0, 0, 1, 5]))
    causal = draw(st.booleans())
    window = draw(st.sampled_from([None, None, 1, 3])) if causal else None
    valid = draw(truths((b, past + t))) if draw(st.booleans()) else None
    q = draw(normals((b, g * r, t, k), scale=draw(st.sampled_from([1.0, 5.0]))))
    keys, values = draw(normals((b, g, past + t, k))), draw(reals((b, g, past + t, k), largest=100.0))
    softcap = draw(st.sampled_from([None, None, 0.5, 4.0, 50.0]))
    arguments = (q, keys, values, Mask(past, causal, window, valid), k**-0.5)
    return (*arguments, draw(st.integers(1, 4)), softcap) if block else (*arguments, softcap)


@st.composite
def _cached_attention(draw):
    """The same with keys and values in blocks, of which some have one row for all."""
    q, keys, values, *how = draw(_attention())
    cuts = sorted({0, keys.shape[2], *draw(st.lists(st.integers(1, keys.shape[2]), max_size=3))})
    spans = list(zip(cuts, cuts[1:], strict=False))
    rows = [draw(st.sampled_from([1, len(q)])) for _ in spans]
    blocks = (tuple(a[:n, :, i:j] for n, (i, j) in zip(rows, spans, strict=True)) for a in (keys, values))
    return (q, *blocks, *how)


@st.composite
def _cross_entropy(draw):
    v, shape = draw(width), draw(st.sampled_from([(1,), (5,), (2, 4)]))
    targets = draw(integers(shape, 0, v))
    targets = np.where(draw(truths(shape, 0.2)), np.int32(-100), targets)
    return draw(reals((*shape, v), largest=50.0)), targets


@st.composite
def _linear_cross_entropy(draw):
    v, d, n = draw(width), draw(st.integers(1, 9)), draw(st.integers(1, 7))
    targets = np.where(draw(truths((n,), 0.2)), np.int32(-100), draw(integers((n,), 0, v)))
    return draw(normals((n, d), scale=3.0)), draw(normals((d, v))), targets, -100, draw(st.integers(1, 40))


@st.composite
def _dropout(draw):
    shape = (*draw(leading), draw(width))
    uniforms = np.random.default_rng(draw(st.integers(0, 99))).random(shape, dtype=np.float32)
    return draw(reals(shape)), uniforms, draw(st.sampled_from([0.0, 0.1, 0.5]))


CHECKS = [
    layer("linear", _linear()),
    layer("affine", _linear(bias=True), module="linear"),
    layer("embedding", _embedding()),
    layer("rms_norm", _rms_norm()),
    layer("layer_norm", _layer_norm()),
    layer("softmax", _positions()),
    layer("gelu_erf", _positions(), module="gelu"),
    layer("gelu_tanh", _positions(), module="gelu"),
    layer("silu", _positions(), module="swiglu"),
    layer("swiglu", _gated()),
    layer("geglu", _gated()),
    layer("softcap", _softcap()),
    layer("mlp", _mlp()),
    layer("mixture_of_experts", _mixture_of_experts()),
    layer("load_balancing_loss", _load_balancing_loss(), module="mixture_of_experts"),
    layer("rope", _rope()),
    layer("rope_interleaved", _rope(), module="rope"),
    layer("attention", _attention()),
    layer("blockwise_attention", _attention(block=True)),
    Check("cached_attention", "layers", _cached_attention(), lambda _, arguments: {"y": cached_attention(*arguments)}),
    layer("cross_entropy", _cross_entropy()),
    layer("linear_cross_entropy", _linear_cross_entropy(), module="cross_entropy"),
    layer("dropout", _dropout()),
]
