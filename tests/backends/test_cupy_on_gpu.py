"""CuPy on a real GPU: its kernels in every dtype, the same bits every time, and no wait in a step.

The tests of all backends run on the GPU too: `pytest -m gpu` selects them, each with [cupy] in its name.
"""

import numpy as np
import pytest

from refllm.array_api import kernels, load
from refllm.conformance.kit import run
from refllm.conformance.layer_checks import CHECKS
from refllm.decoding import Sampler, generate
from refllm.models import llama
from refllm.models.model import Model
from refllm.training.config import TrainingConfig
from refllm.training.step import first_state, learner, train_step

pytestmark = pytest.mark.gpu

CONFIG = llama.Config(vocab_size=97, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_head=16, d_ff=128, max_positions=64)
REPLACED = ("rms_norm", "layer_norm", "softmax", "gelu_tanh", "gelu_erf", "silu", "rope", "rope_interleaved", "attention")


@pytest.fixture(scope="module")
def gpu():
    return load("cupy")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [*REPLACED, "cross_entropy"])
def test_kernels_keep_their_bounds(gpu, name, dtype):
    check, ran = next(c for c in CHECKS if c.name == name), set()

    def watched(name):
        return lambda *arguments: (ran.add(name), gpu.kernels[name](*arguments))[1]

    with kernels(gpu, {n: watched(n) for n in gpu.kernels}):
        row = run(check, gpu, dtype, examples=50)
    assert row.worst <= 1, row.failure
    assert {name, f"{name}_backward"} <= ran


def test_kernels_agree_with_the_bodies_at_the_sizes_of_a_real_model(gpu):
    xp, rng = gpu.xp, np.random.default_rng(0)
    for check in CHECKS:
        if check.name in ("rms_norm", "softmax", "layer_norm"):
            x = rng.standard_normal((300, 1000)).astype(np.float32)
            vectors = {"rms_norm": 1, "softmax": 0, "layer_norm": 2}[check.name]
            drawn = (x, *(rng.standard_normal(1000).astype(np.float32) for _ in range(vectors)), *([1e-5] if vectors else []))
            shares = check.shares(gpu, drawn)
            assert all(share <= 1 for share in shares.values()), (check.name, shares)
    xp.synchronize()


def test_rows_are_added_up_the_same_way_every_time(gpu):
    xp, rng = gpu.xp, np.random.default_rng(0)
    rows = xp.from_numpy(rng.standard_normal((5000, 33)).astype(np.float32))
    indices = xp.from_numpy(rng.integers(0, 7, 5000).astype(np.int32))
    table = xp.zeros((7, 33), dtype=xp.float32)
    first = xp.to_numpy(xp.scatter_add(table, indices, rows))
    for _ in range(5):
        assert np.array_equal(xp.to_numpy(xp.scatter_add(table, indices, rows)), first)


def trained(gpu, steps: int = 8):
    """The losses and the weights after a few steps."""
    training = TrainingConfig(context=32, batch=8, steps=steps, warmup_steps=2, learning_rate=1e-2, dropout=0.1)
    pupil = learner(llama, CONFIG, training)
    state, losses = first_state(pupil, gpu), []
    for step in range(steps):
        ids = np.random.default_rng(step).integers(0, 97, (8, 33), dtype=np.int32)
        batch = gpu.xp.from_numpy(ids[:, :-1]), gpu.xp.from_numpy(ids[:, 1:])
        state, metrics = train_step(state, [batch], pupil)
        losses.append(metrics.loss)
    return [float(loss) for loss in losses], gpu.xp.to_numpy(state.vector)


def test_training_is_the_same_bit_for_bit(gpu):
    losses, weights = trained(gpu)
    again, weights_again = trained(gpu)
    assert losses == again
    assert np.array_equal(weights, weights_again)
    assert np.isfinite(weights).all()


def test_the_gpu_learns_what_numpy_learns(gpu):
    losses, _ = trained(gpu)
    expected, _ = trained(load("numpy"))
    assert np.all(np.abs(np.asarray(losses) - expected) <= 1e-4 * np.asarray(expected))


def test_the_gpu_writes_what_numpy_writes(gpu):
    written = {}
    for backend in (gpu, load("numpy")):
        model = Model.initialise("llama", CONFIG, seed=3, backend=backend)
        written[backend.name] = [s.tokens.tolist() for s in generate(model, [[1, 2, 3], [4]], 12, Sampler(temperature=0), seed=0)]
    assert written["cupy"] == written["numpy"]


def test_freed_memory_goes_back_to_the_pool(gpu):
    xp = gpu.xp
    before, _ = xp.memory()
    x = xp.zeros((1 << 20,), dtype=xp.float32)
    used, peak = xp.memory()
    assert used >= before + (4 << 20)
    assert peak >= used
    del x
    assert xp.memory()[0] <= before
