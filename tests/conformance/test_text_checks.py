"""The check of the same text notices a backend that writes another, and lets pass one that had a choice."""

import numpy as np

from refllm.array_api import OPS, kernels, load
from refllm.conformance.bounded import FLOATS, Bounded
from refllm.conformance.decisions import choices, judged
from refllm.conformance.kit import run
from refllm.conformance.text_checks import CHECKS
from refllm.decoding.sampler import Sampler


def rope_turned_the_other_way(x, cos, sin):
    return OPS["rope"].reference(x, cos, -sin)[0], None


def test_a_backend_that_writes_another_text_is_caught():
    numpy = load("numpy")
    with kernels(numpy, {"rope": rope_turned_the_other_way}):
        row = run(CHECKS[0], numpy, examples=8, shrink=False)
    assert "token" in row.failure
    assert row.worst > 1


def test_a_decision_is_near_where_its_margin_is_below_the_bound():
    values = np.asarray([[0.0, 3.0, 2.0], [0.0, 3.0, 2.9], [1.0, 0.0, -1.0]])
    logits = Bounded(values, np.full(values.shape, 0.1), FLOATS["float32"])
    found = [judged(choice, logits, Sampler(0.0)) for choice in choices(values, [0], [1, 1, 0], Sampler(0.0), 0)]
    assert [decision.token for decision in found] == [1, 1, 0]
    assert [decision.is_near for decision in found] == [False, True, False]
    np.testing.assert_allclose([decision.margin for decision in found], [0.5, 0.05, 0.5], rtol=1e-9)


def test_a_choice_knows_the_text_before_it():
    sampler = Sampler(0.0, no_repeat_ngram=1, frequency_penalty=0.5)
    values = np.tile([[0.0, 3.0, 2.0, 1.0]], (3, 1))
    assert [choice.token for choice in choices(values, [3], [1, 0, 0], sampler, 0)] == [1, 2, 2]
