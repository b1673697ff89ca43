"""What a text took, beside the least that it could take: prefill and decode apart, as figures and as lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from refllm.bench import floor
from refllm.cli.figures import count, size, span
from refllm.cli.info import amount
from refllm.models.model import Model


@dataclass
class Times:
    """How long the tokens of a text took so far; filled as they come."""

    n_prompt: int  # tokens read at once
    seconds: list[float] = field(default_factory=list)  # of each token; the first's is the time of the prefill
    proposed: int = 0  # tokens that a draft proposed
    accepted: int = 0  # of them, those that the model took over

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.seconds[0]

    @property
    def later(self) -> list[float]:
        """Seconds of each token after it."""
        return self.seconds[1:]

    @property
    def each(self) -> float:
        """Seconds of a token after the first, all of them shared out evenly."""
        return sum(self.later) / len(self.later)


def figures(times: Times) -> dict[str, Any]:
    """The times that people look for, as JSON has them; None where there was no token to take them of."""
    found: dict[str, Any] = {"prompt_tokens": times.n_prompt, "tokens": len(times.seconds), "prefill": None, "decode": None}
    if times.seconds:
        found["prefill"] = {"first_token_seconds": times.first, "tokens_per_second": times.n_prompt / times.first}
    if times.later:
        found["decode"] = {
            "token_seconds_median": median(times.later),
            "token_seconds_worst": max(times.later),
            "tokens_per_second": 1 / times.each,
        }
    if times.proposed:
        found["drafts"] = {"proposed": times.proposed, "accepted": times.accepted}
    return found


def with_floors(found: dict[str, Any], model: Model, quantised: bool = False) -> dict[str, Any]:
    """The figures, and beside them the bytes of the cache and the floors.

    quantised: whether keys and values are kept in eight bits
    """
    read, written = found["prompt_tokens"], found["tokens"]
    length = read + max(0, written - 1)  # the last token is never read
    speeds = floor.speeds(model)
    found = {**found, "cache_bytes": floor.seen_positions(model, length) * floor.layer_bytes(model, quantised)}
    found["measured"] = {"bytes_per_second": speeds.bandwidth, "operations_per_second": speeds.matrix}
    if found["prefill"]:
        least = floor.prefill_floor(model, read, quantised)
        found["prefill"] = found["prefill"] | beside(least, found["prefill"]["first_token_seconds"])
    if found["decode"]:
        least = floor.token_floor(model, (read + 1 + length) // 2, quantised=quantised)  # of the token in the middle
        found["decode"] = found["decode"] | beside(least, 1 / found["decode"]["tokens_per_second"])
    return found


def beside(least: floor.Floor, seconds: float) -> dict[str, Any]:
    """The floor of some work, and which share it is of what was needed."""
    work = {"bytes": least.work.bytes, "operations": least.work.operations}
    return work | {"floor_seconds": least.seconds, "floor_share": least.seconds / seconds}


def in_lines(found: dict[str, Any]) -> list[str]:
    """The figures in words, in lines that fit a terminal of 80 columns."""
    told = []
    if part := found["prefill"]:
        read = f"{tokens(found['prompt_tokens'])}, first token after {span(part['first_token_seconds'])}"
        told += [f"prefill  {read} ({count(part['tokens_per_second'])} tokens/s)", *against(part)]
    if part := found["decode"]:
        each = f"{span(part['token_seconds_median'])} each, {span(part['token_seconds_worst'])} at worst"
        speed = f"({count(part['tokens_per_second'])} tokens/s)"
        told += [f"decode   {tokens(found['tokens'] - 1)}, {each} {speed}", *against(part)]
    if drafts := found.get("drafts"):
        share = drafts["accepted"] / drafts["proposed"]
        told.append(f"drafts   {drafts['accepted']:,} of {drafts['proposed']:,} proposed tokens accepted, {share:.0%}")
    if "cache_bytes" in found:
        told.append(f"cache    {size(found['cache_bytes'])} of keys and values")
    if measured := found.get("measured"):
        reads, computes = size(measured["bytes_per_second"]), amount(measured["operations_per_second"])
        told.append(f"machine  reads {reads}/s for one row, computes {computes}FLOP/s in large products")
    return told


def against(part: dict[str, Any]) -> list[str]:
    """The floor of some work, and how near to it the work came."""
    if "floor_seconds" not in part:
        return []
    work = f"{size(part['bytes'])} and {amount(part['operations'])}FLOP"
    return [f"         floor {span(part['floor_seconds'])}, for {work}; {part['floor_share']:.0%} of its speed reached"]


def tokens(n: int) -> str:
    """1 token, 2,000 tokens."""
    return f"{n:,} token{'' if n == 1 else 's'}"


def summary(all_times: Sequence[Times], seconds: float) -> list[str]:
    """Texts that were written together, within so many seconds, in two lines."""
    begun = [times for times in all_times if times.seconds]
    if not begun:
        return []
    n_tokens, later = sum(len(times.seconds) for times in begun), [s for times in begun for s in times.later]
    told = [f"texts    {len(begun):,} in {span(seconds)}, {tokens(n_tokens)} ({count(n_tokens / seconds)} tokens/s in all)"]
    if later:
        first = f"first token after {span(median(times.first for times in begun))}"
        told.append(f"each     {first}, then {span(median(later))} a token (medians), {span(max(later))} at worst")
    return told
