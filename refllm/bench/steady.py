"""Whether writing goes on as it began: a long text through a sliding window, in stretches of equal length, each by its time,
memory and cache."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from refllm.bench import memory
from refllm.bench.shapes import SEED, Shape
from refllm.decoding import decode, new_cache, prefill
from refllm.decoding.sampling import greedy
from refllm.layers.kv_cache import KVCache, n_bytes
from refllm.models.model import Model


class Stretch(NamedTuple):
    """Some tokens on end."""

    tokens: int  # written so far, these included
    seconds: float  # a token, on average
    peak_bytes: int  # the most that the process held meanwhile; since its start where the system cannot count anew
    cache_bytes: int  # at their end
    cache_arrays: int  # likewise


def windowed(shape: Shape, window: int, n_tokens: int, backend: Any = None) -> Model:
    """A model of a shape with random weights, whose queries see a window, with room for a text of n_tokens."""
    config = replace(shape.config, window=window, max_positions=n_tokens + 1)
    return Model.initialise(shape.architecture, config, SEED, backend)


def steady(model: Model, n_tokens: int, stretch: int = 1000) -> Iterator[Stretch]:
    """Write n_tokens greedily behind one token, and tell about each stretch of them when it is over.

    Every token is read by the host, as where a text is shown. Raises ValueError where less than a stretch is asked for.
    """
    if not 1 <= stretch <= n_tokens:
        raise ValueError(f"n_tokens={n_tokens} holds no stretch of {stretch} tokens; ask for as many at least.")
    xp = model.backend.xp
    logits, cache = prefill(model, model.tokens([[0]]), new_cache(model, 1, n_tokens + 1))
    for end in range(stretch, n_tokens + 1, stretch):
        memory.forget_peak()
        began = time.perf_counter()
        for _ in range(stretch):
            token = greedy(logits)
            xp.to_numpy(token)
            logits, cache = decode(model, token[:, None], cache)
        xp.evaluate(logits)
        yield Stretch(end, (time.perf_counter() - began) / stretch, memory.peak(), n_bytes(cache), n_arrays(cache))


def n_arrays(cache: KVCache) -> int:
    """How many blocks of keys and of values a cache has, in use and spare."""
    return sum(len(held.keys) + len(held.values) + 2 * len(held.spare) for held in cache.layers)
