"""NumPy's kernels mean what the readable bodies mean, at every block size, on any number of threads, at once and again."""

import dataclasses
import inspect
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import OPS, kernels, load
from refllm.backends.kernels import (
    numpy_adamw,
    numpy_attention,
    numpy_blocks,
    numpy_cached_attention,
    numpy_parallel,
    numpy_training,
)
from refllm.conformance import bounded, kit
from refllm.conformance.comparison import carried, share_of_bound
from refllm.conformance.layer_checks import CHECKS as LAYERS
from refllm.conformance.strategies import seeds
from refllm.layers import (
    attention,
    blockwise_attention,  # noqa: F401 -- no model imports it, and OPS holds what has been imported
    geglu,  # noqa: F401 -- nor do those below import this one
)
from refllm.layers.attention import Mask
from refllm.layers.cache_blocks import quantise
from refllm.layers.dropout import Dropout
from refllm.models import gpt2, llama
from refllm.training.flat import arrange, pack
from refllm.training.step import loss_and_gradients

BACKEND = load("numpy")
KERNELS = BACKEND.kernels
LAYERS = {check.name: check for check in LAYERS if check.name in KERNELS}
WITH_BACKWARD = [name for name in LAYERS if f"{name}_backward" in KERNELS]
SMALL = {"vocab_size": 17, "d_model": 8, "n_layers": 2, "n_heads": 2, "max_positions": 12, "d_ff": 12}


@pytest.fixture(autouse=True)
def on():
    """Kernels on, whatever REFLLM_KERNELS says."""
    with kernels(BACKEND, KERNELS):
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that the small arrays of these tests take many."""
    monkeypatch.setattr(numpy_blocks, "BLOCK", 24)
    monkeypatch.setattr(numpy_attention, "QUERIES", 3)
    monkeypatch.setattr(numpy_attention, "SCORES", 40)


@pytest.fixture(params=["as they are", "tiny"])
def block_sizes(request):
    """Blocks as they are, and small ones."""
    if request.param == "tiny":
        request.getfixturevalue("small_blocks")


def threads(monkeypatch, n):
    for module in (numpy_training, numpy_parallel):
        monkeypatch.setattr(module, "threads", lambda: n)


def deep_copy(value):
    if isinstance(value, np.ndarray):
        return value.copy()
    return type(value)(*map(deep_copy, value)) if hasattr(value, "_fields") else value


def same_bits(a, b):
    if isinstance(a, tuple):
        return all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    return not isinstance(a, np.ndarray) or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_has_the_signature_of_the_op_it_replaces(name):
    ours, theirs = (inspect.signature(f).parameters.values() for f in (KERNELS[name], OPS[name].reference))
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("block_sizes")
def test_a_kernel_stays_within_the_error_bound_of_the_body_it_replaces(name):
    row = kit.run(LAYERS[name], BACKEND)
    assert not row.failure, row.failure


@pytest.mark.parametrize("name", WITH_BACKWARD)
def test_a_kernel_changes_no_argument_and_gives_the_same_bits_again(name):
    @given(LAYERS[name].draw)
    def check(arguments):
        arguments = arguments if type(arguments) is tuple else (arguments,)
        before = tuple(map(deep_copy, arguments))
        y, saved = KERNELS[name](*arguments)
        dy = np.asarray(np.random.default_rng(0).standard_normal(y.shape), dtype=y.dtype)
        kept = dy.copy(), y.copy()
        gradients = KERNELS[f"{name}_backward"](dy, saved)
        again = KERNELS[f"{name}_backward"](dy, saved)
        assert same_bits(arguments, before)
        assert same_bits((dy, y), kept)
        assert same_bits(gradients, again)
        assert same_bits(KERNELS[name](*arguments)[0], y)

    check()


def float64(value):
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(np.float64)
    if type(value) is tuple:
        return tuple(map(float64, value))
    return type(value)(*map(float64, value)) if hasattr(value, "_fields") else value


@pytest.mark.parametrize("name", WITH_BACKWARD)
@pytest.mark.usefixtures("block_sizes")
def test_a_kernel_in_float64_is_as_much_nearer_as_float64_is_finer(name):
    """Both the kernel and the oracle round in float64, so two of float32's bounds, scaled down by 2²⁹, hold the difference."""

    @given(LAYERS[name].draw)
    def check(arguments):
        arguments = arguments if type(arguments) is tuple else (arguments,)
        y, saved = KERNELS[name](*map(float64, arguments))
        dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
        found = as_tuple(KERNELS[f"{name}_backward"](dy.astype(np.float64), saved))
        with kernels(bounded.backend, {}):
            exact_y, exact_saved = OPS[name](*carried(arguments, bounded.backend, "float32"))
            exact = as_tuple(OPS[f"{name}_backward"](carried(dy, bounded.backend, "float32"), exact_saved))
        for mine, oracle in zip((y, *found), (exact_y, *exact), strict=True):
            assert mine.dtype == np.float64
            assert share_of_bound(mine, oracle, BACKEND) <= 2 * 2.0**-29

    check()


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def assert_within_bound(name, *arguments):
    row = kit.run(dataclasses.replace(LAYERS[name], draw=st.just(arguments)), BACKEND, examples=1)
    assert not row.failure, row.failure


