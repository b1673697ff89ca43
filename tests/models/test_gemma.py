"""Gemma 1, 2 and 3 against Hugging Face transformers, their published sizes, and their configurations in both spellings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.array_api import is_installed, kernels, load
from refllm.decoding.generate import generate
from refllm.decoding.sampling import Sampler
from refllm.layers.rope import LinearScaling, YarnScaling
from refllm.models import gemma
from refllm.models.model import Model
from refllm.models.parameters import count

GEMMA2 = gemma.Config(
    vocab_size=13,
    d_model=8,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    d_head=6,
    d_ff=10,
    query_pre_attn_scalar=5,
    max_positions=32,
    norm_eps=1e-3,
    window=3,
    full_layers=(1,),
    attention_softcap=0.75,
    logit_softcap=3.0,
)
GEMMA1 = replace(
    GEMMA2, query_pre_attn_scalar=6, window=None, full_layers=(), post_norms=False, attention_softcap=None, logit_softcap=None
)
GEMMA3 = replace(GEMMA2, qk_norm=True, attention_softcap=None, logit_softcap=None, rope_theta=500.0, local_rope_theta=20.0)
KINDS = {
    "Gemma": GEMMA1,
    "Gemma, one key/value head": replace(GEMMA1, n_kv_heads=1, rope_theta=50.0),
    "Gemma2": GEMMA2,
    "Gemma2, untied, without caps": replace(GEMMA2, tied=False, attention_softcap=None, logit_softcap=None),
    "Gemma2, scaled in every layer": replace(GEMMA2, n_kv_heads=4, rope_scaling=LinearScaling(3.0)),
    "Gemma2, all layers global": replace(GEMMA2, window=None, full_layers=()),
    "Gemma3": replace(GEMMA3, rope_scaling=LinearScaling(8.0)),
    "Gemma3, all layers local, logits capped": replace(GEMMA3, n_kv_heads=1, full_layers=(), logit_softcap=2.0),
    "Gemma3, all layers global": replace(GEMMA3, window=None, full_layers=(), rope_scaling=YarnScaling(4.0, 8, 2.0, 0.5, 1.1)),
}


@st.composite
def configs(draw):
    """Small ones of every kind that transformers computes."""
    kind = draw(st.sampled_from(["gemma", "gemma2", "gemma3_text"]))
    n_kv_heads, n_layers, d_head = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 5))
    n_heads = n_kv_heads * draw(st.integers(1, 3))
    caps, scalings = st.none() | st.sampled_from([5.0, 50.0]), st.sampled_from([None, LinearScaling(2.0)])
    own: dict = {"query_pre_attn_scalar": d_head, "post_norms": False}
    if kind != "gemma":
        window = draw(st.none() | st.integers(2, 5))  # 1 makes the gradients of q and k zero
        layers = draw(st.sets(st.integers(0, n_layers - 1), max_size=n_layers - 1)) if window else ()
        own = {"window": window, "full_layers": tuple(sorted(layers)), "logit_softcap": draw(caps)}
        own["query_pre_attn_scalar"] = draw(st.integers(d_head, 3 * d_head))  # a saturated softmax cancels gradients
    if kind == "gemma2":
        own["attention_softcap"] = draw(caps)
    if kind == "gemma3_text":
        own |= {"qk_norm": True, "local_rope_theta": draw(st.sampled_from([20.0, 10_000.0]))}
    return gemma.Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=n_heads * draw(st.integers(4, 6)),  # transformers asks for a multiple; few features cancel in the norm
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        d_ff=draw(st.integers(4, 9)),  # likewise, in the norm after the sub-layer
        max_positions=32,
        rope_theta=draw(st.sampled_from([50.0, 1_000_000.0])),
        norm_eps=draw(st.sampled_from([1e-6, 1e-2])),
        tied=draw(st.booleans()),
        rope_scaling=draw(scalings),
        **own,
    )


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_transformers(kind, agrees_with_transformers, tmp_path):
    theirs = agrees_with_transformers(gemma, KINDS[kind], tmp_path)
    assert type(theirs).__name__ == f"{kind.partition(',')[0]}ForCausalLM"


@pytest.mark.oracle
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the dtype of torch stays switched for all examples
@given(config=configs())
def test_any_configuration_agrees_with_transformers(config, agrees_with_transformers, tmp_path_factory):
    agrees_with_transformers(gemma, config, tmp_path_factory.mktemp("gemma"))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_padding_at_the_left_is_that_of_transformers(kind, pads_as_transformers, tmp_path):
    pads_as_transformers(gemma, KINDS[kind], tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["Gemma", "Gemma2", "Gemma3"])
def test_generation_goes_on_as_that_of_transformers(kind, random_parameters, transformers_in_float64, tmp_path):
    import torch

    config = KINDS[kind]
    model = Model(gemma, config, random_parameters(gemma.parameter_shapes(config), 0))
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    expected = theirs.generate(torch.tensor([[3, 1, 4]]), do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=0)
    assert [int(step.tokens[0]) for step in generate(model, [3, 1, 4], 8, Sampler(temperature=0), seed=0)] == expected[
        0, 3:
    ].tolist()


@pytest.mark.oracle
def test_in_half_precision_the_root_of_the_width_is_rounded_as_in_transformers():
    import torch
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

    rng, D = np.random.default_rng(0), 3072
    for backend, dtype in (("mlx", "bfloat16"), ("numpy", "float16")):
        if not is_installed(backend):
            continue
        xp = load(backend).xp
        table = rng.standard_normal((2, D), dtype=np.float32)
        theirs = Gemma3TextScaledWordEmbedding(2, D, None, embed_scale=D**0.5).to(getattr(torch, dtype))
        theirs.weight.data = torch.from_numpy(table).to(getattr(torch, dtype))
        expected = theirs(torch.tensor([[1, 0]])).detach().float().numpy()
        ours, _ = gemma.scaled_embedding(xp.asarray([[1, 0]], dtype=xp.int32), xp.from_numpy(table, getattr(xp, dtype)))
        assert ours.dtype == getattr(xp, dtype)
        np.testing.assert_array_equal(xp.to_numpy(xp.astype(ours, xp.float32)), expected)


# Laws


def logits_of(config, params, tokens):
    return gemma.forward(params, tokens, config).logits


def test_no_logit_passes_its_cap(random_parameters):
    params = random_parameters(gemma.parameter_shapes(GEMMA2), 0)
    tokens = np.arange(12).reshape(1, 12)
    plain, capped = (logits_of(c, params, tokens) for c in (replace(GEMMA2, logit_softcap=None), GEMMA2))
    assert np.max(np.abs(plain)) > 3 > np.max(np.abs(capped))
    np.testing.assert_allclose(capped, 3 * np.tanh(plain / 3), rtol=1e-14)


@pytest.mark.parametrize("config", [GEMMA2, GEMMA3], ids=["Gemma 2", "Gemma 3"])
def test_a_stack_of_local_layers_sees_no_further_than_its_windows_reach(config, random_parameters):
    config = replace(config, n_layers=2, full_layers=())
    params = random_parameters(gemma.parameter_shapes(config), 0)
    tokens, t = np.arange(12)[None, :], 9
    for changed in range(t + 1):
        other = tokens.copy()
        other[0, changed] = 12
        before, after = (logits_of(config, params, a)[0, t] for a in (tokens, other))
        within_reach = changed >= t - config.n_layers * (config.window - 1)
        assert np.any(np.abs(after - before) > 1e-9) == within_reach
        with_a_global_layer = replace(config, full_layers=(1,))
        before, after = (logits_of(with_a_global_layer, params, a)[0, t] for a in (tokens, other))
        assert np.any(np.abs(after - before) > 1e-9)


def test_a_norm_after_a_sub_layer_forgets_its_size(random_parameters):
    config = replace(GEMMA2, norm_eps=1e-300)
    params = random_parameters(gemma.parameter_shapes(config), 0)
    scaled = {n: p * 7 if n.endswith(("attention.o", "ffn.down")) else p for n, p in params.items()}
    tokens = np.arange(12).reshape(1, 12)
    expected = logits_of(config, params, tokens)
    np.testing.assert_allclose(logits_of(config, scaled, tokens), expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


def test_a_gain_of_zero_is_a_factor_of_one():
    x = np.random.default_rng(0).standard_normal((2, 5))
    y, _ = gemma.norm(x, np.zeros(5), replace(GEMMA2, norm_eps=1e-300))
    np.testing.assert_allclose(np.mean(y * y, axis=-1), 1, rtol=1e-14)
    assert not gemma.initialise(GEMMA2, 0)["layers.0.ffn_post_norm"].any()


def test_a_norm_of_halves_is_the_norm_of_floats_rounded_once(backend):
    xp, rng = backend.xp, np.random.default_rng(0)
    for dtype in sorted({"float16", "bfloat16"} & xp.dtypes()):
        half, wide = getattr(xp, dtype), xp.float32
        x, gain = (xp.from_numpy(rng.standard_normal(shape).astype(np.float32) / 8, half) for shape in ((40, 6), (6,)))
        with kernels(backend, {}):
            y, saved = gemma.norm(x, gain, GEMMA2)
            expected, _ = gemma.norm(xp.astype(x, wide), xp.astype(gain, wide), GEMMA2)
            dx, dgain = gemma.norm_backward(xp.ones_like(y), saved)
        assert y.dtype == dx.dtype == dgain.dtype == half
        np.testing.assert_array_equal(*(xp.to_numpy(xp.astype(xp.astype(a, half), wide)) for a in (y, expected)))


# Published configurations, in the spelling of transformers 4

OF_2 = {
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "sliding_window": 4096,
    "vocab_size": 256_000,
}
OF_3 = {
    "model_type": "gemma3_text",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10_000,
    "rope_theta": 1_000_000,
    "sliding_window_pattern": 6,
}


def sized(hidden, intermediate, layers, heads, kv_heads):
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


LINEAR8 = {"factor": 8.0, "rope_type": "linear"}
PUBLISHED = {
    "Gemma 2B": (
        2_506_172_416,
        {"model_type": "gemma", "vocab_size": 256_000, "head_dim": 256, "hidden_act": "gelu", **sized(2048, 16_384, 18, 8, 1)},
    ),
    "Gemma 2 2B": (2_614_341_888, OF_2 | sized(2304, 9216, 26, 8, 4)),
    "Gemma 2 9B": (9_241_705_984, OF_2 | sized(3584, 14_336, 42, 16, 8)),
    "Gemma 2 27B": (
        27_227_128_320,
        OF_2 | sized(4608, 36_864, 46, 32, 16) | {"head_dim": 128, "query_pre_attn_scalar": 144},
    ),
    "Gemma 3 1B": (
        999_885_952,
        OF_3
        | sized(1152, 6912, 26, 4, 1)
        | {"vocab_size": 262_144, "max_position_embeddings": 32_768, "sliding_window": 512, "rope_scaling": None},
    ),
    "Gemma 3 4B": (
        3_880_263_168,
        OF_3 | sized(2560, 10_240, 34, 8, 4) | {"vocab_size": 262_208, "sliding_window": 1024, "rope_scaling": LINEAR8},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_has_the_published_number_of_parameters(name):
    published, fields = PUBLISHED[name]
    assert count(gemma.parameter_shapes(gemma.from_hugging_face(fields))) == published


@pytest.mark.oracle
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_read_as_transformers_reads_it(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    published, fields = PUBLISHED[name]
    theirs = AutoConfig.for_model(**fields)
    assert gemma.from_hugging_face(theirs.to_dict()) == gemma.from_hugging_face(fields)
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(theirs).num_parameters() == published


def test_published_configurations_alternate_local_and_global_layers():
    gemma2, gemma3 = (gemma.from_hugging_face(PUBLISHED[name][1]) for name in ("Gemma 2 2B", "Gemma 3 4B"))
    assert (gemma2.window, gemma2.full_layers) == (4096, tuple(range(1, 26, 2)))
    assert (gemma2.attention_softcap, gemma2.logit_softcap, gemma2.local_rope_theta) == (50.0, 30.0, None)
    assert (gemma3.window, gemma3.full_layers) == (1024, (5, 11, 17, 23, 29))
    assert (gemma3.rope_theta, gemma3.rope_scaling, gemma3.local_rope_theta) == (1e6, LinearScaling(8.0), 1e4)
    assert (gemma3.attention_softcap, gemma3.logit_softcap, gemma3.max_positions) == (None, None, 131_072)


@given(configs())
def test_a_configuration_is_read_back_in_the_spelling_of_transformers_4_or_5(config):
    both = gemma.hugging_face_config(config)
    v4 = {name: value for name, value in both.items() if name != "rope_parameters"}
    v5 = {name: value for name, value in both.items() if name not in ("rope_theta", "rope_scaling", "rope_local_base_freq")}
    assert [gemma.from_hugging_face(fields) for fields in (both, v4, v5)] == [config] * 3


def test_fields_left_out_have_the_defaults_of_transformers():
    sizes = {"vocab_size": 100, **sized(2304, 9216, 12, 16, 4)}
    del sizes["num_key_value_heads"]
    one, two, three = (gemma.from_hugging_face({"model_type": kind, **sizes}) for kind in gemma.MODEL_TYPES)
    assert (one.n_kv_heads, one.d_head, one.query_pre_attn_scalar, one.max_positions) == (16, 256, 256, 8192)
    assert (one.norm_eps, one.tied, one.window, one.rope_theta) == (1e-6, True, None, 10_000.0)
    assert (two.n_kv_heads, two.window, two.full_layers) == (4, 4096, (1, 3, 5, 7, 9, 11))
    assert (two.attention_softcap, two.logit_softcap, two.query_pre_attn_scalar) == (50.0, 30.0, 256)
    assert (three.window, three.full_layers, three.max_positions) == (4096, (5, 11), 131_072)
    assert (three.rope_theta, three.local_rope_theta, three.logit_softcap) == (1e6, 1e4, None)


@pytest.mark.parametrize(
    ("config", "change", "named"),
    [
        (GEMMA2, {"hidden_activation": "silu"}, "hidden_activation='silu'"),
        (GEMMA2, {"hidden_activation": "gelu"}, "hidden_activation='gelu'"),
        (GEMMA1, {"hidden_act": "relu", "hidden_activation": None}, "hidden_act='relu'"),
        (GEMMA2, {"attention_bias": True}, "attention_bias=true"),
        (GEMMA3, {"use_bidirectional_attention": True}, "use_bidirectional_attention=true"),
        (GEMMA3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        (GEMMA3, {"layer_types": ["full_attention"]}, r"layer_types=\['full_attention'\]"),
        (GEMMA2, {"layer_types": ["chunked_attention"] * 3}, "layer_types="),
        (GEMMA2, {"sliding_window": None}, "layers of the type 'sliding_attention', but sliding_window=null"),
        (GEMMA3, {"rope_parameters": {"rope_type": "default"}}, "rope_parameters="),
        (GEMMA3, {"rope_parameters": {"sliding_attention": LINEAR8}}, "rope_parameters with .* in local layers"),
        (GEMMA2, {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_type='longrope'"),
    ],
)
def test_a_variant_that_is_not_computed_is_refused_by_name(config, change, named):
    with pytest.raises(ValueError, match=f"config.json has {named}"):
        gemma.from_hugging_face({**gemma.hugging_face_config(config), **change})


def test_what_transformers_has_no_model_for_is_not_written():
    for config in (
        replace(GEMMA1, query_pre_attn_scalar=7),
        replace(GEMMA1, logit_softcap=30.0),
        replace(GEMMA2, local_rope_theta=20.0),
        replace(GEMMA3, attention_softcap=50.0),
        replace(GEMMA3, local_rope_theta=None, rope_scaling=LinearScaling(2.0)),
    ):
        with pytest.raises(ValueError, match="transformers has no model with the norms, caps, windows and positions of Config"):
            gemma.hugging_face_config(config)


def test_sizes_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="n_heads=4 query heads cannot share n_kv_heads=3; it must divide them"):
        replace(GEMMA2, n_kv_heads=3)
    with pytest.raises(ValueError, match="d_head=5 is odd"):
        replace(GEMMA2, d_head=5)
    with pytest.raises(ValueError, match=r"full_layers=\(3,\) needs a window, and layers from 0 to 2"):
        replace(GEMMA2, full_layers=(3,))
    with pytest.raises(ValueError, match="logit_softcap=0.0 cannot be; a cap is positive, or None"):
        replace(GEMMA2, logit_softcap=0.0)
    with pytest.raises(ValueError, match="query_pre_attn_scalar=0 cannot be; it must be at least 1"):
        replace(GEMMA2, query_pre_attn_scalar=0)
