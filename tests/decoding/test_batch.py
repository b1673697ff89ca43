"""The rows of a batch: each one's logits, cache and next token stay its own, whoever comes and goes beside it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refllm.decoding import new_cache, prefill
from refllm.decoding.batch import Batch, Newcomer
from refllm.models import llama
from refllm.models.model import Model


def widest(backend):
    return "float64" if "float64" in backend.xp.dtypes() else "float32"


def bound(logits, dtype):
    """The error that logits: (..., V) of these models may have in a dtype, as in test_generate.py."""
    n = 2 * (8 + 8 + 8 + 16 + 16 + 16 + 8 + 8 + 12) + 8 + 8
    eps = {"float64": 2.0**-52, "float32": 2.0**-23}[dtype]
    return eps * (20 + n) * np.max(np.abs(logits), axis=-1, keepdims=True)


@given(st.data())
def test_each_rows_logits_equal_its_single_run(backend, make_model, data):
    """Rows of given tokens come and go at drawn times; each step's logits are those of the full forward pass of each row."""
    model, exact, xp = make_model(backend.name, widest(backend)), make_model("numpy", "float64"), backend.xp
    batch = Batch(model, 16)
    for _ in range(data.draw(st.integers(1, 4), "steps")):
        leaving = [b for b in range(len(batch.rows)) if len(batch.rows[b]) == 15 or data.draw(st.booleans(), "leaves")]
        coming = data.draw(st.lists(st.lists(st.integers(0, 22), min_size=1, max_size=6), max_size=2), "come")
        batch.change(leaving, [newcomer(model, ids) for ids in coming])
        if not batch.rows:
            continue
        tokens = data.draw(st.lists(st.integers(0, 22), min_size=len(batch.rows), max_size=len(batch.rows)), "tokens")
        batch.rows = [(*row, token) for row, token in zip(batch.rows, tokens, strict=True)]
        batch.tokens = xp.from_numpy(np.array(tokens, np.int32))
        logits = xp.to_numpy(batch.step())
        for b, row in enumerate(batch.rows):
            expected = exact.logits([row])[0, -1]
            assert np.all(np.abs(logits[b] - expected) <= bound(expected, widest(backend))), row


def newcomer(model, ids):
    _, cache = prefill(model, model.tokens([ids]), new_cache(model, 1, len(ids)))
    return Newcomer(tuple(ids), cache, model.backend.xp.asarray([0], dtype=model.backend.xp.int32))


def small(backend="numpy", **changes):
    sizes = {"vocab_size": 23, "d_model": 4, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_head": 4, "d_ff": 4}
    return Model.initialise("llama", llama.Config(**sizes | {"max_positions": 16} | changes), seed=0, backend=backend)


def test_a_newcomer_is_written_into_the_place_that_is_free():
    model, batch = small(), Batch(small(), 8)
    batch.change([], [newcomer(model, [n]) for n in (1, 2, 3)])
    before = [block.ctypes.data for layer in batch.cache.layers for block in (*layer.keys, *layer.values)]
    batch.change([1], [newcomer(model, [4])])
    assert batch.rows == [(1,), (4,), (3,)]
    assert [block.ctypes.data for layer in batch.cache.layers for block in (*layer.keys, *layer.values)] == before
    batch.change([0], [])
    assert batch.rows == [(4,), (3,)]
    batch.change([0, 1], [])
    assert (batch.rows, batch.cache) == ([], None), "nothing is kept for nobody"


@given(st.data())
def test_the_tokens_that_come_next_stay_with_their_rows(data):
    """On a batch whose cache does not matter: every row is known by its token."""
    model, batch, number = small(), Batch(small(), 8), 0
    xp = model.backend.xp
    for _ in range(5):
        leaving = [b for b in range(len(batch.rows)) if data.draw(st.booleans())]
        stay = [row for b, row in enumerate(batch.rows) if b not in leaving]
        coming = list(range(number, number + data.draw(st.integers(0, 3))))
        number += len(coming)
        batch.change(leaving, [newcomer(model, [1])._replace(row=n, token=xp.asarray([n], dtype=xp.int32)) for n in coming])
        assert sorted(batch.rows) == sorted([*stay, *coming])
        assert ([] if batch.tokens is None else batch.tokens.tolist()) == batch.rows
