"""The n-gram model against its scalar definition, and the laws of its page."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.models import ngram

EPS = np.finfo(np.float64).eps


@st.composite
def streams(draw):
    """A vocabulary, a training stream of it, and a second stream."""
    vocab_size = draw(st.integers(1, 5))
    ids = st.integers(0, vocab_size - 1)
    return vocab_size, draw(st.lists(ids, min_size=1, max_size=40)), draw(st.lists(ids, max_size=8))


@given(streams(), st.integers(1, 4))
def test_an_ngram_model_equals_its_definition(case, order):
    vocab_size, stream, context = case
    context = context[max(0, len(context) - order + 1) :]
    got = ngram.distribution(ngram.train(stream, order, vocab_size), context)
    probability = definitions()["ngram_probability"]
    expected = [probability(stream, context, token, order, vocab_size) for token in range(vocab_size)]
    assert np.all(np.abs(got - expected) <= EPS * (8 * order + vocab_size)), f"{got} is not {expected}"


def test_the_discounts_are_chen_and_goodmans_where_all_four_counts_occur():
    counts = np.array([1] * 10 + [2] * 4 + [3] * 2 + [4, 9])
    y = 10 / 18
    assert ngram.discounts(counts) == pytest.approx((1 - 2 * y * 4 / 10, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2), abs=4 * EPS)


def test_a_long_stream_equals_the_definition_with_estimated_discounts():
    rng = np.random.default_rng(0)
    stream = np.minimum(rng.geometric(0.3, 150), 8) - 1
    model = ngram.train(stream, 2, 8)
    assert ngram.discounts(np.unique(stream[:-1] * 8 + stream[1:], return_counts=True)[1]) != (0.5, 1.0, 1.5)
    probability = definitions()["ngram_probability"]
    expected = [probability(stream.tolist(), [3], token, 2, 8) for token in range(8)]
    assert np.all(np.abs(ngram.distribution(model, [3]) - expected) <= EPS * 24)


@given(streams(), st.integers(1, 5))
def test_an_ngram_distribution_sums_to_one(case, order):
    vocab_size, stream, context = case
    p = ngram.distribution(ngram.train(stream, order, vocab_size), context)
    assert np.all(p > 0)
    assert abs(p.sum() - 1) <= EPS * (8 * order + vocab_size)


@given(streams(), st.integers(1, 4), st.integers(0, 8))
def test_an_ngram_stream_is_scored_alike_whole_or_in_parts(case, order, cut):
    vocab_size, stream, held_out = case
    model = ngram.train(stream, order, vocab_size)
    whole = ngram.log_probabilities(model, held_out)
    parts = [
        ngram.log_probabilities(model, held_out[:cut]),
        ngram.log_probabilities(model, held_out[cut:], held_out[:cut]),
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    one_by_one = [np.log(ngram.distribution(model, held_out[:i])[token]) for i, token in enumerate(held_out)]
    np.testing.assert_array_equal(whole, one_by_one)


@given(streams(), st.integers(1, 3), st.lists(st.just(0), max_size=5))
def test_an_ngram_model_knows_nothing_beyond_its_order(case, order, earlier):
    vocab_size, stream, context = case
    context = [*context, 0, 0]
    model = ngram.train(stream, order, vocab_size)
    np.testing.assert_array_equal(ngram.distribution(model, earlier + context), ngram.distribution(model, context))


@st.composite
def lines(draw):
    """A vocabulary whose id 0 begins sentences, and sentences of its other ids."""
    vocab_size = draw(st.integers(2, 5))
    sentence = st.lists(st.integers(1, vocab_size - 1), max_size=8).map(lambda ids: [0, *ids])
    return vocab_size, draw(st.lists(sentence, min_size=1, max_size=10))


@given(lines(), st.integers(1, 4), st.lists(st.integers(0, 4), max_size=4))
def test_an_ngram_model_of_lines_equals_its_definition(case, order, context):
    vocab_size, sentences = case
    context = [token % vocab_size for token in context]
    if 0 in context:
        context = context[len(context) - context[::-1].index(0) - 1 :]
    context = context[max(0, len(context) - order + 1) :]
    got = ngram.distribution(ngram.train(sum(sentences, []), order, vocab_size, begin=0), context)
    probability = definitions()["line_probability"]
    expected = [probability(sentences, context, token, order, vocab_size, 0) for token in range(vocab_size)]
    assert np.all(np.abs(got - expected) <= EPS * (8 * order + vocab_size)), f"{got} is not {expected}"


@given(lines(), st.integers(1, 4))
def test_lower_orders_are_continuation_counts(case, order):
    vocab_size, sentences = case
    counts = ngram.count(sum(sentences, []), order, vocab_size, begin=0)
    grams = [[[token] for token in counts.keys[0].tolist()]]
    for keys in counts.keys[1:]:
        grams.append([[*grams[-1][key // vocab_size], key % vocab_size] for key in keys.tolist()])
    expected = [[definitions()["line_count"](sentences, gram, order, 0) for gram in level] for level in grams]
    assert [c.tolist() for c in counts.counts] == expected
    seen = [[definitions()["stupid_count"](sentences, gram) for gram in level] for level in grams]
    assert [f.tolist() for f in counts.occurrences] == seen


def test_the_discounts_fall_back_together_where_one_is_below_0_or_has_no_counts():
    assert ngram.discounts(np.array([1, 2, 3])) == pytest.approx(
        (1 / 3, 1, 3), abs=4 * EPS
    )  # none of count 4: all of them are known
    assert ngram.discounts(np.array([1, 2, 3, 3, 3, 3, 3])) == ngram.FALLBACK
    for counts in ([2, 3, 4], [1, 3, 4], [1, 2, 4]):
        assert ngram.discounts(np.array(counts)) == ngram.FALLBACK


def test_a_trigram_recites_a_repeated_phrase():
    phrase = [3, 1, 4, 1, 5, 9, 2, 6]
    model = ngram.train(phrase * 50, 3, 10)
    assert [int(np.argmax(ngram.distribution(model, (phrase * 2)[i : i + 2]))) for i in range(8)] == (phrase * 2)[2:10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ngram.train([0, 1], 0, 2), r"order=0; an n-gram model needs an order of at least 1\."),
        (lambda: ngram.train([], 3, 2), r"tokens is empty; an n-gram model needs at least one token to count\."),
        (lambda: ngram.train([0, 7], 3, 2), r"token id 7 is outside the vocabulary of 2 tokens\."),
        (lambda: ngram.train([0, 1], 3, 2, begin=2), r"begin=2 and vocab_size=2; begin is one of several ids below vocab_size\."),
        (lambda: ngram.train([[0, 1]], 3, 2), r"tokens has shape \(1, 2\); an n-gram model needs \(T,\), one stream of ids\."),
        (
            lambda: ngram.log_probabilities(ngram.train([0, 1], 2, 2), [0, -1]),
            r"token id -1 is outside the vocabulary of 2 tokens\.",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
