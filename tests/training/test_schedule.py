"""The learning rate over the steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.training.schedule import SCHEDULES, learning_rate


def rates(schedule, steps=100, warmup_steps=10, decay_steps=None, final_fraction=0.1, peak=2.0, until=None):
    options = {"peak": peak, "schedule": schedule, "steps": steps, "warmup_steps": warmup_steps}
    options |= {"decay_steps": decay_steps, "final_fraction": final_fraction}
    return [learning_rate(step, **options) for step in range(until or steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_in_equal_parts_and_no_step_has_rate_zero(schedule):
    assert rates(schedule)[:11] == pytest.approx([2.0 * (i + 1) / 11 for i in range(11)], rel=1e-15)


def test_a_cosine_falls_from_the_peak_by_half_a_cosine_and_stays_at_its_end():
    got = rates("cosine", until=130)
    expected = [0.2 + 0.5 * (1 + math.cos(math.pi * min(1, (i - 10) / 90))) * 1.8 for i in range(10, 130)]
    assert got[10:] == pytest.approx(expected, rel=1e-14)
    assert got[55] == pytest.approx(1.1, rel=1e-14)
    assert set(got[100:]) == {0.2}


def test_a_cosine_can_end_before_the_last_step():
    got = rates("cosine", decay_steps=20)
    assert got[30:] == [0.2] * 70
    assert got[20] == pytest.approx(1.1, rel=1e-14)


def test_a_constant_rate_stays_at_the_peak():
    assert rates("constant", until=200)[10:] == [2.0] * 190


def test_wsd_is_stable_then_falls_in_a_straight_line_over_the_last_steps():
    got = rates("wsd", decay_steps=40, final_fraction=0.0, until=110)
    assert got[10:61] == [2.0] * 51
    assert got[60:101] == pytest.approx([2.0 * (1 - i / 40) for i in range(41)], abs=1e-15)
    assert got[100:] == [0.0] * 10


def test_wsd_decays_over_a_fifth_of_the_steps_unless_told_otherwise():
    got = rates("wsd")
    assert got[80] == 2.0
    assert got[81] < 2.0


drawn = {
    "schedule": st.sampled_from(sorted(SCHEDULES)),
    "warmup_steps": st.integers(0, 60),
    "decay_steps": st.none() | st.integers(1, 40),
    "final_fraction": st.floats(0, 1),
}


@given(**drawn)
def test_the_rate_never_leaves_its_bounds(schedule, warmup_steps, decay_steps, final_fraction):
    got = rates(schedule, 100, warmup_steps, decay_steps, final_fraction, until=120)
    assert all(0 < rate <= 2.0 for rate in got[:warmup_steps])
    assert all(final_fraction * 2.0 * (1 - 1e-15) <= rate <= 2.0 for rate in got[warmup_steps:])


@given(**drawn)
def test_the_rate_rises_then_falls(schedule, warmup_steps, decay_steps, final_fraction):
    got = rates(schedule, 100, warmup_steps, decay_steps, final_fraction, until=120)
    rising, falling = got[: warmup_steps + 1], got[warmup_steps:]
    assert all(earlier < later for earlier, later in zip(rising, rising[1:], strict=False))
    assert all(later <= earlier * (1 + 1e-15) for earlier, later in zip(falling, falling[1:], strict=False))
