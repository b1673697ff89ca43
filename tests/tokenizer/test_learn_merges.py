"""Learning merges: the definitions of both rules, and what happens to the row."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_level import BYTE_ORDER
from refllm.tokenizer.learn_merges import EDGE, counted_pairs, learn_merges, merge, rowed

few_letters = st.text(st.sampled_from("abc é"), max_size=40)
DEFINITIONS = {"smallest": "bpe_train", "first": "bpe_train_first"}


def gpt2_ids():
    return [BYTE_ORDER.index(byte) for byte in range(256)]


@pytest.mark.parametrize("ties", DEFINITIONS)
@pytest.mark.parametrize("byte_ids", [range(256), gpt2_ids()], ids=["by value", "in GPT-2's order"])
@given(few_words=st.lists(few_letters, max_size=8), n_merges=st.integers(0, 12))
@example(few_words=["ab ab cd cd", "cdab"], n_merges=3)
@example(few_words=["a" * 15, "ba" + "a" * 4], n_merges=9)
def test_training_equals_its_definition(ties, byte_ids, few_words, n_merges):
    words = [[byte_ids[byte] for byte in word.encode()] for word in few_words]
    expected = definitions()[DEFINITIONS[ties]](words, [1] * len(words), n_merges, 256)
    learned = learn_merges(Counter(few_words), n_merges, byte_ids, ties)
    assert [list(pair) for pair in learned.merges] == expected


@pytest.mark.parametrize("ties", DEFINITIONS)
@given(few_words=st.lists(few_letters, max_size=8), n_merges=st.integers(0, 12))
def test_the_tokens_are_those_that_the_words_become(ties, few_words, n_merges):
    learned = learn_merges(Counter(few_words), n_merges, ties=ties)
    n_tokens = 0
    for word in few_words:
        ids = list(word.encode())
        for i, pair in enumerate(learned.merges):
            ids = definitions()["bpe_merged"](ids, list(pair), 256 + i)
        n_tokens += len(ids)
    assert learned.n_tokens == n_tokens


@pytest.mark.parametrize("ties", DEFINITIONS)
@given(text=st.text(st.sampled_from("ab"), max_size=80))
def test_no_two_merges_make_the_same_token(ties, text):
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in learn_merges(Counter([text]), 40, ties=ties).merges:
        tokens.append(tokens[left] + tokens[right])
    assert len(set(tokens)) == len(tokens)


@given(st.lists(st.sampled_from(["ab", "abab", "aaaa", "aab", "b"])), st.sampled_from([(97, 97), (97, 98), (98, 97)]))
def test_a_merge_leaves_the_row_and_its_totals_as_if_counted_anew(few_words, pair):
    counts = Counter(few_words)
    row = rowed(counts, range(256))
    totals, places = counted_pairs(row)
    if pair not in places:
        return
    come = merge(pair, places[pair], 300, row, totals)
    expected = [definitions()["bpe_merged"](list(word.encode()), list(pair), 300) for word in counts]
    assert linked(row) == expected
    assert +Counter(totals) == Counter(definitions()["bpe_totals"](expected, list(counts.values())))
    assert all(list(of_pair) == sorted(set(of_pair)) for of_pair in come.values()), "from the left, each once"


def linked(row):
    """The words of a row, along its links."""
    words, place = [], 0
    while row.after[place] < len(row.symbols):
        assert row.before[row.after[place]] == place
        if row.symbols[place] == EDGE:
            words.append([])
        else:
            words[-1].append(row.symbols[place])
        place = row.after[place]
    return words


def test_a_long_word_costs_no_more_than_short_ones():
    import numpy as np

    text = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 30_000))
    learned = learn_merges(Counter([text]), 500)
    assert learned.n_tokens < 12_000
    assert len(learned.merges) == 500


def test_progress_counts_up_to_the_merges_asked_for():
    seen = []
    learn_merges({"hello": 3, "world": 1}, 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
