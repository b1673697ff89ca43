"""Log-probabilities, and the likeliest tokens by them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding import logprobs
from refllm.decoding.logprobs import likeliest, log_softmax


@given(st.data(), st.integers(1, 24), st.sampled_from([(1,), (3,), (2, 2)]), st.integers(0, 2**32))
def test_the_likeliest_come_in_order_and_the_lower_id_first_among_equals(backend, data, V, lead, seed):
    k, xp = data.draw(st.integers(1, V), "k"), backend.xp
    x = np.random.default_rng(seed).integers(-2, 3, (*lead, V)).astype(np.float32)
    x[x == -2] = -np.inf
    ids, values = likeliest(xp.from_numpy(x), k)
    expected = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(xp.to_numpy(ids), expected)
    np.testing.assert_array_equal(xp.to_numpy(values), np.take_along_axis(x, expected, axis=-1))


@pytest.mark.parametrize("few", [0, 3])
def test_a_few_are_found_as_many_are(few, monkeypatch):
    monkeypatch.setattr(logprobs, "FEW", few)
    x = np.random.default_rng(0).standard_normal((4, 50))
    for k in (1, 3, 4, 50):
        np.testing.assert_array_equal(likeliest(x, k)[0], np.argsort(-x, axis=-1)[:, :k])


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=9))
def test_log_probabilities_are_their_definition(logits):
    expected = definitions()["log_probabilities"]([z / 8 for z in logits])
    found = log_softmax(np.array(logits) / 8)
    assert np.all(np.abs(found - expected) <= 1e-12 * (1 + np.abs(expected)))
