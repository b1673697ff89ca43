"""A text's code is as long as the text is surprising, and gives it back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.materials.arithmetic_coder import QUARTER, TOTAL, Decoder, Encoder, frequencies, precision


def coded(symbols, p):
    """The encoder behind symbols (n,) under probabilities (n, V), and the whole code."""
    encoder = Encoder()
    for symbol, row in zip(symbols, np.cumsum(frequencies(p), axis=1), strict=True):
        encoder.write(int(symbol), row)
    return encoder, encoder.finish()


def decoded(code, p):
    decoder = Decoder(code)
    return [decoder.read(row) for row in np.cumsum(frequencies(p), axis=1)]


@st.composite
def texts(draw):
    """Symbols, and probabilities from even ones to such as leave less than a frequency can say."""
    n, V, seed = draw(st.integers(1, 60)), draw(st.integers(2, 9)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(V, draw(st.sampled_from([10.0, 1.0, 0.1, 0.02]))), n) + 1e-12
    p /= p.sum(axis=1, keepdims=True)
    likely = draw(st.booleans())
    symbols = np.array([rng.choice(V, p=row) for row in p]) if likely else rng.integers(0, V, n)
    return symbols, p


@given(texts())
def test_the_decoder_gives_the_symbols_back(text):
    symbols, p = text
    assert decoded(coded(symbols, p)[1], p) == symbols.tolist()


@given(texts())
def test_a_code_is_as_long_as_its_text_is_surprising(text):
    symbols, p = text
    chosen = p[np.arange(len(symbols)), symbols]
    bits = -math.fsum(np.log2(chosen))
    off = precision(chosen, p.shape[1])
    encoder, code = coded(symbols, p)
    assert bits - off <= len(encoder.bits) <= bits + off + 2
    assert len(code) == -(-len(encoder.bits) // 8)


@given(texts())
def test_what_follows_a_code_does_not_matter(text):
    symbols, p = text
    encoder, code = coded(symbols, p)
    free = 8 * len(code) - len(encoder.bits)
    full = code[:-1] + bytes([code[-1] | ((1 << free) - 1)]) + b"\xff" * 8
    assert decoded(full, p) == symbols.tolist()


@given(texts())
def test_every_symbol_has_a_frequency_and_all_together_fit(text):
    f = frequencies(text[1])
    V = f.shape[1]
    assert f.min() >= 1
    assert (f.sum(axis=1) <= TOTAL).all()
    assert (f.sum(axis=1) >= TOTAL - V).all()


@pytest.mark.parametrize(("p", "digits"), [(0.5, 100), (0.25, 200), (0.125, 300)])
def test_a_hundred_likely_symbols_take_their_bits(p, digits):
    rows = np.tile([p, 1 - p], (100, 1))
    encoder, _ = coded(np.zeros(100, int), rows)
    assert digits <= len(encoder.bits) <= digits + 2


def test_ends_around_a_half_are_no_trouble():
    p = np.tile([0.4999, 0.0002, 0.4999], (60, 1))
    symbols = np.ones(60, int)
    encoder, code = coded(symbols, p)
    assert decoded(code, p) == symbols.tolist()
    assert len(encoder.bits) == pytest.approx(-60 * math.log2(0.0002), abs=3)


@given(texts())
def test_the_range_stays_above_a_quarter_of_all_numbers(text):
    encoder = Encoder()
    for symbol, row in zip(text[0], np.cumsum(frequencies(text[1]), axis=1), strict=True):
        encoder.write(int(symbol), row)
        assert encoder._high - encoder._low >= QUARTER


def test_the_precision_counts_what_the_least_frequencies_take_from_likely_symbols_and_give_to_unlikely_ones():
    unit = TOTAL / QUARTER
    assert precision(np.array([1.0]), TOTAL // 16) == pytest.approx(math.log2(16 / 15) - math.log2(1 - unit / (TOTAL * 15 / 16)))
    assert precision(np.array([1 / TOTAL]), TOTAL // 2) == pytest.approx(math.log2(3) + math.log2(1 + unit), rel=1e-12)
    assert precision(np.array([1e-6]), TOTAL // 2) == pytest.approx(1 - math.log2(1 - unit / (1e-6 * TOTAL / 2)), rel=1e-12)
    p = np.array([1.0, 1 / TOTAL, 1e-3])
    assert precision(p, 9) == pytest.approx(sum(precision(p[i : i + 1], 9) for i in range(3)), rel=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.001, 3.0])
def test_frequencies_of_probabilities_that_do_not_sum_to_one_are_those_of_their_shares(scale):
    p = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    np.testing.assert_allclose(frequencies(scale * p), frequencies(p), atol=1)
    assert (frequencies(scale * p).sum(axis=1) <= TOTAL).all()


def test_a_vocabulary_of_a_hundred_thousand_takes_thousandths_of_a_bit():
    p = np.random.default_rng(0).dirichlet(np.ones(100_000), 20)
    symbols = p.argmax(axis=1)
    bits = -math.fsum(np.log2(p[np.arange(20), symbols]))
    encoder, code = coded(symbols, p)
    assert precision(p[np.arange(20), symbols], 100_000) < 1e-3
    assert bits - 1e-3 <= len(encoder.bits) <= bits + 2 + 1e-3
    assert decoded(code, p) == symbols.tolist()
