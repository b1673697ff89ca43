"""The next tokens of rows that differ in their samplers: those that share one are sampled together.

Everything stays on the device until the tokens are read. The uniforms come from the host, and so do the masks of constraints.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding.logprobs import likeliest, log_softmax
from refllm.decoding.memory import join_memory, take_memory
from refllm.decoding.request import Event, Row
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import sample, uniforms


class Chosen(NamedTuple):
    """Tokens that are chosen and may not be computed yet."""

    rows: tuple[Row, ...]
    tokens: Any  # (B,) int32
    asked: tuple[int, ...]  # places of the rows that want log-probabilities
    logprobs: Any = None  # (asked,) of the tokens chosen; None where nobody asks
    ids: Any = None  # (asked, k) of the likeliest
    theirs: Any = None  # (asked, k), their log-probabilities

    def events(self, xp) -> Iterator[Event]:
        """Wait for the tokens, and tell those of the rows that had not finished before."""
        tokens = xp.to_numpy(self.tokens).tolist()
        told = [] if self.logprobs is None else [xp.to_numpy(x).tolist() for x in (self.logprobs, self.ids, self.theirs)]
        for b, row in enumerate(self.rows):
            if row.finish is not None:
                continue
            if b not in self.asked:
                yield row.tell(tokens[b])
                continue
            logprob, ids, theirs = (x[self.asked.index(b)] for x in told)
            n = row.request.logprobs
            yield row.tell(tokens[b], logprob, tuple(zip(ids[:n], theirs[:n], strict=True)))


class Group(NamedTuple):
    """Rows of one sampler."""

    sampler: Sampler
    places: tuple[int, ...]  # among all rows
    memory: Any  # of its rows


def gather(rows: Sequence[Row]) -> list[Group]:
    """The groups that rows fall into, which take their memories over."""
    samplers = dict.fromkeys(row.request.sampler for row in rows)
    places = {sampler: tuple(b for b, row in enumerate(rows) if row.request.sampler == sampler) for sampler in samplers}
    return [Group(sampler, at, join_memory([rows[b].memory for b in at])) for sampler, at in places.items()]


def scatter(groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Give each row the memory that its group kept for it."""
    for group in groups:
        for i, b in enumerate(group.places):
            rows[b].memory = take_memory(group.memory, [i], longest=len(rows[b].ids) + rows[b].n_chosen)


def choose(logits, rows: Sequence[Row], groups: Sequence[Group], xp) -> tuple[Chosen, list[Group]]:
    """Choose the next token of each row from logits (B, V). Returns the groups with these tokens in their memories, too."""
    B, whole = len(rows), len(groups) == 1
    parts, after = [], []
    for group in groups:
        theirs = logits if whole else xp.take(logits, xp.asarray(list(group.places), dtype=xp.int32), axis=0)
        members = [rows[b] for b in group.places]
        tokens, memory = sample(
            theirs, _uniforms(members, group.sampler, xp), group.sampler, group.memory, _allowed(members, logits, xp)
        )
        parts.append(tokens)
        after.append(group._replace(memory=memory))
    order = [b for group in groups for b in group.places]
    back = sorted(range(B), key=order.__getitem__)
    tokens = parts[0] if whole else xp.take(xp.concat(parts, axis=0), xp.asarray(back, dtype=xp.int32), axis=0)
    for row in rows:
        row.n_chosen += 1
    return _judged(Chosen(tuple(rows), tokens, ()), logits, xp), after


def _uniforms(rows: Sequence[Row], sampler: Sampler, xp):
    """The number that decides each row's draw: (B,) float32, or None where nothing is drawn."""
    if sampler.temperature == 0:
        return None
    drawn = [uniforms(row.request.seed, row.n_chosen, row.request.row + 1, sampler.draws)[-1:] for row in rows]
    return xp.from_numpy(np.concatenate(drawn))


def _allowed(rows: Sequence[Row], logits, xp):
    """Which tokens each row's constraint allows: (B, V) bool, or None where no row has one."""
    masks = [row.allowed() for row in rows]
    if all(mask is None for mask in masks):
        return None
    allowed = np.ones((len(rows), logits.shape[-1]), dtype=bool)
    for b, mask in enumerate(masks):
        if mask is not None:
            allowed[b] = mask
    return xp.from_numpy(allowed)


def _judged(chosen: Chosen, logits, xp) -> Chosen:
    """The tokens with their log-probabilities, where rows ask for them."""
    wanted = [(b, row.request.logprobs) for b, row in enumerate(chosen.rows) if row.request.logprobs is not None]
    if not wanted:
        return chosen
    asked = tuple(b for b, _ in wanted)
    places = xp.asarray(list(asked), dtype=xp.int32)
    p = log_softmax(xp.take(logits, places, axis=0))
    tokens = xp.take(chosen.tokens, places, axis=0)[:, None]
    ids, theirs = likeliest(p, max(1, *(n for _, n in wanted)))
    logprobs = xp.take_along_axis(p, xp.maximum(tokens, xp.zeros_like(tokens)), axis=-1)[:, 0]  # −1 stands for no token
    return chosen._replace(asked=asked, logprobs=logprobs, ids=ids, theirs=theirs)
