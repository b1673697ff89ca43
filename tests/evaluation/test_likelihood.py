"""Likelihoods of tokens against transformers, models whose probabilities are known, the definition, and the laws."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.conformance.model_checks import MODELS
from refllm.conformance.specification import definitions
from refllm.evaluation import likelihood
from refllm.evaluation.likelihood import (
    continuation_log_likelihood,
    continuation_log_likelihoods,
    log_softmax,
    score_rows,
    score_tokens,
    split_tokens,
    token_log_probabilities,
)
from refllm.models import architecture, gpt2, llama
from refllm.models.model import Model
from refllm.tokenizer import AddedToken, Tokenizer, train_bpe

TOKENS = st.lists(st.integers(0, 22), min_size=2, max_size=17)
EXACT = 1e-12
BIGRAM = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [1.0, 0.0, 0.0]])


def logits_of(make_model, ids):
    """Logits after every one of these tokens, (T, V), by one forward pass in float64."""
    return make_model("numpy", "float64").logits([ids])[0]


def bound(logits, dtype="float32"):
    """How far a log-probability of these models may lie from the float64 one: eps · (C + n) · scale, twice, as two logits differ.

    n counts the terms of all sums on the way through both layers, head and log-sum-exp; C = 24 the functions between them.
    """
    n = 2 * (8 + 8 + 8 + 16 + 16 + 16 + 8 + 8 + 12) + 8 + 8 + 23
    return 2 * np.finfo(dtype).eps * (24 + n) * (1 + np.max(np.abs(logits)))


# Against what is known


@pytest.mark.oracle
@pytest.mark.parametrize("module", [gpt2, llama], ids=["gpt2", "llama"])
def test_token_log_probabilities_are_those_of_transformers(module, transformers_in_float64, tmp_path):
    import torch

    sizes = {"vocab_size": 29, "d_model": 12, "n_layers": 2, "n_heads": 3, "max_positions": 16, "d_ff": 20}
    config = module.Config(**sizes, **({"n_kv_heads": 1, "d_head": 4} if module is llama else {}))
    rng = np.random.default_rng(0)
    params = {n: rng.normal(len(s) == 1, 0.5, s) for n, s in module.parameter_shapes(config).items()}
    model = Model(module, config, params)
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    tokens = rng.integers(0, 29, (3, 16))
    with torch.no_grad():
        expected = torch.log_softmax(theirs(torch.from_numpy(tokens)).logits, -1).numpy()
    scores = score_tokens(model, tokens, alternatives=5)
    chosen = np.take_along_axis(expected[:, :-1], tokens[:, 1:, None], -1)[..., 0]
    assert np.all(np.abs(scores.log_probabilities - chosen) <= EXACT * np.max(np.abs(chosen)))
    best = np.argsort(-expected[:, :-1], axis=-1, kind="stable")[..., :5]
    np.testing.assert_array_equal(scores.alternatives, best)
    error = np.abs(scores.alternative_log_probabilities - np.take_along_axis(expected[:, :-1], best, -1))
    assert np.all(error <= EXACT * np.max(np.abs(expected)))


def test_a_bigram_models_probabilities_come_out_exactly(bigram):
    found = token_log_probabilities(bigram(BIGRAM), [[0, 1, 1, 2, 0, 0]])
    assert np.allclose(np.exp(found), [[0.25, 0.75, 0.125, 1.0, 0.5]], rtol=EXACT, atol=0)
    assert np.exp(token_log_probabilities(bigram(BIGRAM), [[2, 1]])) < 1e-299


@given(st.data())
def test_a_log_likelihood_equals_its_definition(make_model, data):
    ids = data.draw(TOKENS)
    logits = logits_of(make_model, ids[:-1]).tolist()
    found = score_tokens(make_model("numpy", "float64"), [ids], alternatives=3)
    expected = definitions()["token_log_probabilities"](logits, ids)
    assert np.all(np.abs(found.log_probabilities[0] - expected) <= EXACT * np.max(np.abs(expected)))
    best = [definitions()["likeliest_first"](row)[:3] for row in logits]
    assert found.alternatives[0].tolist() == best


# Laws


@given(TOKENS.filter(lambda ids: len(ids) < 17))
def test_the_probabilities_of_all_next_tokens_sum_to_one(make_model, ids):
    model = make_model("numpy", "float64")
    scores = score_tokens(model, [[*ids, t] for t in range(23)], begin=len(ids))
    assert abs(np.sum(np.exp(scores.log_probabilities)) - 1) <= EXACT


@given(TOKENS, st.integers(1, 15))
def test_the_log_likelihood_of_two_parts_is_the_sum_of_theirs(make_model, ids, cut):
    model, cut = make_model("numpy", "float64"), min(cut, len(ids) - 1)
    whole = np.sum(score_tokens(model, [ids]).log_probabilities)
    first = np.sum(score_tokens(model, [ids[: cut + 1]]).log_probabilities)
    second = np.sum(score_tokens(model, [ids], begin=cut + 1).log_probabilities)
    assert abs(whole - first - second) <= EXACT * abs(whole)


@given(rows=st.lists(TOKENS, min_size=2, max_size=4), batch=st.integers(1, 4), data=st.data())
def test_a_row_is_scored_in_any_batch_as_it_is_alone(backend, make_model, rows, batch, data):
    counts = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    found = score_rows(make_model(backend.name), rows, counts, batch=batch, alternatives=1)
    for row, count, scores in zip(rows, counts, found, strict=True):
        logits = logits_of(make_model, row[:-1])
        p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
        expected = p[np.arange(len(row) - 1), row[1:]][len(row) - 1 - count :]
        error = np.abs(scores.log_probabilities - expected)
        assert scores.log_probabilities.shape == (count,)
        assert np.all(error <= bound(logits))
        best = np.max(p, axis=-1)[len(row) - 1 - count :]
        chosen = p[np.arange(len(row) - 1), :][len(row) - 1 - count :]
        margin = best - np.take_along_axis(chosen, scores.alternatives, axis=-1)[:, 0]
        assert np.all(margin <= 2 * bound(logits))


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_every_decoder_scores_a_ragged_batch_as_by_one_pass_each(name, data):
    config, rng = data.draw(MODELS[name]), np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = architecture(name).parameter_shapes(config)
    model = Model(architecture(name), config, {n: rng.normal(len(s) == 1, s[0] ** -0.5, s) for n, s in shapes.items()})
    lengths = data.draw(st.lists(st.integers(2, min(9, config.max_positions)), min_size=2, max_size=3))
    rows = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths]
    for row, scores in zip(rows, score_rows(model, rows, [n - 1 for n in lengths], batch=2), strict=True):
        logits = model.logits([row[:-1]])[0]
        expected = definitions()["token_log_probabilities"](logits.tolist(), row)
        assert np.all(np.abs(scores.log_probabilities - expected) <= EXACT * max(1, np.max(np.abs(logits))))


@given(TOKENS, st.integers(1, 3))
def test_padding_at_either_side_changes_no_score(make_model, ids, n):
    model, n = make_model("numpy", "float64"), min(n, 17 - len(ids))
    alone = token_log_probabilities(model, [ids])[0]
    zeros, T = [0] * n, len(ids)
    left = token_log_probabilities(model, [zeros + ids], [[False] * n + [True] * T])[0]
    right = token_log_probabilities(model, [ids + zeros], [[True] * T + [False] * n])[0]
    assert np.all(left[:n] == 0)
    assert np.all(right[T - 1 :] == 0)
    for padded in (left[n:], right[: T - 1]):
        assert np.all(np.abs(padded - alone) <= EXACT * np.max(np.abs(alone)))


def test_arrays_of_the_models_backend_are_scored_where_they_are(backend, make_model):
    model, xp = make_model(backend.name), backend.xp
    tokens, valid = np.array([[0, 3, 1, 4], [2, 7, 1, 8]], np.int32), np.array([[False, True, True, True], [True] * 4])
    found = token_log_probabilities(model, xp.from_numpy(tokens), xp.from_numpy(valid))
    np.testing.assert_array_equal(found, token_log_probabilities(model, tokens.tolist(), valid.tolist()))
    assert found.dtype == np.float64


@given(TOKENS)
def test_blocks_of_positions_change_no_score(make_model, ids):
    model = make_model("numpy", "float64")
    whole = score_tokens(model, [ids], alternatives=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "LOGITS", 23 * 3)
        cut = score_tokens(model, [ids], alternatives=2)
    np.testing.assert_allclose(cut.log_probabilities, whole.log_probabilities, rtol=EXACT)
    np.testing.assert_array_equal(cut.alternatives, whole.alternatives)


def test_a_long_text_of_a_large_vocabulary_never_has_all_its_logits_at_once(monkeypatch):
    V, T = 20_000, 400
    config = llama.Config(V, d_model=2, n_layers=1, n_heads=1, n_kv_heads=1, d_head=2, d_ff=2, max_positions=T, tied=True)
    model = Model.initialise("llama", config, seed=0, backend="numpy")
    monkeypatch.setattr(likelihood, "LOGITS", 1 << 18)
    tracemalloc.start()
    token_log_probabilities(model, [[7] * T])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < V * T * 4 / 2


# Continuations


def with_bos(tokenizer):
    return Tokenizer(tokenizer.model, [*tokenizer.added, AddedToken(tokenizer.vocab_size, "<s>", special=True)])


@given(prompt=st.text(alphabet="the cat\n ", max_size=8), continuation=st.text(alphabet="cat theö", min_size=1, max_size=6))
@pytest.mark.parametrize("begins", [False, True], ids=["without bos", "with bos"])
def test_a_split_keeps_all_of_the_text_and_white_space_goes_to_the_continuation(tokenizer, begins, prompt, continuation):
    tokenizer = with_bos(tokenizer) if begins else tokenizer
    before, after = split_tokens(tokenizer, prompt, continuation)
    begin = tokenizer.bos if begins else tokenizer.eos
    ids = tokenizer.encode(prompt + continuation)
    assert before[0] == begin or (not begins and before + after == ids)
    assert [id for id in before if id != begin] + after == ids
    assert after
    assert not prompt.rstrip().startswith(tokenizer.decode(before[before[0] == begin :]) + " ")
    assert len(tokenizer.decode(after).encode()) >= len((prompt[len(prompt.rstrip()) :] + continuation).encode())


@pytest.mark.parametrize(("prompt", "continuation"), [("the cat", " sat"), ("the cat ", "sat"), ("the cat sat", " on the mat")])
def test_a_split_at_a_space_is_that_of_the_harness(tokenizer, prompt, continuation):
    spaces = len(prompt) - len(prompt.rstrip())
    context, rest = prompt.rstrip(), prompt[len(prompt) - spaces :] + continuation
    expected = tokenizer.encode(context)
    whole = tokenizer.encode(context + rest)
    assert split_tokens(tokenizer, prompt, continuation) == (expected, whole[len(expected) :])


def test_a_token_across_the_boundary_is_the_continuations():
    tokenizer = train_bpe("ab ab ab ab", 300)
    (ab,) = tokenizer.encode("ab")
    assert split_tokens(tokenizer, "xa", "bc") == (tokenizer.encode("x"), [ab, *tokenizer.encode("c")])


def test_continuations_in_a_batch_are_as_likely_as_alone(make_model, tokenizer):
    model = make_model("numpy", "float64", max_positions=32, tokenizer=tokenizer)
    pairs = [("the cat", " sat on"), ("the dog ran to the", " mat"), ("", "the"), ("the cat sat under the ", "tree, and")]
    for together in (continuation_log_likelihoods(model, pairs, batch=n) for n in (1, 3, 8)):
        for pair, found in zip(pairs, together, strict=True):
            alone = continuation_log_likelihood(model, *pair)
            assert found.tokens == alone.tokens == tuple(split_tokens(tokenizer, *pair)[1])
            assert abs(found.total - alone.total) <= EXACT * abs(alone.total)
            assert found.per_token == found.total / len(found.tokens)
            assert found.per_byte == found.total / len(pair[1].encode())
            ids = [*split_tokens(tokenizer, *pair)[0], *found.tokens]
            by_hand = token_log_probabilities(model, [ids])[0, -len(found.tokens) :]
            assert abs(found.total - np.sum(by_hand)) <= EXACT * abs(found.total)


def test_a_continuation_is_greedy_where_each_of_its_tokens_is_the_likeliest(tokenizer, bigram):
    V = tokenizer.vocab_size
    the, cat, sat = tokenizer.encode(" the cat sat")
    probabilities = np.full((V, V), 0.1 / (V - 1))
    for before, after in ((the, cat), (cat, sat), (sat, the)):
        probabilities[before] = 0.4 / (V - 1)
        probabilities[before, after] = 0.6
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    model = bigram(probabilities, tokenizer)
    found = continuation_log_likelihood(model, " the", " cat sat")
    assert found.greedy
    assert abs(found.total - 2 * math.log(0.6)) < EXACT
    assert not continuation_log_likelihood(model, " the", " cat the").greedy
    assert not continuation_log_likelihood(model, " the", " sat").greedy


def test_a_prompt_longer_than_the_context_is_cut_at_its_beginning(make_model, tokenizer):
    model = make_model("numpy", "float64", max_positions=6, tokenizer=tokenizer)
    ids = tokenizer.encode("the cat sat on the mat the cat sat")
    found = continuation_log_likelihood(model, tokenizer.decode(ids[:-2]), tokenizer.decode(ids[-2:]))
    assert found.cut == len(ids) - 7
    expected = token_log_probabilities(model, [ids[-7:]])[0, -2:]
    np.testing.assert_allclose(found.log_probabilities, expected, rtol=EXACT)


def test_an_empty_prompt_is_the_beginning_of_a_document(make_model, tokenizer):
    bos = with_bos(tokenizer)
    for vocabulary, begin in ((tokenizer, tokenizer.eos), (bos, bos.bos)):
        assert split_tokens(vocabulary, "", "the cat") == ([begin], vocabulary.encode("the cat"))
    bare = Tokenizer(tokenizer.model)
    with pytest.raises(ValueError, match="the prompt is empty, and no token begins a document"):
        split_tokens(bare, "", "the cat")


# What is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tokens": [1, 2]}, r"tokens has shape \(2,\)"),
        ({"tokens": [[1, 23]]}, "holds the id 23"),
        ({"tokens": [[1] * 18]}, "T=18, but the model's context is max_positions=16: at most 17 tokens"),
        ({"tokens": [[1, 2]], "valid": [[True]]}, r"valid has shape \(1, 1\); it needs that of tokens, \(1, 2\)"),
        ({"tokens": [[1, 2]], "begin": 0}, r"begin=0 must be 1 … 2"),
        ({"tokens": [[1, 2]], "alternatives": 24}, r"alternatives=24 0 … 23"),
    ],
)
def test_tokens_that_cannot_be_scored_are_refused(make_model, arguments, says):
    with pytest.raises(ValueError, match=says):
        score_tokens(make_model(), **arguments)


def test_logits_that_are_no_numbers_are_an_error(make_model):
    model = make_model()
    broken = Model(model.architecture, model.config, dict(model.params) | {"embedding": model.params["embedding"] * np.nan})
    with pytest.raises(ValueError, match="the logits are not finite numbers"):
        score_tokens(broken, [[1, 2]])


def test_a_model_that_sees_what_follows_and_one_without_a_tokenizer_are_refused(make_model, monkeypatch):
    model = make_model()
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        continuation_log_likelihood(model, "a", "b")
    monkeypatch.setattr(model.architecture, "AUTOREGRESSIVE", False)
    with pytest.raises(ValueError, match="sees what follows, so it gives no likelihood"):
        score_tokens(model, [[1, 2]])


def test_nothing_to_score_is_refused(make_model, tokenizer):
    model = make_model(tokenizer=tokenizer)
    with pytest.raises(ValueError, match="adds no token to the prompt"):
        continuation_log_likelihood(model, "the", "")
    with pytest.raises(ValueError, match="a continuation has .* tokens; the model's context holds 16"):
        continuation_log_likelihood(model, "the", " cat" * 20)
    with pytest.raises(ValueError, match="batch=0 holds no row"):
        score_rows(model, [[1, 2]], [1], batch=0)
    with pytest.raises(ValueError, match="2 tokens cannot be scored in a row of 2"):
        score_rows(model, [[1, 2]], [2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_summed_in_float32(backend, dtype):
    if dtype not in backend.xp.dtypes():
        pytest.skip(f"{backend.name} does not compute in {dtype}")
    V, xp = 3000, backend.xp
    logits = xp.astype(xp.from_numpy(np.linspace(-2, 2, 2 * V, dtype=np.float32).reshape(2, V)), getattr(xp, dtype))
    found, wide = xp.to_numpy(log_softmax(logits)), xp.to_numpy(logits).astype(np.float64)
    expected = wide - np.log(np.sum(np.exp(wide), axis=-1, keepdims=True))
    assert found.dtype == np.float32
    assert np.all(np.abs(found - expected) <= np.finfo("float32").eps * (24 + V) * 2)
