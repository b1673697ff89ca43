"""NumPy's kernel for one token of a Llama: the blocks' own result, in place, and the body's business left to the body."""

import dataclasses
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import OPS, kernels, load
from refllm.backends.kernels import numpy_llama
from refllm.conformance import bounded, vectors
from refllm.conformance.comparison import carried, share_of_bound
from refllm.conformance.strategies import integers, seeds
from refllm.decoding import new_cache
from refllm.layers.dropout import Dropout
from refllm.layers.kv_cache import fork
from refllm.layers.rope import LinearScaling, YarnScaling
from refllm.models import llama
from refllm.models.model import Model

BACKEND = load("numpy")
SCALINGS = st.sampled_from([None, LinearScaling(2.0), YarnScaling(4.0, 8, 2.0, 0.5, 1.2)])
CONFIG = llama.Config(19, 8, n_layers=2, n_heads=4, n_kv_heads=2, d_head=4, d_ff=12, max_positions=16)


@pytest.fixture(autouse=True)
def on():
    """Kernels on, whatever REFLLM_KERNELS says."""
    with kernels(BACKEND, BACKEND.kernels):
        yield


@pytest.fixture
def served(monkeypatch):
    """A list that tells whenever the kernel leaves a call to the body."""
    left = []

    def reference(name, *arguments):
        left.append(name)
        return OPS[name].reference(*arguments)

    monkeypatch.setattr(numpy_llama, "reference", reference)
    return left


