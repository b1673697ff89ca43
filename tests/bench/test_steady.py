"""Long texts: what is told of their stretches, and that the cache stays as large as its window."""

import tracemalloc

import numpy as np
import pytest

from refllm.bench.shapes import DECODING
from refllm.bench.steady import n_arrays, steady, windowed
from refllm.decoding import decode, new_cache
from refllm.layers.kv_cache import n_bytes


def blocks(cache):
    pairs = [(k, v) for held in cache.layers for k, v in (*zip(held.keys, held.values, strict=True), *held.spare)]
    return sorted(b.ctypes.data for pair in pairs for b in pair)


def test_thousands_of_tokens_through_a_window_keep_the_same_buffers():
    model = windowed(DECODING["tiny"], 20, 2500, "numpy")
    cache, token = new_cache(model, 1, 2501, size=8), np.array([[1]], np.int32)
    for _ in range(50):
        _, cache = decode(model, token, cache)
    buffers, size, count = blocks(cache), n_bytes(cache), n_arrays(cache)
    for step in range(2400):
        logits, cache = decode(model, token, cache)
        token = np.argmax(logits, axis=-1)[:, None].astype(np.int32)
        assert n_bytes(cache) == size, step
        assert n_arrays(cache) == count, step
    assert blocks(cache) == buffers
    assert size <= 2 * model.config.n_layers * (20 + 2 * 8) * 4 * 4, "a window, and a block at either end"


def test_a_long_text_takes_no_memory_beyond_its_window():
    model = windowed(DECODING["tiny"], 20, 800, "numpy")
    peaks = []
    tracemalloc.start()
    for _ in steady(model, 800, 200):
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    config = model.config
    written = 2 * config.n_layers * config.n_kv_heads * config.d_head * 200 * 4  # bytes of a stretch's keys and values
    assert max(peaks[1:]) - min(peaks[1:]) < written / 4


def test_every_stretch_is_told():
    model = windowed(DECODING["tiny"], 20, 60, "numpy")
    found = list(steady(model, 60, 20))
    assert [stretch.tokens for stretch in found] == [20, 40, 60]
    assert len({(stretch.cache_bytes, stretch.cache_arrays) for stretch in found}) == 1
    assert all(stretch.seconds > 0 and stretch.peak_bytes > 0 for stretch in found)
    with pytest.raises(ValueError, match="n_tokens=5 holds no stretch of 20 tokens"):
        next(steady(model, 5, 20))
