"""Decoding from the cache, whatever becomes of it, held to the oracle's logits without one: law 2 of the design.

A drawn story reads tokens in chunks, into blocks of any size, and between the chunks takes rows in another order, takes positions
back, puts another sequence in a row's place, empties one, and goes on with one of two forks while the other writes noise.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.decoding.cache import new_cache
from refllm.layers.cache_rows import expand, join, take_rows, vacate
from refllm.layers.kv_cache import KVCache, fork, rewind
from refllm.models import architecture
from refllm.models.model import Model

from . import bounded
from .check import Check
from .model_checks import MODELS, WIDE_ONLY, decided, parameters
from .strategies import integers

ROOM = 16  # positions, which are the models' max_positions too
History = tuple[int, ...]  # the tokens that a row has read


class Read(NamedTuple):
    """Read one chunk of tokens: these logits are results."""

    tokens: Any  # (B, T) int32
    valid: Any  # (B, T) bool or None


class Take(NamedTuple):
    """Go on with these rows."""

    rows: tuple[int, ...]


class Expand(NamedTuple):
    """Make so many rows of one."""

    rows: int


class Rewind(NamedTuple):
    """Take so many positions back."""

    positions: int


class Join(NamedTuple):
    """Put another sequence in a row's place."""

    row: int
    tokens: Any  # (1, T) int32
    size: int  # of its blocks


class Vacate(NamedTuple):
    """Leave a row empty."""

    row: int


class Fork(NamedTuple):
    """Go on with one of two caches, after the other has taken positions back and read some noise in their place."""

    back: int  # positions
    noise: Any  # (B, T) int32
    first: bool  # whether the first goes on


class Story(NamedTuple):
    """A model, a cache, and what happens to it."""

    config: Any
    params: dict[str, Any]
    rows: int  # at first
    size: int  # of a block
    slack: int
    steps: tuple
    histories: tuple[tuple[History, ...], ...]  # what each row has read, after each Read


@st.composite
def _story(draw, name, configs):
    config = draw(configs)
    size, slack, B = draw(st.sampled_from([1, 2, 3, ROOM])), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    steps, read = [], []
    rows: list[History] = [()] * B
    length = highest = 0  # positions written; the most that ever were

    def tokens(n, T):
        return draw(integers((n, T), 0, config.vocab_size))

    def reads(T, padding=None):
        nonlocal rows, length, highest
        chunk = tokens(len(rows), T)
        valid = None if padding is None else np.arange(T)[None, :] >= np.asarray(padding)[:, None]
        rows = [
            (*row, *(int(t) for i, t in enumerate(new) if padding is None or i >= padding[b]))
            for b, (row, new) in enumerate(zip(rows, chunk, strict=True))
        ]
        length, highest = length + T, max(highest, length + T)
        steps.append(Read(chunk, valid))
        read.append(tuple(rows))

    def farthest():
        """How many positions can be taken back."""
        kept = slack - (highest - length) if getattr(config, "window", None) is not None else ROOM
        return max(0, min([kept, *map(len, rows)]))

    T = draw(st.integers(1, 5))
    reads(T, [0, *draw(st.lists(st.integers(0, T - 1), min_size=B - 1, max_size=B - 1))] if draw(st.booleans()) else None)
    if B == 1 and draw(st.booleans()):
        steps.append(Expand(2))
        rows = rows * 2
    for kind in draw(st.lists(st.sampled_from([None, Take, Rewind, Join, Vacate, Fork]), min_size=1, max_size=4)):
        b = draw(st.integers(0, len(rows) - 1))
        if kind is Take:
            order = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3))
            steps.append(Take(tuple(order)))
            rows = [rows[i] for i in order]
        elif kind is Rewind:
            back = draw(st.integers(0, farthest()))
            steps.append(Rewind(back))
            rows, length = [row[: len(row) - back] for row in rows], length - back
        elif kind is Join:
            new = tokens(1, draw(st.integers(1, 4)))
            steps.append(Join(b, new, draw(st.integers(1, 4))))
            rows[b] = tuple(new[0].tolist())
        elif kind is Vacate:
            steps.append(Vacate(b))
            rows[b] = ()
        elif kind is Fork:
            steps.append(Fork(draw(st.integers(0, farthest())), tokens(len(rows), draw(st.integers(1, 2))), draw(st.booleans())))
        reads(draw(st.sampled_from([1, 1, 2])))
    params = draw(parameters(name, config))
    for history in longest(read):
        assume(decided(name, config, params, np.asarray([history], dtype=np.int32)))
    return Story(config, params, B, size, slack, tuple(steps), tuple(read))


def longest(histories) -> list[History]:
    """Of all histories those that no other one continues: their logits are those of all."""
    every = sorted({history for rows in histories for history in rows}, key=len, reverse=True)
    kept: list[History] = []
    for history in every:
        if not any(other[: len(history)] == history for other in kept):
            kept.append(history)
    return kept


def _whole(module, story: Story, xp) -> dict[str, Any]:
    """The logits of every chunk's last tokens, each row by itself and without a cache."""
    logits: dict[History, Any] = {}
    for history in longest(story.histories):
        y = module.forward(story.params, xp.from_numpy(np.asarray([history], dtype=np.int32)), story.config).logits
        logits |= {history[:n]: y[0, n - 1, :] for n in range(1, len(history) + 1)}
    return {f"chunk {i}": xp.stack([logits[row] for row in rows]) for i, rows in enumerate(story.histories)}


def _cached(module, story: Story) -> dict[str, Any]:
    """The same from a cache that goes through the story."""
    model = Model(module, story.config, story.params)
    cache = new_cache(model, story.rows, ROOM, size=story.size, slack=story.slack)
    results: dict[str, Any] = {}
    for step in story.steps:
        if isinstance(step, Read):
            output = module.forward(story.params, step.tokens, story.config, cache, valid=step.valid, last=1)
            cache = output.cache
            results[f"chunk {len(results)}"] = output.logits[:, -1, :]
        else:
            cache = _changed(model, cache, step)
    return results


def _changed(model: Model, cache: KVCache, step) -> KVCache:
    """The cache after one step of a story that reads nothing."""
    module, params, config = model.architecture, model.params, model.config
    if isinstance(step, Take):
        return take_rows(cache, list(step.rows))
    if isinstance(step, Expand):
        return expand(cache, step.rows)
    if isinstance(step, Rewind):
        return rewind(cache, cache.length - step.positions)
    if isinstance(step, Vacate):
        return vacate(cache, step.row)
    if isinstance(step, Join):
        single = new_cache(model, 1, ROOM, size=step.size)
        return join(cache, step.row, module.forward(params, step.tokens, config, single).cache)
    ours, other = fork(cache) if step.first else fork(cache)[::-1]
    module.forward(params, step.noise, config, rewind(other, other.length - step.back))
    return ours


def _decode(name):
    module = architecture(name)

    def compute(backend: Backend, story: Story):
        return _whole(module, story, backend.xp) if backend is bounded.backend else _cached(module, story)

    return compute


CHECKS = [
    Check(f"{name}: cached decoding", "decoding", _story(name, configs), _decode(name), halves=name not in WIDE_ONLY, whole=True)
    for name, configs in MODELS.items()
]
