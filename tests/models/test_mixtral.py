"""Mixtral against Hugging Face transformers, its published size, its auxiliary loss, and its configuration in both spellings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.array_api import kernels, load
from refllm.backends.kernels import numpy_parallel, numpy_training
from refllm.conformance.gradients import complex_step
from refllm.decoding import new_cache
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.dropout import Dropout
from refllm.layers.mixture_of_experts import load_balancing_loss
from refllm.layers.rope import LinearScaling
from refllm.models import llama, mixtral, regularise
from refllm.models.model import Model
from refllm.models.parameters import count
from refllm.training.config import TrainingConfig
from refllm.training.flat import arrange, pack
from refllm.training.step import first_state, learner, loss_and_gradients, train_step

SMALL = mixtral.Config(
    vocab_size=13,
    d_model=8,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_head=6,
    d_ff=5,
    n_experts=4,
    top_k=2,
    max_positions=32,
    norm_eps=1e-3,
)
BALANCED = replace(SMALL, balanced=True, balance_weight=0.5)
PUBLISHED = mixtral.Config(  # Mixtral 8x7B
    vocab_size=32_000,
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=8,
    d_head=128,
    d_ff=14_336,
    n_experts=8,
    top_k=2,
    max_positions=32_768,
)


@st.composite
def configs(draw):
    """Small ones of every kind that transformers computes."""
    n_kv_heads = draw(st.integers(1, 3))
    n_heads = n_kv_heads * draw(st.integers(1, 3))
    n_experts, top_k = draw(st.sampled_from([(4, 1), (4, 2), (8, 1), (8, 2), (3, 2), (2, 2)]))
    return mixtral.Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=n_heads * draw(st.integers(4, 6)),  # transformers asks for a multiple; fewer features cancel in the norm
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(st.integers(1, 4)),
        d_ff=draw(st.integers(1, 6)),
        n_experts=n_experts,
        top_k=top_k,
        max_positions=32,
        rope_theta=draw(st.sampled_from([50.0, 1_000_000.0])),
        norm_eps=draw(st.sampled_from([1e-5, 1e-2])),
        tied=draw(st.booleans()),
        window=draw(st.none() | st.integers(2, 5)),  # 1 makes the gradients of q and k zero
        rope_scaling=draw(st.none() | st.just(LinearScaling(2.0))),
        balanced=draw(st.booleans()),
        balance_weight=draw(st.sampled_from([0.02, 1.0])),
    )


def their_model(transformers, config, params):
    """The model that transformers makes of a configuration, with our parameters, one expert computed after the other."""
    import torch

    how = {"attn_implementation": "eager", "experts_implementation": "eager"}
    theirs = transformers.MixtralForCausalLM(transformers.MixtralConfig(**mixtral.hugging_face_config(config), **how))
    with torch.no_grad():
        for name, place in by_our_names({n: p.data for n, p in theirs.named_parameters()}, config).items():
            place.copy_(torch.from_numpy(params[name]))
    return theirs.eval()


def by_our_names(tensors, config):
    """Views of their tensors by our names and in our layout; in memory they hold gate and up in one."""
    found, left = {}, dict(tensors)
    for ours, (names, transposed) in mixtral.hugging_face_names(config).items():
        if isinstance(names, str):
            tensor = left.pop(names.replace("block_sparse_moe", "mlp"))
            found[ours] = tensor.T if transposed else tensor
    for i in range(config.n_layers):
        gate, up = left.pop(f"model.layers.{i}.mlp.experts.gate_up_proj").mT.chunk(2, dim=-1)
        found |= {f"layers.{i}.experts.gate": gate, f"layers.{i}.experts.up": up}
        found[f"layers.{i}.experts.down"] = left.pop(f"model.layers.{i}.mlp.experts.down_proj").mT
    assert not left
    return found


def assert_gradients_agree(ours, theirs, config):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = np.max(np.abs(expected))
        if name.endswith("router") and config.top_k == 1 and not config.balanced:  # the weight of one choice is one
            assert not np.any(ours[name])
            scale = 1.0
        assert np.all(np.abs(ours[name] - expected) <= 1e-11 * scale), name


@pytest.mark.oracle
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the dtype of torch stays switched for all examples
@given(config=configs(), padding=st.sampled_from([0, 0, 1, 7]))
def test_any_configuration_agrees_with_transformers_padded_or_not(config, padding, random_parameters, transformers_in_float64):
    import torch

    model = Model(mixtral, config, random_parameters(mixtral.parameter_shapes(config), 0))
    theirs = their_model(transformers_in_float64, config, model.params)
    tokens, targets = np.random.default_rng(1).integers(0, config.vocab_size, (2, 2, 11))
    valid = np.arange(11)[None, :] >= np.asarray([[padding], [0]])
    targets = np.where(valid, targets, -100)
    masked = {"attention_mask": valid.astype(np.int64), "position_ids": np.maximum(np.cumsum(valid, axis=1) - 1, 0)}
    output = theirs(torch.from_numpy(tokens), **{n: torch.from_numpy(a) for n, a in masked.items() if padding})
    logits, _, saved, auxiliary, *_ = mixtral.forward(model.params, tokens, config, valid=valid if padding else None)
    expected = output.logits.detach().numpy()
    assert logits.dtype == expected.dtype == np.float64
    assert np.all(np.abs(logits - expected)[valid] <= 1e-12 * np.max(np.abs(expected)))
    loss = torch.nn.functional.cross_entropy(output.logits.reshape(-1, config.vocab_size), torch.from_numpy(targets).reshape(-1))
    judged, compared = cross_entropy(logits, targets)
    assert (output.aux_loss is not None) == (auxiliary is not None) == config.balanced
    if config.balanced:
        loss, judged = loss + config.balance_weight * output.aux_loss, judged + auxiliary
    loss.backward()
    assert abs(judged - loss.item()) <= 1e-12 * loss.item()
    gradients = mixtral.backward(cross_entropy_backward(np.ones_like(judged), compared), saved)
    grads = by_our_names({name: p.grad for name, p in theirs.named_parameters()}, config)
    assert_gradients_agree(gradients, {name: grad.numpy() for name, grad in grads.items()}, config)
    if not padding:
        assert model.loss(tokens, targets) == judged
        assert all(np.array_equal(gradient, gradients[name]) for name, gradient in model.gradients(tokens, targets).items())


@pytest.mark.oracle
@pytest.mark.parametrize(
    "config", [BALANCED, replace(SMALL, tied=True, window=3, n_experts=3, top_k=1)], ids=["balanced", "tied"]
)
def test_transformers_reads_our_files_and_we_read_its(config, random_parameters, transformers_in_float64, tmp_path):
    import torch

    model = Model(mixtral, config, random_parameters(mixtral.parameter_shapes(config), 0))
    checkpoints.save(tmp_path / "ours", model)
    how = {"attn_implementation": "eager", "experts_implementation": "eager"}
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", **how)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 11))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    assert np.all(np.abs(model.logits(tokens) - expected) <= 1e-12 * np.max(np.abs(expected)))
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        again = checkpoints.load(tmp_path / folder)
        assert again.config == config
        assert again.params.keys() == model.params.keys()
        for name, values in model.params.items():
            np.testing.assert_array_equal(again.params[name], values)


def test_the_published_size_has_the_published_numbers_of_parameters():
    assert count(mixtral.parameter_shapes(PUBLISHED)) == 46_702_792_704
    assert count(mixtral.active_shapes(PUBLISHED)) == 12_879_925_248
    assert count(mixtral.active_shapes(replace(PUBLISHED, top_k=8))) == 46_702_792_704
    assert mixtral.active_shapes(PUBLISHED).keys() == mixtral.parameter_shapes(PUBLISHED).keys()


@given(st.integers(1, 4))
def test_equal_experts_make_it_a_llama(top_k):
    rng = np.random.default_rng(0)
    config = replace(SMALL, top_k=top_k, window=3)
    params = {n: rng.standard_normal(s) / np.sqrt(s[0]) for n, s in llama.parameter_shapes(config.dense).items()}
    copies = {}
    for name in mixtral.parameter_shapes(config):
        if "experts" in name:
            copies[name] = np.stack([params[name.replace("experts", "ffn")]] * config.n_experts)
        else:
            copies[name] = rng.standard_normal((8, 4)) if "router" in name else params[name]
    tokens = rng.integers(0, 13, (2, 9))
    expected = llama.forward(params, tokens, config.dense).logits
    assert np.all(np.abs(mixtral.forward(copies, tokens, config).logits - expected) <= 1e-12 * np.max(np.abs(expected)))


@pytest.mark.parametrize("padded", [False, True])
def test_the_auxiliary_loss_and_its_gradient_are_those_of_the_router_logits(random_parameters, padded):
    params = random_parameters(mixtral.parameter_shapes(BALANCED), 0)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 13, (2, 6))
    valid = np.arange(6) >= np.asarray([[3], [0]]) if padded else None

    def auxiliary(*values):
        return mixtral.forward(dict(zip(params, values, strict=True)), tokens, BALANCED, valid=valid).auxiliary

    output = mixtral.forward(params, tokens, BALANCED, valid=valid)
    logits = mixtral.router_logits(params, tokens, BALANCED, valid)
    assert logits.shape == (2, 2, 6, 4)
    counted = logits if valid is None else logits[:, valid]
    assert abs(output.auxiliary - 0.5 * load_balancing_loss(counted, None, 2)[0]) <= 1e-14
    gradients = mixtral.backward(np.zeros_like(output.logits), output.saved, np.asarray(3.0))
    tangents = [rng.standard_normal(p.shape) for p in params.values()]
    _, change = complex_step(auxiliary, list(params.values()), tangents)
    by_backward = [np.sum(g * t) for g, t in zip((gradients[n] for n in params), tangents, strict=True)]
    assert abs(sum(by_backward) - 3 * change) <= 1e-12 * np.sum(np.abs(by_backward))
    assert abs(change) > 1e-6


def test_only_a_balanced_model_has_an_auxiliary_loss_and_none_while_decoding(random_parameters):
    params, tokens = random_parameters(mixtral.parameter_shapes(SMALL), 0), np.zeros((1, 3), dtype=int)
    assert mixtral.forward(params, tokens, SMALL).auxiliary is None
    assert mixtral.forward(params, tokens, BALANCED).auxiliary.shape == ()
    cache = new_cache(Model(mixtral, BALANCED, params), 1, 3)
    assert mixtral.forward(params, tokens, BALANCED, cache).auxiliary is None


def test_dropout_falls_on_the_embedding_and_on_what_attention_and_experts_answer(random_parameters, monkeypatch):
    drawn, uniforms = [], regularise.uniforms

    def noted(how, name, *further):
        drawn.append(name)
        return uniforms(how, name, *further)

    monkeypatch.setattr(regularise, "uniforms", noted)
    params = random_parameters(mixtral.parameter_shapes(SMALL), 0)
    mixtral.forward(params, np.zeros((1, 3), dtype=int), SMALL, dropout=Dropout(0.5, seed=1, step=2))
    assert drawn == ["embedding", *(f"layers.{i}.{part}" for i in (0, 1) for part in ("attention", "experts"))]


@pytest.mark.parametrize("name", ["numpy", "mlx"])
@pytest.mark.parametrize("table", ["plain", "kernels"])
def test_training_lowers_the_loss_and_spreads_the_choices(name, table):
    backend = load(name)
    config = replace(SMALL, norm_eps=1e-5, balanced=True, balance_weight=0.1)
    training = TrainingConfig(context=8, batch=4, steps=25, learning_rate=2e-2, warmup_steps=2, seed=1)
    pupil, xp = learner(mixtral, config, training), backend.xp
    rows = np.random.default_rng(0).integers(0, 13, (4, 9)).astype(np.int32)
    batch, losses = (xp.from_numpy(rows[:, :-1]), xp.from_numpy(rows[:, 1:])), []
    with kernels(backend, {} if table == "plain" else backend.kernels):
        state = first_state(pupil, backend)
        for _ in range(25):
            state, metrics = train_step(state, [batch], pupil)
            losses.append(float(metrics.loss))
    assert losses[0] > np.log(13) * 0.9 + 0.2  # the balance of two choices is two at least, near zero weights
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_of_a_balanced_batch_is_that_of_the_whole_batch_on_any_number_of_threads(random_parameters, monkeypatch):
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 13, (2, 4, 9))
    layout = arrange(mixtral.parameter_shapes(BALANCED))
    params = random_parameters(mixtral.parameter_shapes(BALANCED), 0)
    model = Model(mixtral, BALANCED, params)
    numpy = load("numpy")
    for n in (1, 2, 3):
        for module in (numpy_training, numpy_parallel):
            monkeypatch.setattr(module, "threads", lambda n=n: n)
        with kernels(numpy, numpy.kernels):
            loss, grads = loss_and_gradients(pack(params, layout), tokens, targets, layout, mixtral, BALANCED)
        assert abs(loss - model.loss(tokens, targets)) <= 1e-14 * loss
        expected = pack(model.gradients(tokens, targets), layout)
        assert np.max(np.abs(grads - expected)) <= 1e-13 * np.max(np.abs(expected))


@given(
    theta=st.sampled_from([10_000.0, 1_000_000.0]),
    tied=st.booleans(),
    window=st.none() | st.integers(1, 4096),
    scaling=st.none() | st.just(LinearScaling(2.0)),
    balanced=st.booleans(),
)
def test_a_configuration_is_read_back_in_the_spelling_of_transformers_4_or_5(theta, tied, window, scaling, balanced):
    config = replace(SMALL, rope_theta=theta, tied=tied, window=window, rope_scaling=scaling, balanced=balanced)
    both = mixtral.hugging_face_config(config)
    v4 = {name: value for name, value in both.items() if name != "rope_parameters"}
    v5 = {name: value for name, value in both.items() if name not in ("rope_theta", "rope_scaling")}
    assert [mixtral.from_hugging_face(fields) for fields in (both, v4, v5)] == [config] * 3


@pytest.mark.oracle
def test_fields_left_out_have_the_defaults_of_transformers():
    import transformers

    fields = {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 14_336,
    }
    theirs = transformers.MixtralConfig(**fields).to_dict()
    assert mixtral.from_hugging_face(fields) == mixtral.from_hugging_face(theirs)


def test_a_variant_that_is_not_computed_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="config.json has hidden_act='gelu'; the experts of this Mixtral have SiLU"):
        mixtral.from_hugging_face({**mixtral.hugging_face_config(SMALL), "hidden_act": "gelu"})
    with pytest.raises(ValueError, match="top_k=5 experts cannot be chosen of n_experts=4"):
        replace(SMALL, top_k=5)
    with pytest.raises(ValueError, match="n_heads=4 query heads cannot share n_kv_heads=3; it must divide them"):
        replace(SMALL, n_kv_heads=3)
    with pytest.raises(ValueError, match="d_head=5 is odd"):
        replace(SMALL, d_head=5)
    with pytest.raises(ValueError, match="n_experts=0 cannot be; it must be at least 1"):
        replace(SMALL, n_experts=0)
