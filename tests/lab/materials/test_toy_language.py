"""The toy language: a Markov chain whose texts, drawn and enumerated, have known probabilities."""

import itertools
import math

import numpy as np
import pytest

from refllm.lab.materials import toy_language


def test_the_next_letter_of_the_alphabet_is_by_far_the_likeliest_to_follow():
    A = toy_language.transitions()
    assert A.sum(axis=1) == pytest.approx(1, abs=1e-15)
    for before, after in itertools.pairwise("abcda"):
        row = A[ord(before) - ord("a")]
        assert row[ord(after) - ord("a")] == 0.85
        assert sorted(row)[:3] == pytest.approx([0.05] * 3)


def test_every_text_is_there_once_in_alphabetical_order():
    texts = ["".join("abcd"[i] for i in row) for row in toy_language.every_text(3)]
    assert texts == sorted(set(texts))
    assert len(texts) == 64


def test_a_texts_probability_is_the_product_of_its_steps():
    texts = np.array([[0, 1, 2, 3, 0], [0, 2, 3, 3, 1]])
    np.testing.assert_allclose(toy_language.log_likelihood(texts), [math.log(0.85**4 / 4), math.log(0.05**3 * 0.85 / 4)])
    assert toy_language.log_likelihood(np.array([[3]])) == pytest.approx([-math.log(4)])


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_pseudo_log_likelihood_is_that_of_the_enumerated_texts(length):
    texts = toy_language.every_text(length)
    p = {tuple(text): math.exp(log) for text, log in zip(texts.tolist(), toy_language.log_likelihood(texts), strict=True)}
    for text, found in zip(texts.tolist(), toy_language.pseudo_log_likelihood(length), strict=True):
        parts = [p[tuple(text)] / sum(p[(*text[:t], v, *text[t + 1 :])] for v in range(4)) for t in range(length)]
        assert found == pytest.approx(math.log(math.prod(parts)), abs=1e-12)
