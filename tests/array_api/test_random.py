"""Random numbers come from an address, and from nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import generator

addresses = st.tuples(
    st.integers(0, 2**64 - 1), st.sampled_from(["init", "batch", "dropout/layers.0", "sample"]), st.integers(0, 2**40)
)


@given(address=addresses)
def test_the_same_address_gives_the_same_numbers(address):
    assert np.array_equal(generator(*address).random(8), generator(*address).random(8))


@given(one=addresses, other=addresses)
def test_different_addresses_give_different_numbers(one, other):
    same = np.array_equal(generator(*one).random(4), generator(*other).random(4))
    assert same == (one == other)


def test_the_numbers_are_those_of_the_first_release():
    assert generator(0, "init").random(3).tolist() == [0.8172475158692197, 0.8991149441184163, 0.5529652774235908]
    assert generator(7, "batch", 5).integers(0, 1000, 5).tolist() == [859, 258, 474, 907, 781]


@given(seed=st.integers(0, 100))
def test_numbers_of_one_address_are_spread_evenly(seed):
    u = generator(seed, "batch", 7).random(4000)
    assert abs(u.mean() - 0.5) < 0.03  # six standard errors
