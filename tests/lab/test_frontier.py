"""How to spend a budget, and why two papers differ."""

import numpy as np
import pytest

from refllm.lab.fit import fit
from refllm.lab.frontier import apparent_exponent, frontier, parameter_exponent, published
from refllm.lab.laws import BESIROGLU, HOFFMANN


def test_a_planted_laws_split_is_found_with_its_interval(planted):
    found = fit(planted(noise=3e-3), ("parameters", "tokens"), resamples=200)
    (split,) = frontier(found, [1e20])
    N, D = BESIROGLU.optimum(1e20)
    assert split.parameters_interval[0] < N < split.parameters_interval[1]
    assert split.tokens_interval[0] < D < split.tokens_interval[1]
    assert split.parameters_interval[1] < 1.3 * split.parameters_interval[0]
    assert split.parameters * split.tokens == pytest.approx(1e20 / 6, rel=1e-9)
    value, (low, high) = parameter_exponent(found)
    assert low < value < high
    assert low < BESIROGLU.parameter_exponent < high


def test_without_a_bootstrap_there_is_no_interval(planted):
    found = fit(planted(), ("parameters", "tokens"))
    assert frontier(found, [1e20])[0].parameters_interval is None
    assert parameter_exponent(found)[1] is None


def test_the_laws_in_print_stand_beside():
    assert [split.law for split in published([1e20])] == ["Hoffmann 2022", "Besiroglu 2024", "Muennighoff 2023"]


def test_leaving_embeddings_out_turns_hoffmanns_law_into_kaplans():
    """Pearce & Song 2024 print 0.78 and 0.74; Kaplan found 0.73."""
    assert apparent_exponent(BESIROGLU) == pytest.approx(0.775, abs=0.01)
    assert apparent_exponent(HOFFMANN) == pytest.approx(0.741, abs=0.01)
    assert BESIROGLU.parameter_exponent < 0.52
    assert np.isfinite(apparent_exponent(HOFFMANN, sizes=50))