def normals(*shape, scale=1.0):
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.usefixtures("block_sizes")
@pytest.mark.parametrize("scale", [1.0, 4.0, 300.0])  # no block, some blocks and every block beyond ±30
@pytest.mark.parametrize("softcap", [None, 50.0])
def test_attention_is_right_with_and_without_the_shift(scale, softcap):
    q, k, v = normals(2, 4, 7, 5, scale=scale), normals(2, 2, 9, 5), normals(2, 2, 9, 5)
    assert_within_bound("attention", q, k, v, Mask(start=2), 5**-0.5, softcap)


@pytest.mark.usefixtures("block_sizes")
@pytest.mark.parametrize("size", [1.0, 1e3, -1e3, 1e30])
def test_a_later_key_changes_no_bit_of_an_earlier_result(size):
    """Not even by making a block need the shift that guards against overflow."""
    q, k, v = normals(1, 2, 6, 4), normals(1, 2, 6, 4), normals(1, 2, 6, 4)
    y, _ = KERNELS["attention"](q, k, v, Mask(), 0.5)
    k[:, :, 4:] = size * q[:, :, 4:]
    later, _ = KERNELS["attention"](q, k, v, Mask(), 0.5)
    assert same_bits(y[:, :, :4].copy(), later[:, :, :4].copy())


@pytest.mark.usefixtures("block_sizes")
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient(scale):
    q, k, v = normals(2, 2, 5, 4, scale=scale), normals(2, 2, 5, 4), normals(2, 2, 5, 4)
    valid = np.ones((2, 5), dtype=bool)
    valid[0, :3] = False
    valid[1] = False
    assert_within_bound("attention", q, k, v, Mask(valid=valid), 0.5)
    y, saved = KERNELS["attention"](q, k, v, Mask(valid=valid), 0.5)
    assert np.array_equal(y[0, :, :3], np.zeros((2, 3, 4), np.float32))
    assert np.array_equal(y[1], np.zeros((2, 5, 4), np.float32))
    dq, dk, dv = KERNELS["attention_backward"](np.ones_like(y), saved)
    assert not dq[1].any()
    assert not dk[1].any()
    assert not dv[1].any()


@pytest.mark.parametrize("T", [1, 2])
def test_a_query_beyond_whose_window_all_keys_lie_gives_zeros(T):
    q, k, v = normals(1, 2, T, 4), normals(1, 2, 3, 4), normals(1, 2, 3, 4)
    assert_within_bound("attention", q, k, v, Mask(start=10, window=2), 0.5)
    assert not KERNELS["attention"](q, k, v, Mask(start=10, window=2), 0.5)[0].any()


@pytest.mark.usefixtures("block_sizes")
@pytest.mark.parametrize("mask", [Mask(start=2), Mask(start=5, window=3)])
def test_a_key_that_no_query_sees_gets_no_gradient(mask):
    q, k, v = normals(1, 2, 3, 4), normals(1, 2, 9, 4), normals(1, 2, 9, 4)
    y, saved = KERNELS["attention"](q, k, v, mask, 0.5)
    for _ in range(8):
        np.full((1, 9, 2, 4), np.nan, np.float32)  # what a buffer that is not zeroed would hold
    _, dk, dv = KERNELS["attention_backward"](y, saved)
    seen = attention.visible(mask, 3, 9, BACKEND.xp).any(axis=0)
    assert not dk[:, :, ~seen].any()
    assert not dv[:, :, ~seen].any()
    assert dk[:, :, seen].all()


