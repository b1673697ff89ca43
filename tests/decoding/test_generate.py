"""Prefill and decode against the full forward pass, and the order of events while text is generated."""

import tracemalloc
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.decoding import Sampler, decode, generate, new_cache, pad_left, prefill
from refllm.decoding.sampling import sample, uniforms
from refllm.layers.kv_cache import n_bytes
from refllm.models import bert, llama
from refllm.models.model import Model

GREEDY = Sampler(0.0)
TOKENS = st.lists(st.integers(0, 22), min_size=2, max_size=9)


def widest(backend):
    """The dtype in which a mistake shows best."""
    return "float64" if "float64" in backend.xp.dtypes() else "float32"


def bound(logits, dtype):
    """The error that logits: (..., V) of these models may have in a dtype: eps · (C + n) · scale.

    n counts the terms of all sums on the way through both layers (norms, projections, scores, softmax, values, feed-forward,
    head), C = 20 the functions between them.
    """
    n = 2 * (8 + 8 + 8 + 16 + 16 + 16 + 8 + 8 + 12) + 8 + 8
    eps = {"float64": 2.0**-52, "float32": 2.0**-23}[dtype]
    return eps * (20 + n) * np.max(np.abs(logits), axis=-1, keepdims=True)


def full_logits(make_model, ids):
    """The reference: logits after every one of these tokens, (T, V), without a cache, in float64 on NumPy."""
    return make_model("numpy", "float64").logits([ids])[0]


@given(st.data())
def test_cached_decoding_equals_full_forward(backend, make_model, data):
    model, xp = make_model(backend.name, widest(backend)), backend.xp
    ids = data.draw(TOKENS, "tokens")
    cuts = sorted({0, *data.draw(st.lists(st.integers(1, len(ids) - 1), max_size=3), "cuts"), len(ids)})
    expected = full_logits(make_model, ids)
    cache = new_cache(model, 1, len(ids))
    for start, end in zip(cuts, cuts[1:], strict=False):
        chunk = xp.from_numpy(np.array([ids[start:end]], np.int32))
        read = decode if end - start == 1 and start > 0 else prefill
        logits, cache = read(model, chunk, cache)
        error = np.abs(xp.to_numpy(logits)[0] - expected[end - 1])
        assert np.all(error <= bound(expected[end - 1], widest(backend)))
    assert cache.length == len(ids)


@given(st.data())
def test_every_row_of_a_ragged_batch_equals_the_row_alone(backend, make_model, data):
    model, xp = make_model(backend.name, widest(backend)), backend.xp
    rows = data.draw(st.lists(TOKENS, min_size=2, max_size=3), "rows")
    following = data.draw(st.lists(st.integers(0, 22), min_size=len(rows), max_size=len(rows)), "next tokens")
    ids, valid = pad_left(rows)
    cache = new_cache(model, len(rows), ids.shape[1] + 1)
    first, cache = prefill(model, xp.from_numpy(ids), cache, xp.from_numpy(valid))
    second, cache = decode(model, xp.from_numpy(np.array(following, np.int32)[:, None]), cache)
    for b, row in enumerate(rows):
        expected = full_logits(make_model, [*row, following[b]])[len(row) - 1 :]
        error = np.abs(np.stack([xp.to_numpy(first)[b], xp.to_numpy(second)[b]]) - expected)
        assert np.all(error <= bound(expected, widest(backend)))


def test_greedy_text_is_the_references_up_to_the_margin_of_each_decision(backend, make_model):
    model, prompt = make_model(backend.name), [3, 1, 4, 1, 5]
    chosen = [int(step.tokens[0]) for step in generate(model, prompt, 11, GREEDY, seed=0)]
    logits = full_logits(make_model, prompt + chosen)[len(prompt) - 1 : -1]
    margins = np.max(logits, axis=-1) - logits[np.arange(len(chosen)), chosen]
    assert np.all(margins <= 2 * bound(logits, "float32")[:, 0])


def test_generation_is_sampling_from_each_steps_logits(backend, make_model):
    model, sampler, seed = make_model(backend.name), Sampler(1.5, top_k=12, top_p=0.9), 5
    xp, ids, chosen = backend.xp, [7, 8], []
    cache = new_cache(model, 1, 12)
    logits, cache = prefill(model, xp.from_numpy(np.array([ids], np.int32)), cache)
    for step in range(10):
        token, _ = sample(logits, xp.from_numpy(uniforms(seed, step, 1)), sampler)
        chosen.append(int(xp.to_numpy(token)[0]))
        logits, cache = decode(model, token[:, None], cache)
    assert [int(step.tokens[0]) for step in generate(model, ids, 10, sampler, seed)] == chosen
    assert len(set(chosen)) > 3


