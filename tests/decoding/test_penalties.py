"""Penalties on every backend, against plain Python and transformers' processors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.decoding import Sampler, penalties, remember, sample
from refllm.decoding.sampling import adjusted, uniforms

V = 6
ROWS = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=8), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32 - 1)
NEUTRAL = Sampler(repetition_penalty=1, presence_penalty=0, frequency_penalty=0, logit_bias={})
PENALISED = Sampler(
    repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25, no_repeat_ngram=2, logit_bias={0: 1.0, 3: -np.inf}
)


def drawn(seed, B):
    return (np.random.default_rng(seed).integers(-40, 41, (B, V)) / 8).astype(np.float32)


def padded(rows):
    """Rows as (B, T) int32 behind padding, which is told by ids that would be penalised, and what is no padding."""
    T = max(map(len, rows))
    return np.array([[0] * (T - len(r)) + r for r in rows], np.int32), np.array(
        [[False] * (T - len(r)) + [True] * len(r) for r in rows]
    )


@given(ROWS)
def test_tokens_are_counted_row_by_row_and_padding_is_not(backend, rows):
    xp = backend.xp
    ids, valid = padded(rows)
    tokens = xp.from_numpy(np.where(valid, ids, -1).astype(np.int32))
    counts = xp.to_numpy(penalties.count_tokens(tokens, V))
    np.testing.assert_array_equal(counts, [[row.count(i) for i in range(V)] for row in rows])


@given(SEEDS, ROWS)
def test_padding_is_no_token_of_the_text(backend, seed, rows):
    xp = backend.xp
    ids, valid = padded(rows)
    logits = drawn(seed, len(rows))
    together = adjusted(xp.from_numpy(logits), PENALISED, remember(PENALISED, ids, valid, xp, V))
    for b, row in enumerate(rows):
        memory = remember(PENALISED, xp.from_numpy(np.array([row], np.int32)), None, xp, V)
        alone = adjusted(xp.from_numpy(logits[b : b + 1]), PENALISED, memory)
        np.testing.assert_array_equal(xp.to_numpy(together)[b], xp.to_numpy(alone)[0])


@given(SEEDS, ROWS)
def test_neutral_penalties_change_nothing(backend, seed, rows):
    xp = backend.xp
    logits = xp.from_numpy(drawn(seed, len(rows)))
    assert remember(NEUTRAL, *padded(rows), xp, V) is None
    np.testing.assert_array_equal(xp.to_numpy(adjusted(logits, NEUTRAL)), xp.to_numpy(logits))
    seen = penalties.count_tokens(xp.from_numpy(padded(rows)[0]), V)
    np.testing.assert_array_equal(xp.to_numpy(penalties.repetition(logits, seen > 0, 1.0)), xp.to_numpy(logits))
    np.testing.assert_array_equal(xp.to_numpy(penalties.presence_and_frequency(logits, seen, 0.0, 0.0)), xp.to_numpy(logits))


def written(backend, sampler, prompt, n_tokens, logits):
    """The tokens that follow a prompt where each step has the next of logits (n_tokens, V)."""
    xp = backend.xp
    memory, text = remember(sampler, np.array([prompt], np.int32), None, xp, logits.shape[1]), []
    for step in range(n_tokens):
        token, memory = sample(xp.from_numpy(logits[step][None]), xp.from_numpy(uniforms(0, step, 1)), sampler, memory)
        text.append(int(xp.to_numpy(token)[0]))
    return text


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_no_run_of_n_tokens_is_written_twice(backend, n, temperature):
    logits = np.random.default_rng(n).normal(0, 3, (24, 40)).astype(np.float32)
    logits[:, :2] += 6  # so that it would repeat itself at once
    prompt = [3, 4, 3]
    whole = prompt + written(backend, Sampler(temperature, no_repeat_ngram=n), prompt, 24, logits)
    runs = [tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)]
    fresh = runs[len(prompt) - n + 1 :]
    assert len(set(fresh)) == len(fresh)
    assert not set(fresh) & set(runs[: len(prompt) - n + 1])
    assert len(set(written(backend, Sampler(temperature), prompt, 24, logits))) < 24


def test_presence_and_frequency_read_the_text_and_not_the_prompt(backend):
    logits = np.zeros((3, V), np.float32)
    logits[:, 2] = 1
    assert written(backend, Sampler(0, presence_penalty=2), [2, 2], 3, logits) == [2, 0, 1]
    assert written(backend, Sampler(0, frequency_penalty=0.75), [2, 2], 3, logits) == [2, 2, 0]
    assert written(backend, Sampler(0, repetition_penalty=2), [2, 2], 3, logits - 1) == [2, 2, 2]
    assert written(backend, Sampler(0, repetition_penalty=2), [2, 2], 3, logits + 0.5) == [2, 2, 2]
    assert written(backend, Sampler(0, repetition_penalty=4), [2, 2], 3, logits + 0.5) == [0, 1, 3]


def test_where_every_token_would_repeat_none_is_forbidden(backend):
    logits = np.zeros((4, 2), np.float32)
    logits[:, 1] = 1
    assert written(backend, Sampler(0, no_repeat_ngram=1), [0], 4, logits) == [1, 1, 1, 1]
    only_one = np.array([[-np.inf, 0]] * 2, np.float32)
    assert written(backend, Sampler(0, no_repeat_ngram=1), [0], 2, only_one) == [1, 1]


def test_a_run_that_holds_no_token_is_no_ngram(backend):
    xp = backend.xp
    history = xp.from_numpy(np.array([[-1, 5, 2, -1, 5], [1, 5, 2, 1, 5]], np.int32))
    left = xp.to_numpy(penalties.no_repeat_ngram(xp.from_numpy(np.zeros((2, V), np.float32)), history, 3))
    np.testing.assert_array_equal(np.isfinite(left), [[True] * 6, [True, True, False, True, True, True]])


def test_a_bias_outside_the_vocabulary_is_refused(backend):
    logits = backend.xp.from_numpy(np.zeros((1, V), np.float32))
    with pytest.raises(ValueError, match="logit_bias names token 6, but the vocabulary has the ids 0 to 5"):
        adjusted(logits, Sampler(logit_bias={6: 1.0}))


def test_a_bias_keeps_the_dtype_and_serves_each_backend_and_dtype_with_its_own_numbers(backend):
    xp, sampler = backend.xp, Sampler(logit_bias={1: 0.1})
    for dtype in xp.dtypes() & {"float16", "float32", "float64"}:
        logits = xp.zeros((1, 3), dtype=getattr(xp, dtype))
        found = adjusted(logits, sampler)
        assert found.dtype == logits.dtype
        np.testing.assert_array_equal(xp.to_numpy(found), np.array([[0, 0.1, 0]], dtype))


# transformers


@pytest.mark.oracle
@pytest.mark.parametrize("penalty", [0.6, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    rng = np.random.default_rng(0)
    logits, history = rng.normal(0, 3, (20, 9)), rng.integers(0, 9, (20, 5), dtype=np.int32)
    logits[:, 4] = -np.inf
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.from_numpy(history).long(), torch.from_numpy(logits))
    found = penalties.repetition(logits, penalties.count_tokens(history, 9) > 0, penalty)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.oracle
@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 11])
def test_the_ngrams_forbidden_are_those_of_transformers(n):
    import torch
    from transformers import NoRepeatNGramLogitsProcessor

    rng = np.random.default_rng(n)
    logits, history = rng.normal(0, 3, (40, 12)), rng.integers(0, 3, (40, 10), dtype=np.int32)
    expected = NoRepeatNGramLogitsProcessor(n)(torch.from_numpy(history).long(), torch.from_numpy(logits))
    np.testing.assert_array_equal(penalties.no_repeat_ngram(logits, history, n), expected.numpy())


@pytest.mark.oracle
def test_a_bias_is_that_of_transformers():
    import torch
    from transformers import SequenceBiasLogitsProcessor

    logits = np.random.default_rng(0).normal(0, 3, (4, 9))
    biases = {2: -1.5, 7: 3.25}
    theirs = SequenceBiasLogitsProcessor({(token,): value for token, value in biases.items()})
    expected = theirs(torch.zeros((4, 1), dtype=torch.long), torch.from_numpy(logits))
    np.testing.assert_allclose(penalties.bias(logits, tuple(biases.items())), expected.numpy(), rtol=1e-15)
