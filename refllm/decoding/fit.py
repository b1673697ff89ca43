"""What happens to a prompt that is longer than the context: it is refused, or its end or its beginning is kept."""

from collections.abc import Sequence

OVERFLOWS = ("error", "keep_end", "keep_start")


def fit(
    ids: Sequence[int], n_tokens: int | None, room: int, overflow: str = "error", *, opening: int = 0
) -> tuple[list[int], int]:
    """The tokens of a prompt that are read, and how many may follow them.

    n_tokens: to follow; None: as many as there is room for, one at least    room: of the context, in tokens
    overflow: of a prompt that does not fit before n_tokens, "keep_end" drops the first tokens, "keep_start" the last, and
        "error" refuses it
    opening: tokens at the beginning that "keep_end" keeps too, such as the one that begins a document
    Raises ValueError for an empty prompt, n_tokens that leave a prompt no room, and where the prompt is refused.
    """
    check_overflow(overflow)
    if len(ids) == 0:
        raise ValueError("the prompt is empty; generation continues at least one token.")
    if n_tokens is not None and n_tokens < 1:
        raise ValueError(f"n_tokens={n_tokens} asks for no token; it must be at least 1.")
    T, least = len(ids), 1 if n_tokens is None else n_tokens
    kept = room - least  # tokens of the prompt, at most
    if kept < 1:
        raise ValueError(f"{least} tokens leave a prompt no room in the model's context of {room}; ask for at most {room - 1}.")
    if kept < T and overflow == "error":
        asked = "one more does" if n_tokens is None else f"{n_tokens} more do"
        fewer = f"ask for at most {room - T}, or " if room > T else ""
        raise ValueError(
            f"the prompt has {T} tokens, and {asked} not fit the model's context of {room}: "
            f"{fewer}shorten it by at least {T - kept}, or let overflow keep its end (keep_end) or its start (keep_start)."
        )
    if kept < T and overflow == "keep_start":
        ids = ids[:kept]
    elif kept < T:
        head = min(opening, kept)
        ids = [*ids[:head], *ids[T - (kept - head) :]]
    return list(ids), room - len(ids) if n_tokens is None else n_tokens


def check_overflow(overflow: str) -> None:
    """Raise ValueError unless it is a way to fit a prompt."""
    if overflow not in OVERFLOWS:
        raise ValueError(f"overflow={overflow!r} is not a way to fit a prompt; choose one of {', '.join(OVERFLOWS)}.")
