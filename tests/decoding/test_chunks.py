"""Prompts read in chunks: the same logits, in no more memory than was allowed."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.decoding import new_cache, pad_left, prefill
from refllm.decoding.chunks import chunk_within
from refllm.models import architecture
from refllm.models.model import Model

from .test_generate import TOKENS, bound, full_logits, widest

T = 512
SIZES = {"vocab_size": 300, "d_model": 64, "n_layers": 3, "n_heads": 4, "max_positions": T}
LLAMA = SIZES | {"n_kv_heads": 2, "d_head": 16, "d_ff": 172}
MODELS = {
    "llama": LLAMA,
    "llama, windowed": LLAMA | {"window": 50},
    "llama, biased": LLAMA | {"n_kv_heads": 4, "qkv_bias": True, "o_bias": True, "ffn_bias": True, "qk_norm": True},
    "gpt2": SIZES | {"d_ff": 256},
    "gemma": LLAMA | {"query_pre_attn_scalar": 16, "window": 40, "full_layers": (2,), "attention_softcap": 3.0},
    "mixtral": LLAMA | {"n_experts": 4, "top_k": 2},
}


def made(name):
    kind = name.partition(",")[0]
    return Model.initialise(kind, architecture(kind).Config(**MODELS[name]), seed=0, backend="numpy")


def peak(model, rows, chunk):
    """The most bytes, beyond the cache, that reading prompts as long as the context takes."""
    ids = model.tokens(np.random.default_rng(0).integers(0, 300, (rows, T)))
    prefill(model, ids[:, :2], new_cache(model, rows, T))  # whatever is made once
    cache = new_cache(model, rows, T)
    tracemalloc.start()
    prefill(model, ids, cache, chunk=chunk)
    _, found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("used", ["kernels", "plain"])
@pytest.mark.parametrize("name", MODELS)
def test_a_long_prefill_keeps_to_its_bytes(name, used, monkeypatch):
    numpy, model = load("numpy"), made(name)
    monkeypatch.setenv("REFLLM_KERNELS", "on" if used == "kernels" else "off")
    with kernels(numpy, numpy.kernels if used == "kernels" else {}):
        for rows, n_bytes in ((1, 1_000_000), (2, 4_000_000)):
            chunk = chunk_within(model, rows, n_bytes)
            assert 1 < chunk < T
            assert n_bytes / 6 < peak(model, rows, chunk) <= n_bytes, "it makes use of what it may have, and no more"


def test_a_block_does_not_outlive_the_next_one_where_nothing_goes_back():
    """Each block's intermediates are freed before the next makes its own: three layers take no more than one."""
    shallow, deep = (architecture("llama").Config(**LLAMA | {"n_layers": n}) for n in (1, 3))
    one, three = (peak(Model.initialise("llama", config, seed=0, backend="numpy"), 1, T) for config in (shallow, deep))
    assert three < 1.1 * one


@given(st.data())
def test_chunks_change_no_logit(backend, make_model, data):
    model, xp, dtype = make_model(backend.name, widest(backend)), backend.xp, widest(backend)
    rows = data.draw(st.lists(TOKENS, min_size=1, max_size=3), "rows")
    ids, valid = pad_left(rows)
    cache = new_cache(model, len(rows), ids.shape[1])
    seen = None if valid.all() else xp.from_numpy(valid)
    logits, cache = prefill(model, xp.from_numpy(ids), cache, seen, chunk=data.draw(st.integers(1, 9), "chunk"))
    assert cache.length == ids.shape[1]
    for b, row in enumerate(rows):
        expected = full_logits(make_model, row)[-1]
        assert np.all(np.abs(xp.to_numpy(logits)[b] - expected) <= bound(expected, dtype))


def test_a_smaller_prompt_or_more_bytes_allow_larger_chunks():
    model = made("llama")
    found = [chunk_within(model, 1, n) for n in (300_000, 600_000, 10**6, 10**9)]
    assert found == sorted(set(found))
    assert found[-1] == T
    assert chunk_within(model, 1, 300_000, positions=100) > found[0]


def test_bytes_and_chunks_that_allow_nothing_are_refused():
    model = made("llama")
    with pytest.raises(ValueError, match=r"n_bytes=1,000 is too little: one position for each of 2 rows takes [\d,]+\."):
        chunk_within(model, 2, 1000)
    with pytest.raises(ValueError, match="chunk=0 reads nothing of a prompt"):
        prefill(model, model.tokens([[1]]), new_cache(model, 1, 1), chunk=0)