@pytest.mark.usefixtures("block_sizes")
@pytest.mark.parametrize("mask", [Mask(start=8), Mask(start=8, window=3), Mask(start=8, valid=np.arange(9)[None, :] > 2)])
def test_one_query_attends_to_a_cache(mask):
    """Keys and values are views of longer buffers, as decoding gives them."""
    keys, values = normals(1, 2, 20, 6), normals(1, 2, 20, 6, scale=10)
    assert_within_bound("attention", normals(1, 6, 1, 6), keys[:, :, :9], values[:, :, :9], mask, 6**-0.5)


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm", "gelu_erf", "gelu_tanh", "silu", "softmax", "cross_entropy"])
@pytest.mark.parametrize("magnitude", [1e-20, 80.0, 95.0, 1e4, 1e15])
def test_kernels_bear_huge_and_tiny_numbers(name, magnitude):
    x = normals(6, 9, scale=magnitude)
    vectors = {"rms_norm": 1, "layer_norm": 2}.get(name, 0)
    more = (normals(9),) * vectors + ((1e-5,) if vectors else ())
    assert_within_bound(name, x, *more, *((np.arange(6, dtype=np.int32),) if name == "cross_entropy" else ()))


@pytest.mark.parametrize("dtype", [np.float16, np.complex128])
@pytest.mark.parametrize("name", ["rms_norm", "linear", "gelu_tanh"])
def test_a_kernel_leaves_to_the_body_what_it_does_not_serve(name, dtype):
    x = normals(3, 4).astype(dtype)
    arguments = {"rms_norm": (x, x[0], 1e-5), "linear": (x, x.T)}.get(name, (x,))
    y, saved = KERNELS[name](*arguments)
    exact, exact_saved = OPS[name].reference(*arguments)
    ours, theirs = KERNELS[f"{name}_backward"](y, saved), OPS[f"{name}_backward"](exact, exact_saved)
    assert same_bits((y, *as_tuple(ours)), (exact, *as_tuple(theirs)))


def test_no_position_at_all_is_the_bodys_business():
    y, saved = KERNELS["rms_norm"](np.zeros((0, 4), np.float32), np.ones(4, np.float32), 1e-5)
    dx, dgain = KERNELS["rms_norm_backward"](y, saved)
    assert (y.shape, dx.shape, dgain.shape) == ((0, 4), (0, 4), (4,))


# --- the optimizer


def moments(n, seed=0):
    rng = np.random.default_rng(seed)
    p, g, m, v = (rng.standard_normal(n).astype(np.float32) for _ in range(4))
    return p, g, m, np.abs(v)


@pytest.mark.usefixtures("block_sizes")
@given(n=st.integers(1, 200), decayed=st.floats(0, 1), step=st.integers(1, 1000), eps=st.sampled_from([1e-8, 0.1]), seed=seeds)
def test_adamw_updates_as_the_body_does(n, decayed, step, eps, seed):
    settings = (step, 1e-3, 0.9, 0.99, eps, 0.1, int(n * decayed))
    vectors = moments(n, seed)
    exact = OPS["adamw_update"].reference(*(v.astype(np.float64) for v in vectors), *settings)
    given_vectors = tuple(v.copy() for v in vectors)
    found = KERNELS["adamw_update"](*given_vectors, *settings)
    assert same_bits(given_vectors[1], vectors[1])  # the gradient is only read
    for mine, other, start in zip(found, exact, (vectors[0], vectors[2], vectors[3]), strict=True):
        # each is a weighted sum of a start and a change: eight roundings of either
        assert np.all(np.abs(mine - other) <= 8 * 2.0**-23 * (np.abs(start) + np.abs(other - start) + np.abs(vectors[1])))


