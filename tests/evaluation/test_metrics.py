"""Metrics of answers, and the intervals of their means."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.evaluation.metrics import exact_match, f1, mean, wilson, words

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "a"]), max_size=6)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_where_the_share_is_as_likely_as_its_definition_says(counts):
    right, n = counts
    share = wilson(right, n)
    low, high = definitions()["wilson"](right, n)
    assert abs(share.low - low) <= 1e-12
    assert abs(share.high - high) <= 1e-12
    for edge in (share.low, share.high):  # at the edges the share lies z deviations of a binomial away
        if 0 < edge < 1:
            assert abs(abs(right / n - edge) - 1.959963984540054 * math.sqrt(edge * (1 - edge) / n)) <= 1e-9
    assert 0 <= share.low <= share.value <= share.high <= 1


@given(WORDS, WORDS)
def test_the_f1_of_words_equals_its_definition(ours, theirs):
    assert f1(" ".join(ours), " ".join(theirs)) == definitions()["word_f1"](ours, theirs) == f1(" ".join(theirs), " ".join(ours))


def test_words_are_compared_without_case_and_punctuation_and_exact_matches_with_them():
    assert words("The Cat, süß & 2nd!") == ["the", "cat", "süß", "2nd"]
    assert f1("The cat!", "the cat") == 1
    assert exact_match(" the cat\n", "the cat") == 1
    assert exact_match("The cat", "the cat") == 0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_a_mean_lies_within_its_interval(scores):
    share = mean(scores)
    assert abs(share.value - sum(scores) / len(scores)) <= 1e-12
    assert 0 <= share.low <= share.value + 1e-15
    assert share.value - 1e-15 <= share.high <= 1
    assert share.n == len(scores)


def test_the_mean_of_ones_and_zeros_is_a_share_and_that_of_others_has_a_normal_interval():
    assert mean([1.0, 0.0, 1.0, 1.0]) == wilson(3, 4)
    share = mean([0.4, 0.5, 0.6, 0.5] * 25)
    assert share.high - share.value == pytest.approx(1.959963984540054 * math.sqrt(0.005 * 100 / 99 / 100), rel=1e-12)
