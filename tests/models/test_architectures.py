"""The laws that every architecture keeps, whatever it computes: causality, the cache, gradients, memory."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import complex_step
from refllm.decoding import new_cache
from refllm.layers.dropout import Dropout
from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model

POSITIONS = 16


@st.composite
def llamas(draw):
    """Small ones of every kind: odd sizes, one key/value head or more, tied, windowed, scaled, biased, normalised, or not."""
    n_kv_heads = draw(st.integers(1, 3))
    n_layers, window = draw(st.integers(1, 2)), draw(st.none() | st.integers(1, 5))
    return architecture("llama").Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=draw(st.integers(1, 7)),
        n_layers=n_layers,
        n_heads=n_kv_heads * draw(st.integers(1, 3)),
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(st.integers(1, 3)),
        d_ff=draw(st.integers(1, 9)),
        max_positions=POSITIONS,
        rope_theta=draw(st.sampled_from([10.0, 10_000.0])),
        tied=draw(st.booleans()),
        window=window,
        full_layers=() if window is None else draw(st.sampled_from([(), (n_layers - 1,)])),
        qkv_bias=draw(st.booleans()),
        o_bias=draw(st.booleans()),
        ffn_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        rope_scaling=draw(st.sampled_from([None, LinearScaling(2.0), Llama3Scaling(8.0, 1.0, 4.0, 32), YarnScaling(4.0, 32)])),
    )


@st.composite
def gemmas(draw):
    """Small ones of every generation: capped or not, with local layers or none, norms before or around, on heads or not."""
    n_kv_heads = draw(st.integers(1, 3))
    n_layers, window = draw(st.integers(1, 2)), draw(st.none() | st.integers(1, 5))
    return architecture("gemma").Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=draw(st.integers(1, 7)),
        n_layers=n_layers,
        n_heads=n_kv_heads * draw(st.integers(1, 3)),
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(st.integers(1, 3)),
        d_ff=draw(st.integers(1, 9)),
        query_pre_attn_scalar=draw(st.integers(1, 9)),
        max_positions=POSITIONS,
        rope_theta=draw(st.sampled_from([10.0, 10_000.0])),
        tied=draw(st.booleans()),
        window=window,
        full_layers=() if window is None else draw(st.sampled_from([(), (n_layers - 1,)])),
        post_norms=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        attention_softcap=draw(st.none() | st.sampled_from([0.5, 50.0])),
        logit_softcap=draw(st.none() | st.sampled_from([2.0, 30.0])),
        rope_scaling=draw(st.sampled_from([None, LinearScaling(2.0)])),
        local_rope_theta=draw(st.none() | st.just(50.0)),
    )


@st.composite
def gpt2s(draw):
    n_heads = draw(st.integers(1, 3))
    return architecture("gpt2").Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=n_heads * draw(st.integers(1, 3)),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        max_positions=POSITIONS,
        d_ff=draw(st.integers(1, 9)),
        activation=draw(st.sampled_from(["gelu_tanh", "gelu_erf"])),
    )


@st.composite
def berts(draw):
    n_heads, vocab_size = draw(st.integers(1, 3)), draw(st.integers(2, 13))
    pooler = draw(st.booleans())
    return architecture("bert").Config(
        vocab_size=vocab_size,
        d_model=n_heads * draw(st.integers(1, 3)),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        max_positions=POSITIONS,
        d_ff=draw(st.integers(1, 9)),
        n_types=draw(st.integers(1, 2)),
        norm_eps=draw(st.sampled_from([1e-5, 1e-2])),
        activation=draw(st.sampled_from(["gelu_erf", "gelu_tanh"])),
        pooler=pooler,
        next_sentence=pooler and draw(st.booleans()),
    )


@st.composite
def mixtrals(draw):
    n_kv_heads, n_experts = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    return architecture("mixtral").Config(
        vocab_size=draw(st.integers(2, 13)),
        d_model=draw(st.integers(1, 7)),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_kv_heads * draw(st.integers(1, 3)),
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(st.integers(1, 3)),
        d_ff=draw(st.integers(1, 5)),
        n_experts=n_experts,
        top_k=draw(st.integers(1, min(n_experts, 3))),
        max_positions=POSITIONS,
        tied=draw(st.booleans()),
        window=draw(st.none() | st.integers(1, 5)),
    )


CONFIGS = {"bert": berts(), "gemma": gemmas(), "gpt2": gpt2s(), "llama": llamas(), "mixtral": mixtrals()}
SMALL = {
    "bert": architecture("bert").Config(vocab_size=11, d_model=6, n_layers=2, n_heads=2, max_positions=POSITIONS, d_ff=7),
    "gemma": architecture("gemma").Config(
        vocab_size=11,
        d_model=6,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_head=4,
        d_ff=7,
        query_pre_attn_scalar=5,
        max_positions=POSITIONS,
        window=4,
        full_layers=(1,),
        qk_norm=True,
        attention_softcap=3.0,
        logit_softcap=20.0,
        local_rope_theta=50.0,
    ),
    "gpt2": architecture("gpt2").Config(vocab_size=11, d_model=6, n_layers=2, n_heads=2, max_positions=POSITIONS, d_ff=7),
    "llama": architecture("llama").Config(
        vocab_size=11, d_model=6, n_layers=2, n_heads=4, n_kv_heads=2, d_head=4, d_ff=7, max_positions=POSITIONS
    ),
    "mixtral": architecture("mixtral").Config(
        vocab_size=11,
        d_model=6,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_head=4,
        d_ff=5,
        n_experts=4,
        top_k=2,
        max_positions=POSITIONS,
    ),
}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
every_decoder = pytest.mark.parametrize("name", [name for name in ARCHITECTURES if architecture(name).AUTOREGRESSIVE])
every_masked_model = pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not architecture(name).AUTOREGRESSIVE])


def case(draw, name, parameters, longest=6):
    """A model, tokens and a random generator."""
    config = draw(CONFIGS[name])
    B, T = draw(st.integers(1, 3), label="B"), draw(st.integers(1, longest), label="T")
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    rng = np.random.default_rng(seed)
    module = architecture(name)
    tokens = rng.integers(0, config.vocab_size, (B, T), dtype=np.int32)
    params = parameters(module.parameter_shapes(config), seed)
    return SimpleNamespace(module=module, config=config, params=params, tokens=tokens, B=B, T=T, rng=rng)


def left_padded(draw, B, T):
    """Which of (B, T) tokens are valid: each row begins with some padding, and has one token at least."""
    padding = np.asarray([draw(st.integers(0, T - 1), label="padding") for _ in range(B)])
    return np.arange(T)[None, :] >= padding[:, None]


@every_architecture
@given(data=st.data())
def test_gradients_agree_with_the_complex_step_in_every_direction(name, random_parameters, data):
    c = case(data.draw, name, random_parameters)
    how = {
        "valid": left_padded(data.draw, c.B, c.T) if data.draw(st.booleans(), label="padded") else None,
        "last": data.draw(st.none() | st.integers(1, c.T), label="last"),
        "dropout": data.draw(st.none() | st.just(Dropout(0.25, seed=3, step=5)), label="dropout"),
    }

    def logits(*values):
        return c.module.forward(dict(zip(c.params, values, strict=True)), c.tokens, c.config, **how).logits

    output = c.module.forward(c.params, c.tokens, c.config, **how)
    dlogits = c.rng.standard_normal(output.logits.shape)
    gradients = c.module.backward(dlogits, output.saved)
    assert {n: g.shape for n, g in gradients.items()} == c.module.parameter_shapes(c.config)
    tangents = {n: c.rng.standard_normal(p.shape) for n, p in c.params.items()}
    _, change = complex_step(logits, list(c.params.values()), list(tangents.values()))
    by_backward = np.sum([np.sum(gradients[n] * tangents[n]) for n in c.params])
    scale = np.sum([np.sum(np.abs(gradients[n] * tangents[n])) for n in c.params])
    assert np.abs(by_backward - np.sum(dlogits * change)) <= 1e-12 * scale


@every_architecture
def test_every_parameters_largest_gradient_agrees_with_the_complex_step(name, random_parameters):
    module, config = architecture(name), SMALL[name]
    params = random_parameters(module.parameter_shapes(config), 0)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, config.vocab_size, (2, 7))
    logits, _, saved, *_ = module.forward(params, tokens, config)
    dlogits = rng.standard_normal(logits.shape)

    def logits_of(*values):
        return module.forward(dict(zip(params, values, strict=True)), tokens, config).logits

    gradients = module.backward(dlogits, saved)
    for n, gradient in gradients.items():
        index = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        tangent = np.zeros(gradient.shape)
        tangent[index] = 1
        _, change = complex_step(logits_of, list(params.values()), [tangent if p == n else None for p in params])
        expected = np.sum(dlogits * change)
        scale = np.max(np.abs(gradients[n.replace("k_bias", "k")]))  # without rotary positions, that of k_bias is all rounding
        assert np.abs(gradient[index] - expected) <= 1e-12 * max(np.abs(expected), scale), (n, gradient[index], expected)


@every_architecture
@given(data=st.data())
def test_checkpointing_gives_the_same_gradients_bit_for_bit(name, random_parameters, data):
    c = case(data.draw, name, random_parameters)
    dropout = data.draw(st.none() | st.just(Dropout(0.5, seed=1, step=2)))
    kept = c.module.forward(c.params, c.tokens, c.config, dropout=dropout)
    recomputed = c.module.forward(c.params, c.tokens, c.config, dropout=dropout, checkpointing=True)
    np.testing.assert_array_equal(kept.logits, recomputed.logits)
    dlogits = c.rng.standard_normal(kept.logits.shape)
    expected = c.module.backward(dlogits, kept.saved)
    for n, gradient in c.module.backward(dlogits, recomputed.saved).items():
        np.testing.assert_array_equal(gradient, expected[n], err_msg=n)


@every_decoder
@given(data=st.data())
def test_a_later_token_never_changes_an_earlier_logit(backend, name, random_parameters, data):
    c = case(data.draw, name, random_parameters)
    xp = backend.xp
    params = {n: xp.from_numpy(p.astype(np.float32)) for n, p in c.params.items()}
    t = data.draw(st.integers(0, c.T - 1), label="t")
    other = c.tokens.copy()
    other[:, t] = (other[:, t] + data.draw(st.integers(1, c.config.vocab_size - 1))) % c.config.vocab_size
    before, after = (
        xp.to_numpy(c.module.forward(params, xp.from_numpy(tokens), c.config).logits) for tokens in (c.tokens, other)
    )
    np.testing.assert_array_equal(before[:, :t], after[:, :t])


@every_masked_model
@given(data=st.data())
def test_the_last_token_changes_the_first_logit_of_a_masked_model(backend, name, random_parameters, data):
    c = case(data.draw, name, random_parameters)
    xp = backend.xp
    config = replace(SMALL[name], activation=c.config.activation)  # one feature alone is normalised away
    params = random_parameters(c.module.parameter_shapes(config), data.draw(st.integers(0, 99)))
    params = {n: xp.from_numpy(p.astype(np.float32)) for n, p in params.items()}
    tokens = c.rng.integers(0, config.vocab_size, (c.B, c.T + 1), dtype=np.int32)
    other = tokens.copy()
    other[:, -1] = (other[:, -1] + data.draw(st.integers(1, config.vocab_size - 1))) % config.vocab_size
    before, after = (xp.to_numpy(c.module.forward(params, xp.from_numpy(t), config).logits) for t in (tokens, other))
    assert np.all(np.any(before[:, 0] != after[:, 0], axis=-1))


@every_decoder
@given(data=st.data())
def test_logits_from_the_cache_equal_logits_without_it_however_the_sequence_is_cut(name, random_parameters, data):
    c = case(data.draw, name, random_parameters, longest=9)
    whole = c.module.forward(c.params, c.tokens, c.config).logits
    cuts = sorted({0, c.T, *data.draw(st.lists(st.integers(1, c.T)), label="cuts")})
    cache, parts = new_cache(Model(c.module, c.config, c.params), c.B, c.T + data.draw(st.integers(0, 3))), []
    for start, end in zip(cuts, cuts[1:], strict=False):
        output = c.module.forward(c.params, c.tokens[:, start:end], c.config, cache)
        assert output.saved is None
        cache = output.cache
        parts.append(output.logits)
    assert cache.length == c.T
    assert np.all(np.abs(np.concatenate(parts, axis=1) - whole) <= 1e-12 * np.max(np.abs(whole)))


@every_decoder
@given(data=st.data())
def test_a_ragged_batch_gives_each_row_the_logits_it_has_alone(name, random_parameters, data):
    c = case(data.draw, name, random_parameters, longest=9)
    valid = left_padded(data.draw, c.B, c.T)
    prompt = data.draw(st.integers(1, c.T), label="prompt")  # read at once; the rest goes token by token
    cache = new_cache(Model(c.module, c.config, c.params), c.B, c.T)
    logits, cache, *_ = c.module.forward(c.params, c.tokens[:, :prompt], c.config, cache, valid=valid[:, :prompt])
    parts = [logits]
    for t in range(prompt, c.T):
        known = None if valid[:, t].all() else valid[:, t : t + 1]  # no row is padded any more: none need say so
        logits, cache, *_ = c.module.forward(c.params, c.tokens[:, t : t + 1], c.config, cache, valid=known)
        parts.append(logits)
    cached = np.concatenate(parts, axis=1)
    together = c.module.forward(c.params, c.tokens, c.config, valid=valid).logits
    for b in range(c.B):
        alone = c.module.forward(c.params, c.tokens[b : b + 1, valid[b]], c.config).logits[0]
        for batched in (cached, together):
            assert np.all(np.abs(batched[b, valid[b]] - alone) <= 1e-12 * np.max(np.abs(alone)))


@every_architecture
@given(data=st.data())
def test_the_last_logits_are_the_last_of_all_logits(name, random_parameters, data):
    c = case(data.draw, name, random_parameters)
    last = data.draw(st.integers(1, c.T))
    whole = c.module.forward(c.params, c.tokens, c.config).logits
    end = c.module.forward(c.params, c.tokens, c.config, last=last).logits
    assert end.shape[1] == last
    assert np.all(np.abs(end - whole[:, c.T - last :]) <= 1e-12 * np.max(np.abs(whole)))


@every_architecture
def test_dropout_differs_by_step_and_at_rate_zero_does_nothing(name, random_parameters):
    module, config = architecture(name), SMALL[name]
    params = random_parameters(module.parameter_shapes(config), 0)
    tokens = np.arange(8).reshape(2, 4)

    def logits(dropout):
        return module.forward(params, tokens, config, dropout=dropout).logits

    np.testing.assert_array_equal(logits(None), logits(Dropout(0.0, 1, 1)))
    np.testing.assert_array_equal(logits(Dropout(0.5, 1, 1)), logits(Dropout(0.5, 1, 1)))
    assert np.any(logits(Dropout(0.5, 1, 1)) != logits(Dropout(0.5, 1, 2)))


@every_decoder
def test_training_memorises_one_batch_then_recites_it(name):
    config, module = SMALL[name], architecture(name)
    model = Model.initialise(name, config, seed=0, backend="numpy")
    text = np.random.default_rng(0).permutation(config.vocab_size)[None, :]  # every token names the next one
    tokens, targets = text[:, :-1], text[:, 1:]
    params, mean, square = dict(model.params), dict.fromkeys(model.params, 0.0), dict.fromkeys(model.params, 0.0)
    for step in range(1, 151):
        gradients = Model(module, config, params).gradients(tokens, targets)
        for n, g in gradients.items():  # Adam
            mean[n] = 0.9 * mean[n] + 0.1 * g
            square[n] = 0.99 * square[n] + 0.01 * g * g
            rate = np.float32(0.03 * np.sqrt(1 - 0.99**step) / (1 - 0.9**step))
            params[n] = params[n] - rate * mean[n] / (np.sqrt(square[n]) + np.float32(1e-8))
    trained = Model(module, config, params)
    assert trained.loss(tokens, targets) < 0.01 < np.log(config.vocab_size) * 0.9 < model.loss(tokens, targets)
    cache, token, recited = new_cache(trained, 1, tokens.shape[1]), tokens[:, :1], []
    for _ in range(tokens.shape[1]):
        logits, cache, *_ = module.forward(params, token, config, cache)
        token = np.argmax(logits[:, -1:], axis=-1)
        recited.append(int(token[0, 0]))
    assert recited == targets[0].tolist()


@every_architecture
@pytest.mark.parametrize(
    ("tokens", "how", "sentence"),
    [
        (np.zeros(7, int), {}, r"tokens has shape \(7,\); forward needs \(B, T\). For one sequence use tokens\[None, :\]."),
        (np.zeros((2, 0), int), {}, r"tokens has shape \(2, 0\); forward needs"),
        (np.zeros((1, 20), int), {}, r"the sequence is 20 tokens long, but the model has max_positions=16; shorten it by 4."),
        (
            np.zeros((1, 3), int),
            {"valid": np.ones((1, 2), bool)},
            r"valid has shape \(1, 2\); it needs that of tokens, \(1, 3\).",
        ),
        (np.zeros((1, 3), int), {"last": 4}, r"last=4 asks for the logits of 4 positions; the tokens have 3"),
        (np.zeros((1, 3), int), {"last": 0}, r"last=0 asks"),
    ],
)
def test_a_wrong_input_is_refused_with_a_sentence(name, random_parameters, tokens, how, sentence):
    module, config = architecture(name), SMALL[name]
    with pytest.raises(ValueError, match=sentence):
        module.forward(random_parameters(module.parameter_shapes(config), 0), tokens, config, **how)


@every_decoder
def test_a_cache_too_small_is_refused_with_a_sentence(name, random_parameters):
    module, config = architecture(name), SMALL[name]
    params = random_parameters(module.parameter_shapes(config), 0)
    cache = new_cache(Model(module, config, params), 2, 4)
    cache = module.forward(params, np.zeros((2, 3), int), config, cache).cache
    for shape in ((2, 2), (1, 1)):
        with pytest.raises(ValueError, match=r"do not fit the cache of 2 rows and 4 positions, 3 of them taken; make one of"):
            module.forward(params, np.zeros(shape, int), config, cache)


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'gpt5' is not an architecture; choose one of bert, gemma, gpt2, llama, mixtral"):
        architecture("gpt5")