def test_adamw_and_the_norm_give_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(numpy_blocks, "BLOCK", 100)
    monkeypatch.setattr(numpy_adamw, "LONG", 10)
    results = []
    for n in (1, 2, 3):
        threads(monkeypatch, n)
        vectors = tuple(v.copy() for v in moments(10_001))
        results.append(
            (KERNELS["adamw_update"](*vectors, 3, 1e-3, 0.9, 0.99, 1e-8, 0.1, 7000), KERNELS["global_norm"](vectors[1]))
        )
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["attention", "swiglu"])
def test_blocks_that_threads_share_have_the_same_bits_on_any_number_of_threads(name, monkeypatch):
    q, k, v, *matrices = normals(2, 4, 30, 6), normals(2, 2, 30, 6), normals(2, 2, 30, 6), *(normals(6, 6) for _ in range(3))
    arguments = (q, k, v, Mask(window=17), 0.4) if name == "attention" else (q, *matrices)
    results, shared = [], []
    together = numpy_parallel.together
    monkeypatch.setattr(numpy_parallel, "together", lambda jobs: shared.append(len(jobs)) or together(jobs))
    for n in (1, 2, 3):
        threads(monkeypatch, n)
        results.append(KERNELS[name](*arguments)[0])
    with numpy_parallel.blas_threads().held_to_one():  # somebody's threads are at work: these blocks stay on this one
        results.append(KERNELS[name](*arguments)[0])
    assert shared == [2, 3]
    assert all(same_bits(results[0], other) for other in results[1:])


@pytest.mark.parametrize("quantised", [False, True])
def test_heads_that_threads_share_have_the_same_bits_on_any_number_of_threads(quantised, monkeypatch):
    monkeypatch.setattr(numpy_cached_attention, "LONG", 1)
    keys, values = ([normals(2, 3, size, 6) for size in (5, 5, 2)] for _ in range(2))
    if quantised:
        keys, values = ([quantise(block) for block in blocks] for blocks in (keys, values))
    arguments = (normals(2, 6, 1, 6), tuple(keys), tuple(values), Mask(11, valid=np.arange(12)[None, :] >= [[0], [3]]), 0.4)
    results, shared, together = [], [], numpy_parallel.together
    monkeypatch.setattr(numpy_parallel, "together", lambda jobs: shared.append(len(jobs)) or together(jobs))
    for n in (1, 2, 4):
        threads(monkeypatch, n)
        results.append(KERNELS["cached_attention"](*arguments))
    assert shared == [2, 3]
    assert all(same_bits(results[0], other) for other in results[1:])
    wide = OPS["cached_attention"].reference(*map(float64, arguments))
    assert np.all(np.abs(results[0] - wide) <= 2.0**-23 * 64 * (1 + np.abs(wide)))


@given(n=st.integers(1, 9000), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=seeds)
def test_the_global_norm_is_within_its_bound(n, scale, seed):
    x = np.random.default_rng(seed).standard_normal(n).astype(np.float32) * np.float32(scale)
    exact = np.linalg.norm(x.astype(np.float64))
    assert np.abs(KERNELS["global_norm"](x) - exact) <= 2.0**-23 * (4 + n) * exact


# --- the batch in parts


def a_batch(name, seed=0, B=3, T=6):
    module, config = {
        "gpt2": (gpt2, gpt2.Config(**SMALL)),
        "llama": (llama, llama.Config(**SMALL, n_kv_heads=1, d_head=4)),
    }[name]
    layout = arrange(module.parameter_shapes(config))
    vector = pack(module.initialise(config, seed), layout)
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, 17, (2, B, T)).astype(np.int32)
    return vector, tokens, np.where(rng.random((B, T)) < 0.3, np.int32(-100), targets), layout, module, config


@pytest.mark.parametrize("dropout", [None, Dropout(0.5, 1, 1), Dropout(0.5, 1, 1, rows=(2, 5, 6))])
@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_batch_in_parts_has_the_loss_and_gradient_of_the_whole(name, parts, dropout, monkeypatch):
    vector, *rest = *a_batch(name), dropout
    vector = vector.astype(np.float64)
    with kernels(BACKEND, {}):
        loss, grads = loss_and_gradients(vector, *rest)
    threads(monkeypatch, parts)
    found_loss, found = loss_and_gradients(vector, *rest)
    assert found.dtype == np.float64
    assert found_loss.shape == ()
    assert np.abs(found_loss - loss) <= 1e-12 * loss
    assert np.all(np.abs(found - grads) <= 1e-12 * np.max(np.abs(grads)))