def values(config, seed, scale=1.0):
    """Parameters as training leaves them: gains near one, matrices that keep a vector's length; float64, queries scaled."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in llama.parameter_shapes(config).items():
        x = rng.standard_normal(shape)
        found[name] = 1 + 0.1 * x if len(shape) == 1 else x / np.sqrt(shape[0])
        found[name] *= scale if name.endswith("attention.q") else 1
    return found


def in_dtype(params, dtype):
    return {name: x.astype(dtype) for name, x in params.items()}


def read(config, params, tokens, size=16, cuts=(), **options):
    """The outputs of every chunk of tokens (T,), which end at the cuts and at the end."""
    cache, outputs, ends = new_cache(Model(llama, config, params), 1, 16, size=size), [], (*cuts, len(tokens))
    for start, end in zip((0, *cuts), ends, strict=True):
        outputs.append(llama.forward(params, tokens[None, start:end], config, cache, **options))
        cache = outputs[-1].cache
    return outputs


@st.composite
def configs(draw):
    G = draw(st.integers(1, 3))
    return llama.Config(
        vocab_size=19,
        d_model=draw(st.sampled_from([3, 4, 8])),
        n_layers=draw(st.integers(1, 3)),
        n_heads=G * draw(st.integers(1, 3)),
        n_kv_heads=G,
        d_head=draw(st.sampled_from([2, 4])),
        d_ff=draw(st.sampled_from([1, 5])),
        max_positions=16,
        tied=draw(st.booleans()),
        rope_scaling=draw(SCALINGS),
    )


@given(config=configs(), seed=seeds, tokens=integers((9,), 0, 19), size=st.sampled_from([1, 2, 4, 16]))
def test_tokens_read_one_by_one_keep_the_bound_of_the_text_read_at_once(config, seed, tokens, size):
    params = in_dtype(values(config, seed), np.float32)
    found = np.concatenate([o.logits for o in read(config, params, tokens, size, cuts=range(1, 9))], axis=1)
    with kernels(bounded.backend, {}), np.errstate(all="ignore"):  # a bound may be infinite
        exact = llama.forward(carried(params, bounded.backend, "float32"), carried(tokens[None], bounded.backend, ""), config)
    assert share_of_bound(found, exact.logits, BACKEND) <= 1


@given(config=configs(), seed=seeds, tokens=integers((9,), 0, 19), scale=st.sampled_from([1.0, 30.0, 1e3, 1e5]))
def test_in_float64_a_token_gives_what_the_body_gives(config, seed, tokens, scale):
    """Also where the scores are so large that the softmax needs its shift."""
    params = values(config, seed, scale)
    found = read(config, params, tokens, size=4, cuts=(7, 8))[-1]
    with kernels(BACKEND, {}):
        exact = read(config, params, tokens, size=4, cuts=(7, 8))[-1]
    size = vectors.EXACT * max(1, scale)  # the scores' error is relative to the scores
    for mine, body in zip((found.logits, found.features), (exact.logits, exact.features), strict=True):
        assert mine.dtype == np.float64
        assert np.all(np.abs(mine - body) <= size * max(1, np.max(np.abs(body))))
    for mine, body in zip(found.cache.layers, exact.cache.layers, strict=True):
        for ours, theirs in zip((*mine.keys, *mine.values), (*body.keys, *body.values), strict=True):
            assert np.all(np.abs(ours - theirs) <= size * max(1, np.max(np.abs(theirs))))


def test_scores_far_below_zero_do_not_vanish():
    """A key that is its query turned round: the exponentials of all scores are zero, were it not for the shift."""
    config = dataclasses.replace(CONFIG, n_kv_heads=4, d_head=2)
    params, tokens = values(config, 0), np.array([3, 3], np.int32)
    for i in range(2):
        params[f"layers.{i}.attention.k"] = -1e4 * params[f"layers.{i}.attention.q"]
    found = read(config, params, tokens, cuts=(1,))[-1].logits
    with kernels(BACKEND, {}):
        exact = read(config, params, tokens, cuts=(1,))[-1].logits
    assert np.all(np.abs(found - exact) <= 1e4 * vectors.EXACT * np.max(np.abs(exact)))


def test_the_kernel_serves_every_token_but_those_that_begin_a_block(served):
    params, tokens = in_dtype(values(CONFIG, 0), np.float32), np.arange(12, dtype=np.int32)
    read(CONFIG, params, tokens, size=4, cuts=range(2, 12))
    assert len(served) == 1 + 2  # the prompt, then positions 4 and 8


ODD = {
    "a window": {"window": 3},
    "biases of queries": {"qkv_bias": True},
    "a bias behind the heads": {"o_bias": True},
    "biases in the feed-forward": {"ffn_bias": True},
    "normalised heads": {"qk_norm": True},
}


@pytest.mark.parametrize("kind", ODD)
def test_other_kinds_of_blocks_are_left_to_the_body(kind, served):
    config = dataclasses.replace(CONFIG, **ODD[kind])
    read(config, in_dtype(values(config, 0), np.float32), np.arange(3, dtype=np.int32), cuts=(2,))
    assert len(served) == 2


def cache_in(cache, dtype):
    layers = tuple(
        held._replace(keys=tuple(k.astype(dtype) for k in held.keys), values=tuple(v.astype(dtype) for v in held.values))
        for held in cache.layers
    )
    return cache._replace(layers=layers)


CASES = {
    "half precision": lambda p, c: (in_dtype(p, np.float16), cache_in(c, np.float16)),
    "a matrix of another dtype": lambda p, c: (p | {"layers.1.ffn.up": p["layers.1.ffn.up"].astype(np.float64)}, c),
    "another sequence's block": lambda p, c: (p, fork(c)[0]),
    "padding": lambda p, c: (p, c._replace(starts=np.array([1], np.int32))),
    "a cache of another dtype": lambda p, c: (p, cache_in(c, np.float64)),
}


@pytest.mark.parametrize("case", CASES)
def test_other_numbers_and_caches_are_left_to_the_body(case, served):
    params = in_dtype(values(CONFIG, 0), np.float32)
    params, cache = CASES[case](params, read(CONFIG, params, np.arange(3, dtype=np.int32))[0].cache)
    served.clear()
    llama.forward(params, np.array([[5]], np.int32), CONFIG, cache)
    assert served == ["llama_blocks"]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_cache_of_another_window_is_refused(swapped):
    params, windowed = in_dtype(values(CONFIG, 0), np.float32), dataclasses.replace(CONFIG, window=3)
    ours, other = (windowed, CONFIG) if swapped else (CONFIG, windowed)
    cache = read(other, params, np.arange(3, dtype=np.int32))[0].cache
    with pytest.raises(ValueError, match="window"):
        llama.forward(params, np.array([[5]], np.int32), ours, cache)


@pytest.mark.parametrize(("B", "T"), [(2, 1), (1, 2)])
def test_more_tokens_at_once_are_left_to_the_body(B, T, served):
    params = in_dtype(values(CONFIG, 0), np.float32)
    cache = new_cache(Model(llama, CONFIG, params), B, 16)
    cache = llama.forward(params, np.ones((B, 1), np.int32), CONFIG, cache).cache
    served.clear()
    llama.forward(params, np.ones((B, T), np.int32), CONFIG, cache)
    assert served == ["llama_blocks"]


def test_eight_bits_and_dropout_are_left_to_the_body(served):
    params, token = in_dtype(values(CONFIG, 0), np.float32), np.ones((1, 1), np.int32)
    cache = llama.forward(params, token, CONFIG, new_cache(Model(llama, CONFIG, params), 1, 16, quantised=True)).cache
    llama.forward(params, token, CONFIG, cache)
    read(CONFIG, params, np.arange(3, dtype=np.int32), cuts=(2,), dropout=Dropout(0.5, 0, 0))
    assert len(served) == 4


def test_keys_that_threads_share_are_left_to_the_body(served, monkeypatch):
    monkeypatch.setattr(numpy_llama, "LONG", 3 * CONFIG.n_kv_heads * CONFIG.d_head)
    read(CONFIG, in_dtype(values(CONFIG, 0), np.float32), np.arange(4, dtype=np.int32), cuts=(2, 3))
    assert len(served) == 2  # the prompt, and the token behind three others


def test_a_gate_that_is_shut_overflows_in_silence():
    params, tokens = in_dtype(values(CONFIG, 0), np.float32), np.arange(3, dtype=np.int32)
    params |= {name: x * 1000 for name, x in params.items() if name.endswith("gate")}
    cache = read(CONFIG, params, tokens)[0].cache
    with np.errstate(over="raise"):
        assert np.all(np.isfinite(llama.forward(params, tokens[None, :1], CONFIG, cache).logits))


def test_a_forked_cache_is_not_written_to():
    params, tokens = values(CONFIG, 0), np.arange(6, dtype=np.int32)
    whole = read(CONFIG, params, tokens, cuts=(3, 4, 5))[-1].logits
    ours, other = fork(read(CONFIG, params, tokens[:3])[0].cache)
    for token in (7, 8, 9):
        other = llama.forward(params, np.array([[token]], np.int32), CONFIG, other).cache
    for token in tokens[3:]:
        output = llama.forward(params, token[None, None], CONFIG, ours)
        ours = output.cache
    assert np.all(np.abs(output.logits - whole) <= vectors.EXACT * np.max(np.abs(whole)))


def test_weights_are_only_read_and_never_copied():
    """So that they may lie in a file that is mapped, not loaded."""
    config = dataclasses.replace(CONFIG, d_model=128, d_ff=256)
    params = in_dtype(values(config, 0), np.float32)
    for x in params.values():
        x.flags.writeable = False
    x, token = np.ones((1, 1, 128), np.float32), np.array([[3]], np.int32)
    cache = llama.forward(params, token, config, new_cache(Model(llama, config, params), 1, 16)).cache
    angles = llama.angles_at(np.array([1], np.int32), config, x.dtype)
    tracemalloc.start()
    y, _ = numpy_llama.llama_blocks(x, params, config, angles, llama.place(token, cache, None, None, 16).mask, cache)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.all(x == 1)
    assert not np.shares_memory(x, y)
    assert peak < params["layers.0.ffn.up"].nbytes / 4


def test_threads_decode_side_by_side():
    params = in_dtype(values(CONFIG, 0), np.float32)
    texts = [np.random.default_rng(i).integers(0, 19, 16).astype(np.int32) for i in range(4)]
    alone = [read(CONFIG, params, text, cuts=range(1, 16))[-1].logits for text in texts]
    found = [[] for _ in texts]

    def work(i):
        found[i].extend(read(CONFIG, params, texts[i], cuts=range(1, 16))[-1].logits for _ in range(8))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(len(logits) == 8 and all(np.array_equal(one, alone[i]) for one in logits) for i, logits in enumerate(found))
