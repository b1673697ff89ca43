"""A new cache: what it holds, what it costs, and that it is made once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.array_api import OPS, kernels, load
from refllm.decoding import decode, new_cache, prefill
from refllm.layers.cache_blocks import dequantise, quantise
from refllm.layers.kv_cache import n_bytes, rewind
from refllm.models import gemma, llama
from refllm.models.model import Model

WINDOW, ROOM = 8, 600
LOCAL = llama.Config(23, 8, 2, 4, 2, 4, 12, ROOM, window=WINDOW)
MIXED = gemma.Config(23, 8, 2, 4, 2, 4, 12, 4, max_positions=ROOM, window=WINDOW, full_layers=(1,))
POSITION = 2 * 2 * 4 * 4  # bytes of a layer: keys and values of two heads of four float32


def pairs(cache):
    return [pair for held in cache.layers for pair in (*zip(held.keys, held.values, strict=True), *held.spare)]


def pointers(cache):
    return {block.ctypes.data for pair in pairs(cache) for block in pair}


def test_a_layer_with_a_window_keeps_the_window_the_slack_and_a_block_however_long_the_text():
    model, size, slack = Model.initialise("llama", LOCAL, 0, "numpy"), 4, 3
    cache = new_cache(model, 1, ROOM, size=size, slack=slack)
    expected = 2 * POSITION * size * -(-(WINDOW + slack + size) // size)
    buffers = pointers(cache)
    for i in range(200):
        logits, cache = decode(model, np.array([[i % 23]], np.int32), cache)
        assert n_bytes(cache) <= expected
        assert pointers(cache) == buffers, "what was allocated at first serves again and again"
        assert len(pairs(cache)) * 2 == len(buffers)
    _, cache = prefill(model, np.ones((1, 300), np.int32), cache)
    assert n_bytes(cache) <= expected
    assert np.all(np.isfinite(logits))


def test_only_the_layers_with_a_window_forget():
    model = Model.initialise("gemma", MIXED, 0, "numpy")
    cache = new_cache(model, 3, 96, size=4)
    assert n_bytes(cache) == 3 * POSITION * (96 + 4 * 3)
    _, cache = prefill(model, np.ones((3, 96), np.int32), cache)
    assert n_bytes(cache) == 3 * POSITION * (96 + 4 * 3)


@given(st.integers(0, 5), st.integers(10, 40), st.integers(1, 5), st.integers(1, 9))
def test_positions_within_the_slack_are_taken_back_and_written_again(slack, n, size, chunk):
    model = Model.initialise("llama", LOCAL, 0, "numpy")
    ids = np.arange(n + 5, dtype=np.int32)[None, :] % 23
    cache = new_cache(model, 1, ROOM, size=size, slack=slack)
    for start in range(0, n, chunk):
        _, cache = prefill(model, ids[:, start : min(n, start + chunk)], cache)
    cache = rewind(cache, n - slack)
    logits, _ = prefill(model, ids[:, n - slack :], cache)
    expected = model.logits(ids)[0, -1]
    assert np.all(np.abs(logits[0] - expected) <= 1e-5 * np.max(np.abs(expected)))


def test_a_window_forgets_what_lies_beyond_the_slack_and_says_so():
    model = Model.initialise("llama", LOCAL, 0, "numpy")
    _, cache = prefill(model, np.ones((1, 40), np.int32), new_cache(model, 1, ROOM, size=1, slack=2))
    with pytest.raises(
        ValueError, match=r"layer 0 sees 8 positions and keeps those from 30 on, so it cannot go back from 40 to 3"
    ):
        rewind(cache, 36)


@pytest.mark.parametrize(("size", "length", "expected"), [(256, 13, 13), (4, 13, 4), (5, 8, 4), (1, 3, 1)])
def test_blocks_are_of_equal_size_and_cover_the_length(make_model, size, length, expected):
    cache = new_cache(make_model("numpy"), 1, length, size=size)
    assert cache.size == expected
    assert length <= cache.size * len(cache.layers[0].spare) < length + size or cache.layers[0].window


def test_a_step_that_would_join_blocks_gets_only_one():
    backend, long = load("numpy"), llama.Config(23, 8, 2, 4, 2, 4, 12, ROOM)
    for config, table, expected in ((long, {}, ROOM), (long, backend.kernels, 200), (LOCAL, {}, 200)):
        with kernels(backend, table):
            cache = new_cache(Model.initialise("llama", config, 0, "numpy"), 1, ROOM)
        assert cache.size == expected


@pytest.mark.parametrize("how", [{"size": 0}, {"slack": -1}])
def test_blocks_of_nothing_and_less_slack_than_none_are_refused(make_model, how):
    with pytest.raises(ValueError, match=r"size=\d+ and slack=-?\d+ are positions: of a block at least 1, kept behind a window"):
        new_cache(make_model("numpy"), 1, 4, **how)


# Eight bits


def test_eight_bits_take_a_quarter_of_float32_and_a_scale_a_vector(make_model, backend):
    model = make_model(backend.name)
    config = model.config
    cache = new_cache(model, 2, 12, quantised=True, size=12)
    assert n_bytes(cache) == 2 * 2 * 12 * config.n_kv_heads * (config.d_head + 4) * config.n_layers


def over_rounded_keys(q, k, v, mask, scale, softcap=None):
    """Attention whose keys and values have been through eight bits."""
    k, v = (dequantise(quantise(x), x.dtype) for x in (k, v))
    return OPS["attention"].reference(q, k, v, mask, scale, softcap)


@pytest.mark.parametrize("name", ["numpy", "strict"])
@given(cuts=st.lists(st.integers(1, 4), min_size=2, max_size=4), size=st.integers(1, 4))
def test_eight_bits_give_the_logits_of_the_rounded_keys_and_values(make_model, name, cuts, size):
    """In float64: narrower dtypes may round a key to the next code, where it lies between two."""
    model, backend = make_model(name, "float64"), load(name)
    xp, ids = backend.xp, np.arange(2 * sum(cuts), dtype=np.int32).reshape(2, -1) % 23
    with kernels(backend, {"attention": over_rounded_keys}):
        expected = xp.to_numpy(model.logits(xp.from_numpy(ids)))
    cache = new_cache(model, 2, 16, quantised=True, size=size)
    for start, end in zip(np.cumsum([0, *cuts]), np.cumsum(cuts), strict=False):
        logits, cache = prefill(model, xp.from_numpy(ids[:, start:end]), cache)
        assert np.all(np.abs(xp.to_numpy(logits) - expected[:, end - 1]) <= 1e-12 * np.max(np.abs(expected)))


def test_eight_bits_cost_initial_weights_what_the_specification_says():
    config = llama.Config(512, 64, 5, 8, 4, 8, 172, 512, tied=True)  # stories260K's
    error, agreeing = cost(Model.initialise("llama", config, 0, "numpy"))
    assert 0.0005 < error < 0.0015
    assert agreeing == 1


def cost(model):
    """The worst error of a logit in a share of the largest, and how many tokens greedy decoding would choose alike."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, 256)).astype(np.int32)
    expected = model.logits(ids)[0]
    cache = new_cache(model, 1, 256, quantised=True)
    found = model.architecture.forward(model.params, ids, model.config, cache).logits[0]
    alike = np.argmax(found, axis=-1) == np.argmax(expected, axis=-1)
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected)), np.mean(alike)


def test_eight_bits_cost_stories260k_what_the_specification_says(data):
    model = checkpoints.load(data / "stories260K.bin", "numpy")
    error, agreeing = cost(model)
    assert 0.03 < error < 0.061
    assert agreeing > 0.95
    assert n_bytes(new_cache(model, 1, 256, quantised=True)) / n_bytes(new_cache(model, 1, 256)) == 0.375
