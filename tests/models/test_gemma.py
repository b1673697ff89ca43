"""Gemma 1, 2 and 3 against Hugging Face transformers, their published sizes, and their configurations in both spellings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.layers.rope import LinearScaling, YarnScaling
from refllm.models import gemma
from refllm.models.model import Model

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
def test_logits_and_gradients_are_those_of_transformers(kind, random_parameters, transformers_in_float64, tmp_path):
    theirs = compare_with_transformers(KINDS[kind], random_parameters, transformers_in_float64, tmp_path)
    assert type(theirs).__name__ == f"{kind.partition(',')[0]}ForCausalLM"


@pytest.mark.oracle
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the dtype of torch stays switched for all examples
@given(config=configs())
def test_any_configuration_agrees_with_transformers(config, random_parameters, transformers_in_float64, tmp_path_factory):
    compare_with_transformers(config, random_parameters, transformers_in_float64, tmp_path_factory.mktemp("gemma"))


def compare_with_transformers(config, random_parameters, transformers_in_float64, folder):
    """Hold logits and every gradient to those of the model that transformers makes of the folder we write; return it."""
    import torch

    params = random_parameters(gemma.parameter_shapes(config), 0)
    model = Model(gemma, config, params)
    checkpoints.save(folder, model)
    assert checkpoints.load(folder).config == config
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(0, config.vocab_size, (2, 2, 11))
    logits = theirs(torch.from_numpy(tokens)).logits
    torch.nn.functional.cross_entropy(logits.reshape(-1, config.vocab_size), torch.from_numpy(targets).reshape(-1)).backward()
    expected, actual = logits.detach().numpy(), model.logits(tokens)
    assert actual.dtype == expected.dtype == np.float64
    assert np.all(np.abs(actual - expected) <= 1e-12 * np.max(np.abs(expected)))
    gradients, named = model.gradients(tokens, targets), dict(theirs.named_parameters())
    for ours, (name, transposed) in gemma.hugging_face_names(config).items():
        expected = named.pop(name).grad.numpy()
        expected = expected.T if transposed else expected
        assert np.all(np.abs(gradients[ours] - expected) <= 1e-11 * np.max(np.abs(expected))), ours
    assert not named
    return theirs


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_padding_at_the_left_is_that_of_transformers(kind, random_parameters, transformers_in_float64, tmp_path):
    import torch

    config = KINDS[kind]
    model = Model(gemma, config, random_parameters(gemma.parameter_shapes(config), 0))
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 9))
    valid = np.arange(9)[None, :] >= np.asarray([[4], [0]])
    positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
    with torch.no_grad():
        tensors = [torch.from_numpy(a) for a in (tokens, valid.astype(np.int64), positions)]
        expected = theirs(tensors[0], attention_mask=tensors[1], position_ids=tensors[2]).logits.numpy()
    actual = gemma.forward(model.params, tokens, config, valid=valid).logits
    assert np.all(np.abs(actual - expected)[valid] <= 1e-12 * np.max(np.abs(expected)))
