"""Pruning: what goes first, what stays normalised, and what a budget promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.models import back_off, ngram, pruning

EPS = np.finfo(np.float64).eps


@st.composite
def tables(draw, order=3):
    """A table, its stream, and the occurrences of its n-grams."""
    vocab_size = draw(st.integers(2, 5))
    begin = draw(st.none() | st.integers(0, vocab_size - 1))
    stream = draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=60))
    counts = ngram.count(stream, draw(st.integers(1, order)), vocab_size, begin)
    table = back_off.from_kneser_ney(ngram.smooth(counts))
    return table, stream, pruning.dense(counts.occurrences, counts.keys[0], vocab_size)


def contexts(table):
    """Every context of at most two tokens."""
    ids = range(table.vocab_size)
    return [[], *([a] for a in ids), *([a, b] for a in ids for b in ids)]


def sums(table):
    return np.array([np.sum(10 ** back_off.log10_distribution(table, context)) for context in contexts(table)])


@given(tables(), st.floats(0, 1), st.booleans())
def test_a_pruned_ngram_model_sums_to_one(case, share, known):
    table, _, occurrences = case
    n = table.vocab_size + round(share * sum(table.sizes[1:]))
    pruned = pruning.pruned(table, lambda sizes: sum(sizes) <= n, occurrences if known else None)
    assert sum(pruned.sizes) == n
    assert np.all(np.abs(sums(pruned) - 1) <= 64 * EPS * table.order * table.vocab_size)


@given(tables(), st.lists(st.integers(1, 4), min_size=1, max_size=2).map(sorted))
def test_a_model_without_rare_ngrams_sums_to_one_and_keeps_the_others(case, least):
    table, _, occurrences = case
    cut = pruning.renormalised(pruning.only(table, pruning.frequent(occurrences, least)))
    wanted = [np.sum(f >= least[min(n, len(least) - 1)]) for n, f in enumerate(occurrences[1:])]
    assert list(cut.sizes[1:]) == wanted
    assert np.all(np.abs(sums(cut) - 1) <= 64 * EPS * table.order * table.vocab_size)


@given(tables())
def test_a_whole_kneser_ney_model_is_normalised_already(case):
    table, _, _ = case
    again = pruning.renormalised(table)
    for context in contexts(table):
        before, after = (10 ** back_off.log10_distribution(t, context) for t in (table, again))
        assert np.all(np.abs(before - after) <= 256 * EPS * table.vocab_size)


@given(tables(), st.data())
def test_the_cost_of_an_ngram_is_the_relative_entropy_of_the_model_without_it(case, data):
    table, _, occurrences = case
    n = table.order
    if n < 2 or not table.sizes[-1]:
        return
    costs = pruning.entropies(table, occurrences)[-1]
    one = data.draw(st.integers(0, table.sizes[-1] - 1))
    masks = [np.ones(size, bool) for size in table.sizes[1:]]
    masks[-1][one] = False
    without = pruning.renormalised(pruning.only(table, masks))
    history = pruning.rows(table, n)[one, :-1]
    p, q = (10 ** back_off.log10_distribution(t, history) for t in (table, without))
    frequency = occurrences[n - 2][int(back_off.number_of(table, history[None])[0])] / occurrences[0].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = frequency * np.sum(np.where(p > 0, p * (np.log(p) - np.log(q)), 0))
    assert abs(costs[one] - expected) <= 4096 * EPS


@given(tables(), st.data())
def test_a_smaller_budget_keeps_a_part_of_what_a_larger_one_keeps(case, data):
    table, _, occurrences = case
    small, large = sorted(data.draw(st.tuples(*[st.integers(0, sum(table.sizes[1:]))] * 2)))

    def kept(n):
        pruned = pruning.pruned(table, lambda sizes: sum(sizes) <= table.vocab_size + n, occurrences)
        return {tuple(row) for order in range(2, table.order + 1) for row in pruning.rows(pruned, order).tolist()}

    assert kept(small) <= kept(large)


@given(tables())
def test_without_counts_a_history_is_as_frequent_as_the_model_says(case):
    table, _, _ = case
    if table.order < 2 or table.begin is not None:
        return
    ours = pruning.entropies(table)[-1]
    occurrences = [
        10
        ** sum((back_off.score_rows(table, pruning.rows(table, n)[:, :m]) for m in range(1, n + 1)), np.zeros(table.sizes[n - 1]))
        for n in range(1, table.order)
    ]
    occurrences[0] = occurrences[0] / occurrences[0].sum()
    assert np.all(np.abs(ours - pruning.entropies(table, occurrences)[-1]) <= 256 * EPS)


def test_a_larger_budget_can_predict_the_training_text_worse():
    stream = [2, 1, 2, 3, 1, 1, 3, 3, 3, 1, 2, 3, 2, 3, 2, 2, 1, 3, 0, 2, 2, 3, 2, 1, 1]
    counts = ngram.count(stream, 2, 4)
    table = back_off.from_kneser_ney(ngram.smooth(counts))
    occurrences = pruning.dense(counts.occurrences, counts.keys[0], 4)
    small, large = (pruning.pruned(table, lambda sizes, n=n: sum(sizes) <= n, occurrences) for n in (11, 12))
    assert back_off.log_probabilities(large, stream).sum() < back_off.log_probabilities(small, stream).sum() - 0.2


def test_the_frequent_bigram_that_says_something_outlives_the_rare_one():
    stream = [0, 1] * 30 + [2, 3] + [0, 3, 2, 1]
    counts = ngram.count(stream, 2, 4)
    table = back_off.from_kneser_ney(ngram.smooth(counts))
    occurrences = pruning.dense(counts.occurrences, counts.keys[0], 4)
    pruned = pruning.pruned(table, lambda sizes: sum(sizes) <= 6, occurrences)
    assert sorted(map(tuple, pruning.rows(pruned, 2).tolist())) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: pruning.pruned(t, lambda sizes: sum(sizes) <= 2), r"the 3 tokens alone are beyond the budget; .*\."),
        (lambda t: pruning.frequent(t.keys, [3, 2]), r"least=\(3, 2\); the fewest occurrences .* never fall .*\."),
        (lambda t: pruning.frequent(t.keys, []), r"least=\(\); the fewest occurrences .*\."),
    ],
)
def test_a_budget_that_cannot_be_kept_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(back_off.from_kneser_ney(ngram.train([0, 1, 2, 0], 2, 3)))


def test_a_history_that_every_word_follows_has_weight_one():
    stream = [token for word in (1, 2) for _ in range(7) for token in (0, word)]  # after 0 there is 1 or 2, and nothing else
    table = pruning.renormalised(back_off.from_kneser_ney(ngram.train(stream, 2, 3, begin=0)))
    assert table.weights[0].tolist() == [0, 0, 0]
