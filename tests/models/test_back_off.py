"""N-gram models in back-off form: the same probabilities as the interpolated model, and the k best of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.models import back_off, ngram, stupid_backoff

EPS = np.finfo(np.float64).eps


@st.composite
def cases(draw, most=4):
    """A vocabulary, a training stream of sentences or of none, the id that begins them or None, an order, and a context."""
    vocab_size = draw(st.integers(2, 5))
    begin = draw(st.none() | st.integers(0, vocab_size - 1))
    ids = st.integers(0, vocab_size - 1)
    stream = draw(st.lists(ids, min_size=1, max_size=40))
    return vocab_size, begin, stream, draw(st.integers(1, most)), draw(st.lists(ids, max_size=6))


def trained(case):
    vocab_size, begin, stream, order, context = case
    return ngram.train(stream, order, vocab_size, begin), context


@given(cases())
def test_the_back_off_form_gives_the_probabilities_of_the_interpolated_model(case):
    model, context = trained(case)
    table = back_off.from_kneser_ney(model)
    expected = ngram.distribution(model, context)
    if table.begin in context:  # only what comes after it counts
        expected = ngram.distribution(model, context[len(context) - context[::-1].index(table.begin) - 1 :])
    got = 10 ** back_off.log10_distribution(table, context)
    assert np.all(np.abs(got - expected) <= 64 * EPS * table.order), f"{got} is not {expected}"


@given(cases())
def test_a_stream_a_context_and_rows_are_scored_alike(case):
    model, held_out = trained(case)
    table = back_off.from_kneser_ney(model)
    whole = back_off.log_probabilities(table, held_out)
    one_by_one = [back_off.log10_distribution(table, held_out[:i])[token] for i, token in enumerate(held_out)]
    expected = np.array(one_by_one) * back_off.LN10
    assert np.array_equal(np.isinf(whole), np.isinf(expected))
    finite = np.isfinite(whole)
    assert np.all(np.abs(whole[finite] - expected[finite]) <= 64 * EPS * np.maximum(1, np.abs(expected[finite])))
    for cut in range(len(held_out) + 1):
        parts = [
            back_off.log_probabilities(table, held_out[:cut]),
            back_off.log_probabilities(table, held_out[cut:], held_out[:cut]),
        ]
        np.testing.assert_array_equal(whole, np.concatenate(parts))
    n = min(table.order, len(held_out))
    if n and table.begin not in held_out:
        rows = np.lib.stride_tricks.sliding_window_view(np.array(held_out), n)
        np.testing.assert_array_equal(back_off.score_rows(table, rows) * back_off.LN10, whole[n - 1 :])


@given(cases(), st.integers(1, 6), st.data())
def test_suggestions_are_the_k_best_by_brute_force(case, k, data):
    model, context = trained(case)
    table = back_off.from_kneser_ney(model)
    table = table._replace(scores=(np.round(table.scores[0], 1), *table.scores[1:]))  # so that some are equal
    among = data.draw(st.none() | st.lists(st.integers(0, table.vocab_size - 1), unique=True))
    scores = back_off.log10_distribution(table, context)
    ids = [id for id in (range(table.vocab_size) if among is None else among) if id != table.begin]
    expected = sorted(ids, key=lambda id: (-scores[id], id))[:k]
    assert back_off.suggest(table, context, k, None if among is None else np.array(among, int)) == expected


@given(cases(), st.sampled_from([0.4, 1.0, 0.25]))
def test_stupid_backoff_equals_its_definition(case, alpha):
    vocab_size, begin, stream, order, context = case
    table = stupid_backoff.train(stream, order, vocab_size, begin, alpha)
    got = 10 ** back_off.log10_distribution(table, context)
    sentences = sentences_of(stream, begin)
    if begin in context:
        context = context[len(context) - context[::-1].index(begin) - 1 :]
    context = context[max(0, len(context) - order + 1) :]
    score = definitions()["stupid_score"]
    expected = np.array([0 if w == begin else score(sentences, context, w, begin, alpha) for w in range(vocab_size)])
    assert np.all(np.abs(got - expected) <= 64 * EPS)
    held_out = [*case[4], *stream[:5]]
    one_by_one = [back_off.log10_distribution(table, held_out[:i])[token] for i, token in enumerate(held_out)]
    np.testing.assert_allclose(np.exp(back_off.log_probabilities(table, held_out)), 10 ** np.array(one_by_one), rtol=1e-12)


def sentences_of(stream, begin):
    """The stream as a list of sentences, each with the token that begins it."""
    if begin is None:
        return [list(stream)]
    starts = sorted({0, *(i for i, token in enumerate(stream) if token == begin)})
    return [list(stream[a:b]) for a, b in zip(starts, [*starts[1:], len(stream)], strict=True)]


def test_scores_of_stupid_backoff_are_brants_ratios():
    table = stupid_backoff.train([0, 1, 0, 1, 2], 2, 4)
    after_0, after_3 = (10 ** back_off.log10_distribution(table, [id]) for id in (0, 3))
    np.testing.assert_allclose(after_0, [0.4 * 2 / 5, 2 / 2, 0.4 * 1 / 5, 0], atol=4 * EPS)
    np.testing.assert_allclose(after_3, [0.4 * 2 / 5, 0.4 * 2 / 5, 0.4 * 1 / 5, 0], atol=4 * EPS)


def test_a_history_never_seen_costs_a_step_of_stupid_backoff():
    table = stupid_backoff.train([0, 1, 2, 0, 1], 3, 3)
    after_1, after_2_1 = (10 ** back_off.log10_distribution(table, context) for context in ([1], [2, 1]))
    np.testing.assert_allclose(after_2_1, 0.4 * after_1, rtol=8 * EPS)
    for context in ([], [2], [0, 2, 1]):
        assert np.isneginf(back_off.log10_distribution(stupid_backoff.train([0, 1, 2], 3, 3, begin=0), context)[0])


def test_perplexity_is_the_size_of_a_fair_die():
    assert back_off.perplexity(np.log(np.full(7, 1 / 6))) == pytest.approx(6, rel=8 * EPS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda table: back_off.suggest(table, [0], 0), r"k=0; suggest gives at least one token\."),
        (lambda table: back_off.suggest(table, [9], 1), r"token id 9 is outside the vocabulary of 3 tokens\."),
        (lambda table: back_off.log_probabilities(table, [[0]]), r"tokens has shape \(1, 1\); an n-gram model needs .*"),
        (lambda table: back_off.perplexity([]), r"there is no token to judge; perplexity needs at least one\."),
        (lambda table: stupid_backoff.train([0], 2, 3, alpha=0), r"alpha=0; stupid backoff multiplies by a number above 0 .*"),
    ],
)
def test_a_wrong_query_is_named_in_one_sentence(call, message):
    table = back_off.from_kneser_ney(ngram.train([0, 1, 2], 2, 3))
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(table)
