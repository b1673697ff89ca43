"""GPT-2 against Hugging Face transformers, its published sizes, and its configuration."""

from dataclasses import replace

import pytest

from refllm.models import gpt2
from refllm.models.parameters import count

SMALL = gpt2.Config(vocab_size=13, d_model=12, n_layers=2, n_heads=3, max_positions=16, d_ff=20, norm_eps=1e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("activation", gpt2.ACTIVATION_NAMES)
def test_logits_and_gradients_are_those_of_transformers(activation, agrees_with_transformers, tmp_path):
    agrees_with_transformers(gpt2, replace(SMALL, activation=activation), tmp_path)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        *(("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)),
        *(("gpt3-125m", 125e6), ("gpt3-350m", 356e6), ("gpt3-760m", 760e6), ("gpt3-1.3b", 1.3e9), ("gpt3-2.7b", 2.7e9)),
        *(("gpt3-6.7b", 6.7e9), ("gpt3-13b", 13e9), ("gpt3-175b", 175e9)),
    ],
)
def test_a_published_size_has_the_published_number_of_parameters(name, published):
    counted = count(gpt2.parameter_shapes(gpt2.SIZES[name]))
    if isinstance(published, int):
        assert counted == published
    else:  # Brown et al. give two or three digits
        assert abs(counted - published) <= 0.02 * published
    if name in ("gpt2", "gpt2-xl"):
        assert (gpt2.SIZES[name].d_head, gpt2.SIZES[name].n_kv_heads) == (64, 12 if name == "gpt2" else 25)


@pytest.mark.parametrize("activation", gpt2.ACTIVATION_NAMES)
def test_a_configuration_is_read_back_as_it_was_written(activation):
    config = replace(SMALL, activation=activation)
    assert gpt2.from_hugging_face(gpt2.hugging_face_config(config)) == config


def test_fields_left_out_have_the_defaults_of_transformers():
    fields = {"model_type": "gpt2", "vocab_size": 50_257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None}
    assert gpt2.from_hugging_face(fields) == gpt2.Config(50_257, 768, 12, 12, 1024, 3072, 1e-5, "gelu_tanh")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation_function", "relu"),
        ("tie_word_embeddings", False),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
    ],
)
def test_a_variant_that_is_not_computed_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"config.json has {name}={value!r}; this GPT-2 has"):
        gpt2.from_hugging_face(gpt2.hugging_face_config(SMALL) | {name: value})


def test_sizes_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="d_model=13 cannot be cut into n_heads=3 equal heads"):
        replace(SMALL, d_model=13)
    with pytest.raises(ValueError, match="activation='relu' is not known; choose one of gelu_erf, gelu_tanh"):
        replace(SMALL, activation="relu")
    with pytest.raises(ValueError, match="n_heads=0 cannot be; it must be at least 1"):
        replace(SMALL, n_heads=0)
