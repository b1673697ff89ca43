"""Nothing in a step waits for the device: counted on array-api-strict's simulated second device."""

import numpy as np
import pytest

pytest.importorskip("array_api_strict", reason="array-api-strict is not installed: pip install array-api-strict")

from refllm.array_api import load, namespace
from refllm.conformance.host_syncs import count_host_syncs
from refllm.decoding import Sampler, decode, generate, new_cache, prefill, remember, sample
from refllm.models import architecture, bert, gpt2, llama
from refllm.models.model import Model
from refllm.training.config import TrainingConfig
from refllm.training.step import first_state, learner, train_step

CONFIGS = {
    "gpt2": gpt2.Config(vocab_size=11, d_model=8, n_layers=2, n_heads=2, max_positions=16, d_ff=16),
    "llama": llama.Config(vocab_size=11, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_head=4, d_ff=16, max_positions=16),
}
PUPILS = CONFIGS | {"bert": bert.Config(vocab_size=11, d_model=8, n_layers=2, n_heads=2, max_positions=16, d_ff=16, padding=0)}
SAMPLERS = [
    Sampler(temperature=0),
    Sampler(),
    Sampler(0.8, top_k=5, top_p=0.9, min_p=0.01, typical_p=0.9, epsilon=0.001, eta=0.001),
    Sampler(0, repetition_penalty=1.2, presence_penalty=0.1, frequency_penalty=0.1, no_repeat_ngram=2, logit_bias={3: -1.0}),
    Sampler(mirostat=(3.0, 0.1)),
    Sampler(0.8, top_p=0.9, draws="llama2.c"),
]


@pytest.fixture
def syncs():
    with count_host_syncs() as counted:
        yield counted


@pytest.mark.parametrize(
    ("read", "how"),
    [
        (float, "float"),
        (int, "int"),
        (bool, "bool"),
        (lambda x: [5, 6, 7][x], "index"),
        (lambda x: 1 if x > 0 else 0, "bool"),
        (lambda x: namespace(x).to_numpy(x), "to_numpy"),
    ],
)
def test_every_way_to_read_a_number_is_counted_with_its_place(syncs, read, how):
    x = syncs.backend.xp.asarray(1, dtype=syncs.backend.xp.int32)
    assert syncs.count == 0
    read(x)
    assert syncs.count == 1
    assert syncs.places[0].startswith(f"{how} at {__file__}:")


def test_the_device_refuses_what_a_gpu_library_refuses(syncs):
    xp = syncs.backend.xp
    x = xp.ones((3,), dtype=xp.float32)
    with pytest.raises(RuntimeError, match="Can't convert array on the 'array_api_strict.Device\\('device1'\\)' device"):
        np.asarray(x)
    with pytest.raises(TypeError):
        x + np.ones(3, dtype=np.float32)
    for made in (
        xp.zeros(2, dtype=xp.float32),
        xp.arange(3, dtype=xp.int32),
        xp.from_numpy(np.ones(2)),
        xp.erf(x),
        xp.eye(2, dtype=xp.float32),
    ):
        assert "device1" in str(made.device)


def test_all_is_as_before_after_the_block():
    before = load("strict")
    with count_host_syncs() as syncs:
        assert load("strict") is load() is syncs.backend
    assert load("strict") is before
    x = before.xp.ones((), dtype=before.xp.float32)
    assert float(x) == 1
    assert syncs.count == 0
    assert namespace(x) is before.xp


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_prefill_and_decode_never_wait_for_the_device(syncs, name, sampler):
    xp = syncs.backend.xp
    model = Model.initialise(name, CONFIGS[name], seed=0)
    cache = new_cache(model, 2, 8)
    tokens = xp.from_numpy(np.asarray([[1, 2, 3], [0, 4, 5]], dtype=np.int32))
    valid = xp.from_numpy(np.asarray([[True] * 3, [False, True, True]]))
    uniforms = [xp.from_numpy(np.full(2, u, dtype=np.float32)) for u in (0.1, 0.5, 0.9)]
    syncs.places.clear()
    logits, cache = prefill(model, tokens, cache, valid)
    memory = remember(sampler, tokens, valid, xp, 11)
    allowed = xp.ones((2, 11), dtype=xp.bool)
    token, memory = sample(logits, uniforms[0], sampler, memory, allowed)
    for u in uniforms[1:]:
        logits, cache = decode(model, token[:, None], cache)
        token, memory = sample(logits, u, sampler, memory, allowed)
    assert not syncs.places
    assert tuple(token.shape) == (2,)


@pytest.mark.parametrize("name", CONFIGS)
def test_generating_text_waits_once_a_token(syncs, name):
    model = Model.initialise(name, CONFIGS[name], seed=0)
    syncs.places.clear()
    steps = list(generate(model, [[1, 2, 3], [4]], n_tokens=5, sampler=Sampler(), seed=0))
    assert len(steps) == 5
    assert syncs.count == 5, syncs.places


@pytest.mark.parametrize("name", PUPILS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 3}, {"dropout": 0.1}, {"checkpointing": True}, {"clip": 0.0}],
    ids=lambda c: next(iter(c), "plain"),
)
def test_a_training_step_waits_at_most_once(syncs, name, changes):
    training = TrainingConfig(**{"context": 4, "batch": 2, "steps": 10, "warmup_steps": 2, "learning_rate": 1e-2} | changes)
    pupil = learner(architecture(name), PUPILS[name], training)
    state = first_state(pupil, syncs.backend)
    xp = syncs.backend.xp
    ids = np.random.default_rng(0).integers(0, 11, (training.accumulation, 2, 5), dtype=np.int32)
    batches = [(xp.from_numpy(i[:, :-1]), xp.from_numpy(i[:, 1:])) for i in ids]
    syncs.places.clear()
    for _ in range(2):
        state, metrics = train_step(state, batches, pupil)
    assert not syncs.places, "the step itself reads nothing"
    assert float(metrics.loss) > 0
    assert syncs.count == 1