def test_a_batch_in_parts_where_nothing_counts_has_no_loss_and_no_gradient(monkeypatch):
    threads(monkeypatch, 2)
    vector, tokens, targets, *rest = a_batch("gpt2")
    loss, grads = loss_and_gradients(vector, tokens, np.full_like(targets, -100), *rest)
    assert loss == 0
    assert not grads.any()


def test_one_row_or_one_thread_is_left_whole(monkeypatch):
    vector, tokens, targets, *rest = a_batch("gpt2")
    for n, rows in [(2, 1), (1, 3)]:
        threads(monkeypatch, n)
        arguments = (vector, tokens[:rows], targets[:rows], *rest)
        assert same_bits(loss_and_gradients(*arguments), OPS["loss_and_gradients"].reference(*arguments))


def test_concurrent_steps_do_not_disturb_each_other_and_repeat_their_bits(monkeypatch):
    threads(monkeypatch, 2)
    batches = [a_batch(name, seed) for name in ("gpt2", "llama") for seed in (1, 2)]
    alone = [loss_and_gradients(*batch) for batch in batches]
    found = [[] for _ in batches]
    callers = [
        threading.Thread(target=lambda i=i: found[i].extend(loss_and_gradients(*batches[i]) for _ in range(5)))
        for i in range(len(batches))
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [len(f) for f in found] == [5] * len(batches)
    assert all(same_bits(result, alone[i]) for i in range(len(batches)) for result in found[i])


def blas_threads():
    return [library.num_threads for library in numpy_parallel.blas_libraries()]


@pytest.fixture
def two_blas_threads():
    before = blas_threads()
    for library in numpy_parallel.blas_libraries():
        library.set_num_threads(2)
    yield
    for library, n in zip(numpy_parallel.blas_libraries(), before, strict=True):
        library.set_num_threads(n)


@pytest.mark.usefixtures("two_blas_threads")
def test_blas_is_held_to_one_thread_until_the_last_holder_lets_go():
    before = blas_threads()
    free = numpy_parallel.threads()
    with numpy_parallel.blas_threads().held_to_one():
        assert numpy_parallel.threads() == free  # what BLAS was given, not what it is held to
        with numpy_parallel.blas_threads().held_to_one():
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the very case
def test_a_forked_child_steps_on_threads_of_its_own():
    assert numpy_parallel.together([lambda: 1, lambda: 2]) == [1, 2]
    with numpy_parallel.blas_threads().lock:  # as if another thread were just taking hold
        child = os.fork()
        if child == 0:
            right = numpy_parallel.together([lambda: 1, lambda: 2]) == [1, 2] and numpy_parallel.threads() >= 1
            os._exit(0 if right else 1)
    for _ in range(400):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits for its parent's threads")
    assert status == 0


@pytest.mark.usefixtures("two_blas_threads")
def test_an_error_in_any_part_is_raised_and_blas_gets_its_threads_back(monkeypatch):
    threads(monkeypatch, 2)
    before = blas_threads()
    vector, tokens, targets, *rest = a_batch("gpt2")
    for row in (0, 2):
        wrong = tokens.copy()
        wrong[row] = 99  # beyond the vocabulary
        with pytest.raises(IndexError):
            loss_and_gradients(vector, wrong, targets, *rest)
    assert blas_threads() == before


def test_an_error_in_the_first_part_waits_for_the_others():
    ended = []

    def slow():
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(ZeroDivisionError):
        numpy_parallel.together([lambda: 1 // 0, slow])
    assert ended


def test_a_part_runs_in_the_callers_context():
    """NumPy keeps its error handling in the context: what the caller asked for holds in the helper threads."""
    with np.errstate(divide="raise"):
        assert numpy_parallel.together([lambda: np.geterr()["divide"]] * 3) == ["raise"] * 3


def test_threadpoolctl_is_imported_only_when_a_step_needs_it():
    script = "import sys, refllm; refllm.load_backend('numpy'); sys.exit('threadpoolctl' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
