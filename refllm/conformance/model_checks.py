"""Whole models, held to the bounded oracle: logits, loss, and every gradient."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from refllm.models import architecture

from .check import Check
from .strategies import integers, normals, truths


@st.composite
def _llama(draw):
    """A small Llama of any kind: grouped heads, tied, windowed, scaled frequencies, biases, normalised heads, or not."""
    n_kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window, biased = draw(st.sampled_from([None, None, 2])), draw(st.booleans())
    return architecture("llama").Config(
        vocab_size=draw(st.integers(2, 19)),
        d_model=draw(st.sampled_from([3, 4, 8])),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_kv_heads * group,
        n_kv_heads=n_kv_heads,
        d_head=draw(st.sampled_from([2, 4])),
        d_ff=draw(st.sampled_from([5, 8])),
        max_positions=16,
        tied=draw(st.booleans()),
        window=window,
        full_layers=() if window is None else draw(st.sampled_from([(), (0,)])),
        qkv_bias=biased,
        o_bias=biased and draw(st.booleans()),
        ffn_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        rope_scaling=draw(
            st.sampled_from([None, LinearScaling(2.0), Llama3Scaling(8.0, 1.0, 4.0, 8), YarnScaling(4.0, 8, 2.0, 0.5, 1.2)])
        ),
    )


@st.composite
def _gemma(draw):
    """A small Gemma of any generation: capped, with local layers, norms before or around, normalised heads, or not."""
    n_kv_heads, n_layers = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window = draw(st.sampled_from([None, 2]))
    return architecture("gemma").Config(
        vocab_size=draw(st.integers(2, 19)),
        d_model=draw(st.sampled_from([3, 4, 8])),
        n_layers=n_layers,
        n_heads=n_kv_heads * draw(st.integers(1, 2)),
        n_kv_heads=n_kv_heads,
        d_head=draw(st.sampled_from([2, 4])),
        d_ff=draw(st.sampled_from([5, 8])),
        query_pre_attn_scalar=draw(st.sampled_from([4, 9])),
        max_positions=16,
        tied=draw(st.booleans()),
        window=window,
        full_layers=() if window is None else draw(st.sampled_from([(), (n_layers - 1,)])),
        post_norms=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        attention_softcap=draw(st.sampled_from([None, 3.0])),
        logit_softcap=draw(st.sampled_from([None, 5.0])),
        rope_scaling=draw(st.sampled_from([None, LinearScaling(2.0)])),
        local_rope_theta=draw(st.sampled_from([None, 100.0])),
    )


@st.composite
def _gpt2(draw):
    n_heads = draw(st.integers(1, 3))
    return architecture("gpt2").Config(
        vocab_size=draw(st.integers(2, 19)),
        d_model=n_heads * draw(st.integers(1, 3)),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        max_positions=16,
        d_ff=draw(st.sampled_from([5, 8])),
        activation=draw(st.sampled_from(["gelu_tanh", "gelu_erf"])),
    )


@st.composite
def _mixtral(draw):
    n_kv_heads, n_experts = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    return architecture("mixtral").Config(
        vocab_size=draw(st.integers(2, 19)),
        d_model=draw(st.sampled_from([3, 4, 8])),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_kv_heads * draw(st.integers(1, 2)),
        n_kv_heads=n_kv_heads,
        d_head=draw(st.sampled_from([2, 4])),
        d_ff=draw(st.sampled_from([5, 8])),
        n_experts=n_experts,
        top_k=draw(st.integers(1, min(n_experts, 2))),
        max_positions=16,
        tied=draw(st.booleans()),
        window=draw(st.sampled_from([None, None, 2])),
        balanced=draw(st.booleans()),
        balance_weight=0.25,
    )


MARGIN = 1e-3  # between the logits of a router's last choice and the next, where they are of the order of one


def decided(name, config, params, tokens, valid=None):
    """Whether no router's choice is so close that float32 may make another."""
    if name != "mixtral" or config.top_k == config.n_experts:
        return True
    logits = np.sort(architecture(name).router_logits(params, tokens, config, valid), axis=-1)
    chosen, next_best = logits[..., -config.top_k], logits[..., -config.top_k - 1]
    return bool(np.all(chosen - next_best > MARGIN))


@st.composite
def _bert(draw):
    n_heads, pooler = draw(st.integers(1, 3)), draw(st.booleans())
    return architecture("bert").Config(
        vocab_size=draw(st.integers(2, 19)),
        d_model=n_heads * draw(st.integers(3, 4)),  # of fewer features the norms leave little
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        max_positions=16,
        d_ff=draw(st.sampled_from([5, 8])),
        n_types=draw(st.integers(1, 3)),
        norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        activation=draw(st.sampled_from(["gelu_erf", "gelu_tanh"])),
        pooler=pooler,
        next_sentence=pooler and draw(st.booleans()),
        padding=draw(st.sampled_from([None, 0])),
    )


@st.composite
def parameters(draw, name, config):
    """Parameters of the size that training gives them: gains near one, matrices that keep a vector's length."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = architecture(name).parameter_shapes(config)

    def values(shape):
        if len(shape) == 1:
            return 1 + 0.1 * rng.standard_normal(shape)
        return rng.standard_normal(shape) / np.sqrt(shape[-2])

    return {n: values(shape).astype(np.float32) for n, shape in shapes.items()}


@st.composite
def _training_inputs(draw, name, configs):
    config = draw(configs)
    B, T = draw(st.integers(1, 2)), draw(st.integers(1, 6))
    tokens = draw(integers((B, T), 0, config.vocab_size))
    targets = np.where(draw(normals((B, T))) > 1, np.int32(-100), draw(integers((B, T), 0, config.vocab_size)))
    params = draw(parameters(name, config))
    assume(decided(name, config, params, tokens))
    return config, params, tokens, targets


@st.composite
def _masked_inputs(draw, name, configs):
    """The same with padding anywhere, but not at the first token of a row, and with two texts in a row."""
    config, params, tokens, targets = draw(_training_inputs(name, configs))
    valid = draw(truths(tokens.shape))
    valid[:, 0] = True
    types = draw(integers(tokens.shape, 0, config.n_types))
    return config, params, tokens, np.where(valid, targets, np.int32(-100)), valid, types


def _train(name):
    module = architecture(name)

    def compute(backend: Backend, drawn):
        config, params, tokens, targets, *seen = drawn
        output = module.forward(params, tokens, config, **dict(zip(("valid", "token_types"), seen, strict=False)))
        loss, judged = cross_entropy(output.logits, targets)
        dlogits = cross_entropy_backward(backend.xp.ones_like(loss), judged)
        loss = loss if output.auxiliary is None else loss + output.auxiliary
        gradients = module.backward(dlogits, output.saved)
        return {"logits": output.logits, "loss": loss} | {f"d{n}": g for n, g in gradients.items()}

    return compute


MODELS = {"llama": _llama(), "gpt2": _gpt2(), "gemma": _gemma(), "mixtral": _mixtral()}
WIDE_ONLY = ("mixtral",)  # in halves no margin that is ever drawn decides a router's choice

CHECKS = [
    *(
        Check(
            f"{name}: logits, loss, gradients",
            "models",
            _training_inputs(name, configs),
            _train(name),
            halves=name not in WIDE_ONLY,
            whole=True,
        )
        for name, configs in MODELS.items()
    ),
    Check("bert: logits, loss, gradients", "models", _masked_inputs("bert", _bert()), _train("bert"), whole=True),
]
