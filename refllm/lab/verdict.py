"""A claim about language models, and what the user's own models say of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

HOLDS, FAILS, UNDECIDABLE = "holds", "fails", "undecidable at this scale"
SIGNIFICANT = 0.05  # a p-value up to this rejects


class Finding(NamedTuple):
    """What was measured, and whether the claim stands."""

    value: float | None  # the measured quantity; None where there is none to quote
    low: float | None  # its interval, where there is one
    high: float | None
    unit: str
    verdict: str  # HOLDS, FAILS or UNDECIDABLE
    why: str  # one sentence with the numbers that decide


class Claim(NamedTuple):
    """Something that is said about scale, as a quantity that can be measured."""

    number: int
    statement: str
    formula: str  # the quantity, and the rule by which it decides
    published: str  # the published value, and where; "" where there is none
    needs: tuple[str, ...]  # the experiments, by name, whose results decide
    judge: Callable[[Mapping[str, Any]], Finding]  # given these results by name


def within(value: float, low: float, high: float, claimed_low: float, claimed_high: float) -> str:
    """The verdict on a measured interval [low, high] against a claimed one.

    It holds where the measured lies inside the claimed, fails where the two do not meet, and is undecidable otherwise.
    """
    if not low <= value <= high:
        raise ValueError(f"the value {value} lies outside its own interval, {low} … {high}.")
    if claimed_low <= low and high <= claimed_high:
        return HOLDS
    return FAILS if high < claimed_low or low > claimed_high else UNDECIDABLE


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several parts: it fails if one does, holds if all do, and is undecidable otherwise, also for no
    parts.
    """
    return FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNDECIDABLE
