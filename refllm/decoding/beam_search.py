"""Beam search: the n best beginnings go on side by side (Graves 2012, arXiv:1211.3711), in groups that avoid one another's
tokens (Vijayakumar 2016, arXiv:1610.02424, algorithm 1).

    score(x) = Σ_t log p(x_t | x before t) / T^α,   α the length penalty (after Wu 2016, arXiv:1609.08144, equation 14)

The prompt is read once, and beams share the blocks of the cache that they have in common. Which continuations are best is
decided on the host, in float64.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np

from refllm.decoding.cache import new_cache
from refllm.decoding.fit import fit
from refllm.decoding.generate import check_continues, decode, prefill
from refllm.decoding.logprobs import log_softmax
from refllm.layers.cache_rows import take_rows
from refllm.models.model import Model, check_ids

STOPPINGS = ("enough", "likely", "certain")


@dataclass(frozen=True)
class Beams:
    """How a text is searched for."""

    n: int  # beams of all groups together
    length_penalty: float = 1.0  # α: 0 compares probabilities; the larger, the longer the texts
    stopping: Literal["enough", "likely", "certain"] = "likely"  # when n are finished: at once, or when none better may come
    groups: int = 1
    diversity: float = 0.0  # nats taken from a token for each time that an earlier group chose it at the same step
    n_best: int = 1  # texts to return

    def __post_init__(self) -> None:
        if self.n < 1 or self.groups < 1 or self.n % self.groups:
            raise ValueError(f"n={self.n} beams in groups={self.groups} groups cannot be; groups must divide n, both at least 1.")
        if not 1 <= self.n_best <= self.n:
            raise ValueError(f"n_best={self.n_best} texts cannot come of n={self.n} beams; ask for 1 … {self.n}.")
        if not isfinite(self.length_penalty):
            raise ValueError(f"length_penalty={self.length_penalty} must be a finite number.")
        if self.stopping not in STOPPINGS:
            raise ValueError(f"stopping={self.stopping!r} is not a rule to stop by; choose one of {', '.join(STOPPINGS)}.")
        if not 0 <= self.diversity < float("inf"):
            raise ValueError(f"diversity={self.diversity} must be 0 or a positive number of nats.")
        if self.diversity and self.groups == 1:
            raise ValueError(f"diversity={self.diversity} sets groups apart, and there is one; ask for groups=2 or more.")


class Hypothesis(NamedTuple):
    """A text that was found."""

    tokens: tuple[int, ...]  # behind the prompt, its end token included
    logprob: float  # Σ log p, in nats
    score: float  # the same less the group's penalties, over the length to the power of the length penalty


class Beam(NamedTuple):
    """A beginning of a text."""

    tokens: tuple[int, ...]
    logprob: float
    penalty: float  # taken for diversity so far, in nats
    row: int  # of the cache, before its last token

    @property
    def sum(self) -> float:
        """What beams are compared by, in nats."""
        return self.logprob - self.penalty


class Group(NamedTuple):
    """Beams that are chosen together."""

    beams: tuple[Beam, ...]  # the best first
    finished: tuple[Hypothesis, ...] = ()  # the best first
    done: bool = False
    chosen: tuple[int, ...] = ()  # the last tokens of its best continuations at this step, ended or not


def beam_search(model: Model, prompt: Sequence[int], n_tokens: int, beams: Beams, stop: Collection[int] = ()) -> list[Hypothesis]:
    """The best continuations of a prompt, by up to n_tokens each, the best first: `n_best` of them, or fewer if no more exist.

    stop: ids that end a text
    Raises ValueError as `generate` does.
    """
    check_continues(model)
    ids, n_tokens = fit(prompt, n_tokens, model.config.max_positions)
    check_ids(np.asarray(ids), "the prompt", model.config.vocab_size)
    xp, ends = model.backend.xp, frozenset(stop)
    cache = new_cache(model, 1, len(ids) + n_tokens - 1)  # the last token is never read back
    logits, cache = prefill(model, model.tokens([ids]), cache)
    groups = [Group((Beam((), 0.0, 0.0, 0),))] * beams.groups
    for length in range(1, n_tokens + 1):
        logprobs = xp.to_numpy(log_softmax(logits)).astype(np.float64)  # (rows, V)
        if np.any(np.isnan(logprobs)):
            raise ValueError(f"the logits of token {length} are not finite numbers: the model's weights or activations overflow.")
        groups = one_step(groups, logprobs, beams, ends, length, n_tokens)
        running = [beam for group in groups if not group.done for beam in group.beams]
        if not running:
            break
        cache = take_rows(cache, [beam.row for beam in running])
        logits, cache = decode(model, model.tokens([[beam.tokens[-1]] for beam in running]), cache)
        groups = with_rows(groups)
    finished = [text for group in groups for text in group.finished]
    return sorted(finished, key=lambda text: -text.score)[: beams.n_best]


def one_step(groups: list[Group], logprobs, beams: Beams, ends: frozenset[int], length: int, n_tokens: int) -> list[Group]:
    """Every group one token further, the earlier before the later. logprobs: (rows, V), of the token after each beam"""
    chosen, after = np.zeros(logprobs.shape[1]), []
    for group in groups:
        if not group.done:
            group = continued(group, logprobs, beams, beams.diversity * chosen, ends, length, n_tokens)
            np.add.at(chosen, list(group.chosen), 1)
        after.append(group)
    return after


def continued(group: Group, logprobs, beams: Beams, penalties, ends: frozenset[int], length: int, n_tokens: int) -> Group:
    """A group one token further. penalties: (V,), in nats"""
    n = beams.n // beams.groups
    candidates = best_continuations(group.beams, logprobs, penalties, n * (1 + len(ends)))  # n at least do not end
    ending = [length == n_tokens or beam.tokens[-1] in ends for beam in candidates]
    found = [finish(beam, beams.length_penalty) for beam, end in zip(candidates[:n], ending, strict=False) if end]
    finished = sorted((*group.finished, *found), key=lambda text: -text.score)[:n]
    running = [beam for beam, end in zip(candidates, ending, strict=True) if not end][:n]
    done = not running or (len(finished) == n and nothing_to_gain(running[0], finished[-1], beams, length, n_tokens))
    return Group(tuple(running), tuple(finished), done, tuple(beam.tokens[-1] for beam in candidates[:n]))


def best_continuations(beams: Sequence[Beam], logprobs, penalties, n: int) -> list[Beam]:
    """The n best of all beams with all tokens, best first; among equals the earlier beam, then the lower id."""
    before = np.array([beam.sum for beam in beams])
    sums = (before[:, None] + logprobs[[beam.row for beam in beams]] - penalties).reshape(-1)
    n = min(n, int(np.count_nonzero(sums > -np.inf)))
    likely = np.flatnonzero(sums >= np.partition(sums, -n)[-n]) if n else np.zeros(0, dtype=int)
    best = likely[np.argsort(-sums[likely], kind="stable")][:n]
    V = logprobs.shape[1]
    return [continuation(beams[i // V], i % V, logprobs, penalties) for i in best.tolist()]


def continuation(beam: Beam, token: int, logprobs, penalties) -> Beam:
    """A beam with one more token."""
    logprob, penalty = float(logprobs[beam.row, token]), float(penalties[token])
    return Beam((*beam.tokens, token), beam.logprob + logprob, beam.penalty + penalty, beam.row)


def finish(beam: Beam, length_penalty: float) -> Hypothesis:
    """A beam as a whole text."""
    return Hypothesis(beam.tokens, beam.logprob, beam.sum / len(beam.tokens) ** length_penalty)


def nothing_to_gain(best: Beam, worst: Hypothesis, beams: Beams, length: int, n_tokens: int) -> bool:
    """Whether the search ends, given its best beam and the worst of as many finished texts as there may be."""
    if beams.stopping == "enough":
        return True
    reach = n_tokens if beams.stopping == "certain" and beams.length_penalty > 0 else length
    return best.sum / reach**beams.length_penalty <= worst.score


def with_rows(groups: list[Group]) -> list[Group]:
    """The groups, each beam with the row that it now has: they stand in the cache one after the other."""
    row, placed = 0, []
    for group in groups:
        if not group.done:
            group = group._replace(beams=tuple(beam._replace(row=row + i) for i, beam in enumerate(group.beams)))
            row += len(group.beams)
        placed.append(group)
    return placed
