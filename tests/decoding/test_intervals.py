"""Cuts of intervals against the cuts of the numbers within them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.decoding.intervals import Interval, after_cuts, entropy, surprises
from refllm.decoding.memory import Memory
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import distribution

SEEDS = st.integers(0, 2**32 - 1)
CUTS = [{}, {"top_k": 1}, {"top_k": 3}, {"top_k": 50}, {"top_p": 0.3}, {"top_p": 0.9}, {"min_p": 0.1}, {"min_p": 1.0}]
CUTS += [{"typical_p": 0.2}, {"typical_p": 0.9}, {"epsilon": 0.05}, {"eta": 0.1}, {"mirostat": (2.0, 0.1)}]
CUTS += [{"top_k": 5, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9, "epsilon": 0.02, "eta": 0.02}]


@pytest.mark.parametrize("cut", CUTS)
def test_what_a_cut_surely_keeps_or_drops_it_keeps_or_drops_for_all_logits_within_the_intervals(cut):
    @given(SEEDS, st.sampled_from([0.0, 1e-3, 0.03, 0.2, 1.0]))
    def holds(seed, d):
        rng = np.random.default_rng(seed)
        z = rng.normal(0, 1.5, int(rng.integers(2, 12)))
        sampler, mu = Sampler(1.0, **cut), 1.5 if "mirostat" in cut else None
        memory = None if mu is None else Memory(mu=np.asarray([mu]))
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = after_cuts(Interval(z - d, z + d), sampler, mu, 0.0)
        for corner in (*rng.choice([-d, d], (40, len(z))), *np.where(np.eye(len(z)), d, -d), *np.where(np.eye(len(z)), -d, d)):
            p = distribution((z + corner)[None, :], sampler, memory)[0]
            assert np.all(p[low > -np.inf] > 0)
            assert np.all(p[high == -np.inf] == 0)
        if d == 0:
            assert np.array_equal(low, high)

    holds()


@given(SEEDS, st.sampled_from([0.0, 0.05, 0.5]))
def test_surprises_and_their_expectation_lie_within_their_intervals(seed, d):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, int(rng.integers(2, 9)))
    within = surprises(Interval(z - d, z + d))
    least, most = entropy(within)
    for corner in rng.choice([-d, d], (40, len(z))):
        p = distribution((z + corner)[None, :], Sampler(1.0))[0]
        assert np.all((within.low - 1e-12 <= -np.log(p)) & (-np.log(p) <= within.high + 1e-12))
        assert least - 1e-12 <= -np.sum(p * np.log(p)) <= most + 1e-12


def test_a_part_of_the_entropy_is_largest_at_a_probability_of_one_over_e():
    least, most = entropy(Interval(-np.log([0.45]), -np.log([0.3])))
    assert most == 1 / math.e
    assert least == pytest.approx(-0.45 * math.log(0.45), rel=1e-12)
