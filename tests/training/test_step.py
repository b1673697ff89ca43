"""A training step: its gradients, its accumulation, its randomness, on every backend."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.training_checks import LOSS_BOUND
from refllm.models import gpt2, llama
from refllm.training.config import TrainingConfig
from refllm.training.flat import unpack
from refllm.training.step import first_state, learner, loss_and_gradients, train_step

LLAMA = llama.Config(
    vocab_size=17, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_head=8, d_ff=24, max_positions=8, tied=True
)
GPT2 = gpt2.Config(vocab_size=17, d_model=16, n_layers=2, n_heads=2, max_positions=8, d_ff=24)
MODELS = [pytest.param(llama, LLAMA, id="llama"), pytest.param(gpt2, GPT2, id="gpt2")]


def settings_for(**changes):
    return TrainingConfig(**{"context": 8, "batch": 4, "steps": 20, "learning_rate": 1e-3, "schedule": "constant"} | changes)


def drawn(step, shape=(4, 8), vocab_size=17):
    """Tokens and targets of a step, the targets being a rule of the tokens, so that there is something to learn."""
    tokens = np.random.default_rng(step).integers(0, vocab_size, size=shape, dtype=np.int32)
    return tokens, (tokens * 3 + 1) % vocab_size


def trained(module, config, training, backend, steps, batches_of):
    """The state and the losses after some steps."""
    learning = learner(module, config, training)
    state, losses = first_state(learning, backend), []
    for step in range(steps):
        batches = [tuple(map(backend.xp.from_numpy, pair)) for pair in batches_of(step)]
        state, metrics = train_step(state, batches, learning)
        losses.append(float(backend.xp.to_numpy(metrics.loss)))
    return state, losses


def vectors(state, backend):
    return [backend.xp.to_numpy(x) for x in (state.vector, state.mean, state.square)]


def assert_same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("module", "config"), MODELS)
def test_gradients_are_the_slope_of_the_loss(numpy, module, config):
    learning = learner(module, config, settings_for(dtype="float64"))
    vector = first_state(learning, numpy).vector
    tokens, targets = drawn(0)

    def loss_at(v):
        return loss_and_gradients(v, tokens, targets, learning.layout, module, config)

    _, grads = loss_at(vector)
    assert grads.shape == vector.shape
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=vector.shape)
        slope = (loss_at(vector + 1e-5 * direction)[0] - loss_at(vector - 1e-5 * direction)[0]) / 2e-5
        assert float(slope) == pytest.approx(float(np.sum(grads * direction)), rel=1e-6)


@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    ignored=st.lists(st.booleans(), min_size=12 * 8, max_size=12 * 8),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_accumulated_micro_batches_equal_the_whole_batch(numpy, sizes, ignored, seed):
    rows = sum(sizes)
    tokens, targets = drawn(seed, (rows, 8))
    targets = np.where(np.array(ignored).reshape(12, 8)[:rows], -100, targets)
    cuts = np.cumsum([0, *sizes])
    pieces = [(tokens[a:b], targets[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    outcomes = []
    for batches in ([(tokens, targets)], pieces):
        training = settings_for(dtype="float64", accumulation=len(batches), learning_rate=1e-6)
        state, losses = trained(llama, LLAMA, training, numpy, 1, lambda step, batches=batches: batches)
        outcomes.append([np.array(losses), *vectors(state, numpy)])
    for one, many in zip(*outcomes, strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-12, atol=1e-12)


def test_a_step_is_the_clipped_gradient_into_adamw_at_the_scheduled_rate(numpy):
    """Two steps against the formulas, written out."""
    training = settings_for(dtype="float64", clip=0.5, warmup_steps=3, schedule="cosine", weight_decay=0.2, eps=1e-4)
    learning = learner(llama, LLAMA, training)
    state = first_state(learning, numpy)
    p, m, v = (x.copy() for x in state[:3])
    decay = np.where(np.arange(learning.layout.size) < learning.layout.n_decayed, 0.2, 0.0)
    for step in range(2):
        loss, g = loss_and_gradients(p, *drawn(step), learning.layout, llama, LLAMA)
        norm = np.sqrt(np.sum(g * g))
        assert norm > 0.5  # so that the clip shortens it
        g = g * 0.5 / (norm + 1e-6)
        rate, t = 1e-3 * (step + 1) / 4, step + 1
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        p = p - rate * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-4) + decay * p)
        state, metrics = train_step(state, [drawn(step)], learning)
        np.testing.assert_allclose(state.vector, p, rtol=1e-12, atol=1e-12)
        assert float(metrics.loss) == pytest.approx(float(loss), rel=1e-12)
        assert float(metrics.gradient_norm) == pytest.approx(float(norm), rel=1e-12)
    assert state.step == 2


@pytest.mark.parametrize(("module", "config"), MODELS)
def test_training_memorises_one_batch_then_recites_it(numpy, module, config):
    tokens = np.random.default_rng(7).integers(0, 17, size=(2, 9), dtype=np.int32)
    tokens[:, 0] = [3, 11]  # a different first token each, for what follows to be known
    pair = tokens[:, :-1], tokens[:, 1:]
    training = settings_for(learning_rate=3e-2, steps=120, schedule="cosine", weight_decay=0.0)
    state, losses = trained(module, config, training, numpy, 120, lambda step: [pair])
    assert losses[0] == pytest.approx(math.log(17), rel=0.05)
    assert losses[-1] < 0.01
    logits = module.forward(unpack(state.vector, learner(module, config, training).layout), pair[0], config).logits
    assert np.argmax(logits, axis=-1).tolist() == pair[1].tolist()


@pytest.mark.parametrize(("module", "config"), MODELS)
def test_the_loss_falls_on_data_never_seen_twice(backend, module, config):
    training = settings_for(learning_rate=1e-2, steps=60)
    _, losses = trained(module, config, training, backend, 60, lambda step: [drawn(step)])
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


# Twenty steps in float32 stay within LOSS_BOUND of the float64 losses, relatively: an update moves a weight by the learning rate
# whatever its gradient's size, so rounding that turns the sign of a tiny gradient moves the loss by up to
# steps · learning_rate · |tiny gradient|, far below that, and all other errors are of the order of eps(float32) · steps.
@pytest.mark.parametrize(("module", "config"), MODELS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_twenty_steps_follow_the_float64_oracle(backend, module, config, accumulation):
    def batches_of(step):
        return [drawn(step * accumulation + i) for i in range(accumulation)]

    training = {"accumulation": accumulation, "dropout": 0.1, "clip": 0.5, "warmup_steps": 5, "schedule": "cosine"}
    oracle = trained(module, config, settings_for(dtype="float64", **training), load("numpy"), 20, batches_of)[1]
    losses = trained(module, config, settings_for(**training), backend, 20, batches_of)[1]
    error = np.abs(np.array(losses) - np.array(oracle)) / np.array(oracle)
    assert np.all(error <= LOSS_BOUND), error.max()


@pytest.mark.parametrize(("module", "config"), MODELS)
def test_checkpointing_changes_no_gradient(backend, module, config):
    def outcome(checkpointing):
        training = settings_for(checkpointing=checkpointing, dropout=0.2)
        state, losses = trained(module, config, training, backend, 3, lambda step: [drawn(step)])
        return [np.array(losses), *vectors(state, backend)]

    assert_same_bits(outcome(False), outcome(True))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(backend):
    def outcome(seed):
        training = settings_for(seed=seed, dropout=0.2, accumulation=2)
        return vectors(trained(llama, LLAMA, training, backend, 3, lambda step: [drawn(step), drawn(step + 9)])[0], backend)

    assert_same_bits(outcome(5), outcome(5))
    assert np.any(outcome(5)[0] != outcome(6)[0])


def test_each_step_and_micro_batch_drops_other_numbers(numpy):
    pair = drawn(0)
    training = settings_for(dropout=0.5, learning_rate=0.0, accumulation=1)
    _, losses = trained(llama, LLAMA, training, numpy, 3, lambda step: [pair])
    assert len(set(losses)) == 3
    twice = settings_for(dropout=0.5, learning_rate=0.0, accumulation=2)
    _, means = trained(llama, LLAMA, twice, numpy, 1, lambda step: [pair, pair])
    assert means[0] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-6)  # micro-batches continue the steps' addresses


def test_the_seed_decides_what_is_dropped(numpy):
    learning = [learner(llama, LLAMA, settings_for(dropout=0.5, seed=seed)) for seed in (0, 1)]
    losses = [float(train_step(first_state(learning[0], numpy), [drawn(0)], pupil)[1].loss) for pupil in learning]
    assert losses[0] != losses[1]


def test_first_weights_are_the_same_on_every_backend(backend):
    learning = learner(llama, LLAMA, settings_for())
    expected = vectors(first_state(learning, load("numpy")), load("numpy"))
    assert_same_bits(vectors(first_state(learning, backend), backend), expected)


def test_weights_and_moments_stay_float32_while_the_passes_compute_in_bfloat16(backend):
    xp = backend.xp
    if "bfloat16" not in xp.dtypes():
        pytest.skip(f"{backend.name} does not compute in bfloat16")
    training = settings_for(dtype="bfloat16", learning_rate=1e-2)
    state, losses = trained(llama, LLAMA, training, backend, 40, lambda step: [drawn(step)])
    assert all(x.dtype == xp.float32 for x in (state.vector, state.mean, state.square))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_a_step_reads_nothing_back_from_the_device(monkeypatch):
    backend = load("strict")
    learning = learner(llama, LLAMA, settings_for(accumulation=2, dropout=0.1))
    state = first_state(learning, backend)
    batches = [tuple(map(backend.xp.from_numpy, drawn(i))) for i in range(2)]

    def read(array, *args):
        raise AssertionError("the step reads an array back")

    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
        monkeypatch.setattr(backend.array_type, name, read)
    assert train_step(state, batches, learning)[0].step == 1


def test_a_step_without_a_batch_is_refused():
    learning = learner(llama, LLAMA, settings_for())
    with pytest.raises(ValueError, match="the step has no batch"):
        train_step(first_state(learning, load("numpy")), [], learning)