def test_greedy_text_draws_no_uniforms(make_model, monkeypatch):
    monkeypatch.setitem(generate.__globals__, "uniforms", lambda *_: pytest.fail("uniforms were drawn"))
    assert len(list(generate(make_model("numpy"), [1, 2], 3, GREEDY, seed=0))) == 3


def test_rows_of_a_batch_are_generated_as_they_are_alone(backend, make_model):
    model, rows = make_model(backend.name), [[5], [1, 2, 3], [9, 9]]
    together = np.stack([step.tokens for step in generate(model, rows, 6, GREEDY, seed=0)], axis=1)
    alone = [[int(step.tokens[0]) for step in generate(model, row, 6, GREEDY, seed=0)] for row in rows]
    np.testing.assert_array_equal(together, alone)


def test_a_row_ends_at_its_stop_token_and_the_batch_with_its_last_row(backend, make_model):
    model, rows = make_model(backend.name), [[5], [1, 2, 3], [9, 9]]
    free = np.stack([step.tokens for step in generate(model, rows, 8, GREEDY, seed=0)], axis=1)
    stop = {int(free[0, 2]), int(free[1, 4]), int(free[2, 3])}
    ends = [min(i for i in range(8) if free[b, i] in stop) for b in range(3)]
    steps = [step.tokens for step in generate(model, rows, 8, GREEDY, seed=0, stop=stop)]
    assert len(steps) == max(ends) + 1
    for b in range(3):
        expected = [free[b, i] if i <= ends[b] else -1 for i in range(len(steps))]
        assert [int(tokens[b]) for tokens in steps] == expected


def test_a_row_that_has_ended_may_overflow(make_model, monkeypatch):
    chosen = [[4, 1], [-1, 1], [-1, 1]]
    steps = iter(chosen)
    monkeypatch.setitem(generate.__globals__, "sample", lambda *_: (np.array(next(steps), np.int32), None))
    found = [step.tokens.tolist() for step in generate(make_model("numpy"), [[1], [2]], 3, GREEDY, seed=0, stop=[4])]
    assert found == chosen


def blocks_of(cache):
    """Every block, in use or spare."""
    return [b for held in cache.layers for b in (*held.keys, *held.values, *(b for pair in held.spare for b in pair))]


def test_the_same_buffers_serve_every_step(make_model):
    model = make_model("numpy")
    cache = new_cache(model, 1, 16, size=3)
    pointers = {b.ctypes.data for b in blocks_of(cache)}
    logits, cache = prefill(model, np.array([[1, 2, 3]], np.int32), cache)
    for _ in range(13):
        logits, cache = decode(model, np.argmax(logits, axis=-1)[:, None].astype(np.int32), cache)
        assert {b.ctypes.data for b in blocks_of(cache)} == pointers


def test_a_late_step_allocates_far_less_than_its_cache_takes():
    """Joining arrays would copy the cache once a token. What may grow is the one row of attention scores."""
    room, K = 1500, 64
    config = llama.Config(7, d_model=8, n_layers=2, n_heads=1, n_kv_heads=1, d_head=K, d_ff=8, max_positions=room)
    model = Model.initialise("llama", config, seed=0, backend="numpy")
    _, cache = prefill(model, np.ones((1, room - 2), np.int32), new_cache(model, 1, room))
    _, cache = decode(model, np.array([[1]], np.int32), cache)
    tracemalloc.start()
    decode(model, np.array([[1]], np.int32), cache)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_bytes(cache) / 8, "half of the keys of one layer"


def test_the_cache_is_in_the_models_dtype(make_model):
    model = make_model("numpy")
    wide = Model(model.architecture, model.config, {n: v.astype(np.float64) for n, v in model.params.items()})
    for each in (model, wide):
        cache = new_cache(each, 2, 5)
        assert {b.dtype for b in blocks_of(cache)} == {each.params["embedding"].dtype}
        logits, _ = prefill(each, np.array([[1, 2], [3, 4]], np.int32), cache)
        assert logits.dtype == each.params["embedding"].dtype


