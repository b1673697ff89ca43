"""What a run of decoding asks for: calls of generate, and the names of the times that they give."""

import statistics
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A prompt and the tokens after it. A time without a name is not kept."""

    rows: int  # B
    context: int  # T: tokens of each row's prompt
    tokens: int  # generated behind it
    prompt: str  # how the seconds until the first token are called
    token: str  # and those of a token after it: a step's, shared out among its rows


def plain(context: int, tokens: int) -> list[Call]:
    """One sequence: a prompt, and the tokens after it."""
    return [Call(1, context, tokens, "prompt", "token")]


def at_contexts(contexts: list[int], tokens: int) -> list[Call]:
    """One sequence, behind prompts of several lengths."""
    return [Call(1, context, tokens, "", f"token at {context}") for context in contexts]


def of_rows(rows: list[int], context: int, tokens: int) -> list[Call]:
    """Several sequences side by side."""
    return [Call(n, context, tokens, "", f"token, {n} row{'s' * (n > 1)}") for n in rows]


def prompts(lengths: list[int]) -> list[Call]:
    """Prompts of several lengths, up to the first token."""
    return [Call(1, length, 1, f"prompt of {length}", "") for length in lengths]


def positions(calls: list[Call]) -> int:
    """The longest sequence among them."""
    return max(call.context + call.tokens for call in calls)


def figures(calls: list[Call], result: Any) -> dict[str, float]:
    """Tokens per second, read or written, and how many times the first call's time for a token the later ones take.

    result: a duel's
    """
    found = {f"tokens per second, {c.prompt}": c.rows * c.context / result.median(c.prompt) for c in calls if c.prompt}
    names = [c.token for c in calls if c.token]
    found |= {f"tokens per second, {name}": 1 / result.median(name) for name in names}
    return found | {f"{name} ÷ {names[0]}": ratio_within(result, name, names[0]) for name in names[1:]}


def ratio_within(result: Any, what: str, base: str) -> float:
    """How many times one thing takes what another takes on the same side: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(result.seconds[what], result.seconds[base], strict=True))
