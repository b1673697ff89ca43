"""Llama against Hugging Face transformers, its published sizes, and its configurations in both spellings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from refllm.models import llama
from refllm.models.parameters import count

SMALL = llama.Config(
    vocab_size=13, d_model=8, n_layers=2, n_heads=4, n_kv_heads=2, d_head=6, d_ff=10, max_positions=32, norm_eps=1e-3
)
KINDS = {
    "grouped queries": SMALL,
    "one key/value head": replace(SMALL, n_kv_heads=1),
    "as many keys as queries, tied": replace(SMALL, n_kv_heads=4, tied=True),
    "Llama 3": replace(SMALL, rope_theta=500.0, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 16)),
    "Mistral": replace(SMALL, window=3),
    "biases everywhere": replace(SMALL, qkv_bias=True, o_bias=True, ffn_bias=True, rope_scaling=LinearScaling(3.0)),
    "Qwen 2": replace(SMALL, qkv_bias=True, tied=True),
    "Qwen 2 with a window": replace(SMALL, qkv_bias=True, window=2, full_layers=(0,)),
    "Qwen 3": replace(SMALL, qk_norm=True, rope_scaling=YarnScaling(4.0, 8, 2.0, 0.5, 1.1)),
    "Qwen 3 with biases and a window": replace(SMALL, qk_norm=True, qkv_bias=True, o_bias=True, window=4),
}
CLASSES = {"Mistral": "Mistral", "Qwen 2": "Qwen2", "Qwen 3": "Qwen3"}


@st.composite
def configs(draw):
    """Small ones of every kind that transformers computes."""
    n_kv_heads, n_layers = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    n_heads = n_kv_heads * draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]))
    window = None if kind == "llama" else draw(st.none() | st.integers(2, 5))  # 1 makes the gradients of q and k zero
    windowed = {"window": window}
    if kind.startswith("qwen") and window is not None:
        windowed["full_layers"] = draw(st.sampled_from([(), (0,)] if n_layers == 2 else [()]))
    biased = kind == "qwen2" or (kind in ("llama", "qwen3") and draw(st.booleans()))
    return llama.Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=n_heads * draw(st.integers(4, 6)),  # transformers asks for a multiple; fewer features cancel in the norm
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(st.integers(1, 5)),
        d_ff=draw(st.integers(1, 9)),
        max_positions=32,
        rope_theta=draw(st.sampled_from([50.0, 10_000.0])),
        norm_eps=draw(st.sampled_from([1e-6, 1e-2])),
        tied=draw(st.booleans()),
        **windowed,
        qkv_bias=biased,
        o_bias=biased and kind != "qwen2",
        ffn_bias=kind == "llama" and draw(st.booleans()),
        qk_norm=kind == "qwen3",
        rope_scaling=draw(
            st.sampled_from([None, LinearScaling(2.0), Llama3Scaling(8.0, 1.0, 4.0, 16), YarnScaling(4.0, 8, 2.0, 0.5, 1.2)])
        ),
    )


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_transformers(kind, agrees_with_transformers, tmp_path):
    theirs = agrees_with_transformers(llama, KINDS[kind], tmp_path)
    expected = next((name for start, name in CLASSES.items() if kind.startswith(start)), "Llama")
    assert type(theirs).__name__ == f"{expected}ForCausalLM"


@pytest.mark.oracle
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the dtype of torch stays switched for all examples
@given(config=configs())
def test_any_configuration_agrees_with_transformers(config, agrees_with_transformers, tmp_path_factory):
    agrees_with_transformers(llama, config, tmp_path_factory.mktemp("llama"))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_padding_at_the_left_is_that_of_transformers(kind, pads_as_transformers, tmp_path):
    pads_as_transformers(llama, KINDS[kind], tmp_path)


@pytest.mark.parametrize(
    ("published", "sizes"),
    [
        (6_738_415_616, {"vocab_size": 32_000, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "d_ff": 11_008}),
        (68_976_648_192, {"vocab_size": 32_000, "d_model": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "d_ff": 28_672}),
        (8_030_261_248, {"vocab_size": 128_256, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "d_ff": 14_336}),
        (7_241_732_096, {"vocab_size": 32_000, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "d_ff": 14_336}),
        (1_100_048_384, {"vocab_size": 32_000, "d_model": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "d_ff": 5632}),
        (
            1_235_814_400,
            {"vocab_size": 128_256, "d_model": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "d_ff": 8192, "tied": True},
        ),
    ],
    ids=["Llama 2 7B", "Llama 2 70B", "Llama 3 8B", "Mistral 7B", "TinyLlama", "Llama 3.2 1B"],
)
def test_a_published_size_has_the_published_number_of_parameters(published, sizes):
    config = llama.Config(d_head=sizes["d_model"] // sizes["n_heads"], max_positions=4096, **sizes)
    assert count(llama.parameter_shapes(config)) == published


@given(
    theta=st.sampled_from([10_000.0, 500_000.0]),
    tied=st.booleans(),
    window=st.none() | st.integers(1, 4096),
    scaling=st.sampled_from([None, LinearScaling(2.0), Llama3Scaling(32.0, 1.0, 4.0, 8192), YarnScaling(4.0, 64, whole=False)]),
)
def test_a_configuration_is_read_back_in_the_spelling_of_transformers_4_or_5(theta, tied, window, scaling):
    config = replace(SMALL, rope_theta=theta, tied=tied, window=window, rope_scaling=scaling)
    both = llama.hugging_face_config(config)
    v4 = {name: value for name, value in both.items() if name != "rope_parameters"}
    v5 = {name: value for name, value in both.items() if name not in ("rope_theta", "rope_scaling")}
    assert [llama.from_hugging_face(fields) for fields in (both, v4, v5)] == [config] * 3


def test_fields_left_out_have_the_defaults_of_transformers():
    fields = {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11_008,
    }
    config = llama.from_hugging_face({"model_type": "llama", **fields})
    assert (config.n_kv_heads, config.d_head, config.max_positions) == (32, 128, 2048)
    assert (config.rope_theta, config.norm_eps, config.tied, config.window) == (10_000.0, 1e-6, False, None)
    mistral = llama.from_hugging_face({"model_type": "mistral", **fields})
    assert (mistral.max_positions, mistral.window) == (131_072, 4096)
    assert llama.from_hugging_face({"model_type": "mistral", "sliding_window": None, **fields}).window is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None}, "rope_type='dynamic'"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_type='longrope'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ],
)
def test_a_variant_that_is_not_computed_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"config.json has {named}; "):
        llama.from_hugging_face({**llama.hugging_face_config(SMALL), **change})


def test_what_transformers_has_no_model_for_is_not_written():
    for config in (
        replace(SMALL, o_bias=True),
        replace(SMALL, qk_norm=True, ffn_bias=True),
        replace(SMALL, window=2, ffn_bias=True),
    ):
        with pytest.raises(ValueError, match="transformers has no model with the biases, norms and windows of Config"):
            llama.hugging_face_config(config)


def test_yarns_amplitude_follows_from_its_factor_where_it_is_not_given():
    fields = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    assert llama.read_scaling(fields, 32).amplitude == 0.1 * np.log(4.0) + 1
    assert llama.read_scaling(fields | {"mscale": 1.0, "mscale_all_dim": 1.0}, 32).amplitude == 1.0
    assert llama.read_scaling(fields | {"factor": None}, 64).factor == 8.0


def test_sizes_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="n_heads=4 query heads cannot share n_kv_heads=3; it must divide them"):
        replace(SMALL, n_kv_heads=3)
    with pytest.raises(ValueError, match="d_head=5 is odd"):
        replace(SMALL, d_head=5)
    with pytest.raises(ValueError, match=r"full_layers=\(0,\) needs a window, and layers from 0 to 1"):
        replace(SMALL, full_layers=(0,))
    with pytest.raises(ValueError, match=r"full_layers=\(2,\) needs a window, and layers from 0 to 1"):
        replace(SMALL, window=2, full_layers=(2,))
    with pytest.raises(ValueError, match="n_heads=0 cannot be; it must be at least 1"):
        replace(SMALL, n_heads=0)