def test_a_decoding_step_never_waits_for_the_device(make_model, monkeypatch):
    """On arrays that count how often they are read: a step enqueues its work and reads nothing."""
    strict = load("strict")
    model, xp, reads = make_model("strict"), strict.xp, []
    for name in ("__bool__", "__float__", "__int__", "__index__", "__complex__"):
        plain = getattr(strict.array_type, name)
        monkeypatch.setattr(strict.array_type, name, lambda self, plain=plain, name=name: reads.append(name) or plain(self))
    prompt, numbers = xp.from_numpy(np.array([[1, 2, 3]], np.int32)), xp.from_numpy(uniforms(0, 0, 1))
    logits, cache = prefill(model, prompt, new_cache(model, 1, 6))
    for sampler in (GREEDY, Sampler(1.0), Sampler(0.8, top_k=5, top_p=0.9)):
        token, _ = sample(logits, numbers, sampler)
        logits, cache = decode(model, token[:, None], cache)
    assert reads == []
    assert bool(xp.all(xp.isfinite(logits)))
    assert reads == ["__bool__"], "the counter counts"


def test_the_next_step_is_begun_before_a_token_is_read_where_that_helps(make_model, monkeypatch):
    """The order of decode and read: d r d r … on a backend that computes at once, d d r d r … on one that runs ahead."""
    model, events = make_model("numpy"), []
    xp = model.backend.xp
    forward, read = model.architecture.forward, xp.to_numpy
    watched = types.SimpleNamespace(
        **{**vars(model.architecture), "forward": lambda *a, **k: events.append("forward") or forward(*a, **k)}
    )
    monkeypatch.setitem(xp.__dict__, "to_numpy", lambda x: events.append("read") or read(x))
    model = Model(watched, model.config, model.params)
    list(generate(model, [1, 2], 3, GREEDY, seed=0))
    assert events == ["forward", "read"] * 3
    events.clear()
    monkeypatch.setitem(model.backend.__dict__, "asynchronous", True)
    list(generate(model, [1, 2], 3, GREEDY, seed=0))
    assert events == ["forward", "forward", "read", "forward", "read", "read"]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_logits_that_overflow_end_generation_with_a_sentence(backend, make_model):
    model = make_model(backend.name)
    params = dict(model.params)
    last = "norm" if "norm" in params else "norm.gain"
    params[last] = params[last] * float("inf")
    broken = Model(model.architecture, model.config, params)
    for sampler in (GREEDY, Sampler(1.0)):
        with pytest.raises(ValueError, match="the logits of token 1 are not finite numbers"):
            list(generate(broken, [1, 2, 3], 4, sampler, seed=0))


@pytest.mark.parametrize(
    ("prompt", "n_tokens", "says"),
    [
        ([], 1, "the prompt is empty"),
        ([[1], []], 1, "the prompt is empty"),
        ([1], 0, "n_tokens=0 asks for no token"),
        ([1] * 10, 7, "the prompt has 10 tokens, and 7 more do not fit the model's context of 16: ask for at most 6"),
        ([1] * 16, 1, "shorten it by at least 1"),
        ([1] * 20, 1, "shorten it by at least 5"),
        ([1, 23], 1, "holds the id 23"),
        ([1, -1], 1, "holds the id -1"),
    ],
)
def test_a_wrong_prompt_is_refused_at_the_call(make_model, prompt, n_tokens, says):
    with pytest.raises(ValueError, match=says):
        generate(make_model("numpy"), prompt, n_tokens, GREEDY, seed=0)


def test_a_prompt_and_its_continuation_may_fill_the_context(backend, make_model):
    assert len(list(generate(make_model(backend.name), [1] * 10, 6, GREEDY, seed=0))) == 6


@pytest.mark.parametrize(("batch", "length"), [(0, 4), (1, 0), (1, 17)])
def test_a_cache_that_cannot_be_is_refused(make_model, batch, length):
    with pytest.raises(ValueError, match="at least 1|longer than the model's context"):
        new_cache(make_model("numpy"), batch, length)


def test_a_masked_model_does_not_continue_a_text():
    model = Model.initialise("bert", bert.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=1, max_positions=8, d_ff=4), seed=0)
    with pytest.raises(ValueError, match="bert is a masked model: it fills in hidden tokens .* and does not continue a text"):
        generate(model, [1, 2], 3, GREEDY, seed=0)


def test_padding_stands_at_the_left():
    ids, valid = pad_left([[1], [2, 3, 4]])
    np.testing.assert_array_equal(ids, [[0, 0, 1], [2, 3, 4]])
    np.testing.assert_array_equal(valid, [[False, False, True], [True, True, True]])
