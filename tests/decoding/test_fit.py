"""Prompts and contexts: what fits is left alone, and what does not is refused with its numbers, or cut as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding.fit import fit

PROMPTS = st.lists(st.integers(0, 9), min_size=1, max_size=9)


@given(PROMPTS, st.integers(1, 9), st.integers(10, 20), st.sampled_from(["error", "keep_end", "keep_start"]))
def test_a_prompt_that_fits_stays_as_it_is(ids, n_tokens, room, overflow):
    if len(ids) + n_tokens <= room:
        assert fit(ids, n_tokens, room, overflow) == (ids, n_tokens)
        assert fit(ids, None, room, overflow) == (ids, room - len(ids))


@given(PROMPTS, st.one_of(st.none(), st.integers(1, 4)), st.integers(5, 12), st.integers(0, 3))
def test_of_a_prompt_that_is_too_long_as_much_is_kept_as_fits(ids, n_tokens, room, opening):
    kept = min(len(ids), room - (n_tokens or 1))
    after = n_tokens or room - kept
    assert fit(ids, n_tokens, room, "keep_start") == (ids[:kept], after)
    assert fit(ids, n_tokens, room, "keep_end") == (ids[len(ids) - kept :], after)
    found, _ = fit(ids, n_tokens, room, "keep_end", opening=opening)
    assert found == definitions()["fitted"](ids, room - kept if kept < len(ids) else 1, room, "keep_end", opening)
    assert len(found) == kept
    assert found[: min(opening, kept)] == ids[: min(opening, kept)]


@pytest.mark.parametrize(
    ("length", "n_tokens", "room", "says"),
    [
        (10, 7, 16, r"the prompt has 10 tokens, and 7 more do not fit the model's context of 16: ask for at most 6, or"),
        (10, 7, 16, r"shorten it by at least 1, or let overflow keep its end \(keep_end\) or its start \(keep_start\)"),
        (20, None, 16, r"the prompt has 20 tokens, and one more does not fit the model's context of 16: shorten it by .* 5,"),
        (16, None, 16, r"shorten it by at least 1,"),
        (3, 16, 16, r"16 tokens leave a prompt no room in the model's context of 16; ask for at most 15"),
        (0, 5, 16, "the prompt is empty; generation continues at least one token"),
        (3, 0, 16, "n_tokens=0 asks for no token; it must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(length, n_tokens, room, says):
    with pytest.raises(ValueError, match=says):
        fit([1] * length, n_tokens, room)


def test_tokens_that_leave_no_room_are_refused_however_the_prompt_may_be_cut():
    for overflow in ("keep_end", "keep_start"):
        with pytest.raises(ValueError, match="leave a prompt no room"):
            fit([1, 2], 9, 9, overflow)
    with pytest.raises(ValueError, match="overflow='middle' is not a way to fit a prompt; choose one of error, keep_end, keep_"):
        fit([1], 1, 9, "middle")
