"""Text, token by token: the prompt at once (prefill), then one position a step from the cache (decode).

A chosen token stays on the device and is fed to the next step before the host reads it. So a backend that computes while
Python goes on is never kept waiting, and one that does not loses nothing.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding.cache import new_cache
from refllm.decoding.fit import fit
from refllm.decoding.memory import remember
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import sample, uniforms
from refllm.layers.kv_cache import KVCache
from refllm.models.model import Model, check_ids


class Step(NamedTuple):
    """What one step of generation yields."""

    tokens: np.ndarray  # (B,) int32, −1 for a row that has stopped before
    seconds: float  # spent on it; the first step's is the time to the first token, prefill included


def prefill(model: Model, tokens, cache: KVCache, valid=None, chunk: int | None = None):
    """Read tokens: (B, T). Returns the logits of the token after the last: (B, V), and the cache.

    valid: (B, T) bool, False for padding, which stands at the left. The cache given must not be used again.
    chunk: so many positions at a time, see `chunk_within`; None: all at once
    A long prompt may be read in several calls too.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk} reads nothing of a prompt; it must be at least 1.")
    while chunk is not None and tokens.shape[1] > chunk:
        _, cache = prefill(model, tokens[:, :chunk], cache, None if valid is None else valid[:, :chunk])
        tokens, valid = tokens[:, chunk:], None if valid is None else valid[:, chunk:]
    output = model.architecture.forward(model.params, tokens, model.config, cache, valid=valid, last=1)
    return output.logits[:, -1, :], output.cache


def decode(model: Model, token, cache: KVCache):
    """Read one more token per row: (B, 1). Returns the logits of the next: (B, V), and the cache."""
    output = model.architecture.forward(model.params, token, model.config, cache)
    return output.logits[:, -1, :], output.cache


def check_continues(model: Model) -> None:
    """Raise ValueError for a model that sees what follows a token: it has no guess of the next."""
    if not getattr(model.architecture, "AUTOREGRESSIVE", True):
        name = model.architecture.__name__.rpartition(".")[2]
        raise ValueError(f"{name} is a masked model: it fills in hidden tokens (refllm fill) and does not continue a text.")


def generate(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    seed: int,
    stop: Collection[int] = (),
    *,
    overflow: str = "error",
) -> Iterator[Step]:
    """Continue one prompt, or several side by side, by up to n_tokens each.

    prompts: token ids, or one list of ids per row; shorter rows are padded at the left
    stop: ids after which a row ends; the id itself is yielded. When every row has ended, so does the iterator.
    overflow: what happens to a prompt that is too long, see `fit`
    Raises ValueError, at once, for a model that cannot continue a text, an empty prompt, an id outside the vocabulary, or more
    tokens than the context holds; and while it runs, if the logits stop being numbers.
    """
    check_continues(model)
    one = len(prompts) == 0 or isinstance(prompts[0], int | np.integer)
    given: Sequence[Any] = [prompts] if one else prompts
    rows = [fit(row, n_tokens, model.config.max_positions, overflow)[0] for row in given]
    ids, valid = pad_left(rows)
    check_ids(ids, "the prompt", model.config.vocab_size)
    return _steps(model, ids, None if valid.all() else valid, n_tokens, sampler, seed, np.asarray(list(stop), dtype=np.int32))


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids as one array, (B, T) int32, and which of it are tokens, (B, T) bool; padding is 0, at the left."""
    T = max(map(len, rows))
    ids = np.zeros((len(rows), T), dtype=np.int64)
    valid = np.zeros((len(rows), T), dtype=bool)
    for b, row in enumerate(rows):
        ids[b, T - len(row) :] = row
        valid[b, T - len(row) :] = True
    return ids.astype(np.int32), valid


def _steps(model: Model, ids, valid, n_tokens: int, sampler: Sampler, seed: int, stop) -> Iterator[Step]:
    backend, xp, (B, T) = model.backend, model.backend.xp, ids.shape

    def choose(logits, step: int, memory) -> Any:
        numbers = None if sampler.temperature == 0 else xp.from_numpy(uniforms(seed, step, B, sampler.draws))
        return sample(logits, numbers, sampler, memory)

    def follow(token, cache, step: int, memory):
        logits, cache = decode(model, token[:, None], cache)
        token, memory = choose(logits, step, memory)
        return token, cache, memory

    began = time.perf_counter()
    cache = new_cache(model, B, T + n_tokens - 1)  # the last token is never read back
    logits, cache = prefill(model, xp.from_numpy(ids), cache, None if valid is None else xp.from_numpy(valid))
    token, memory = choose(logits, 0, remember(sampler, ids, valid, xp, model.config.vocab_size))
    xp.async_evaluate(token)
    ended = np.zeros(B, dtype=bool)
    for step in range(1, n_tokens + 1):
        following = None
        if backend.asynchronous and step < n_tokens:
            following, cache, memory = follow(token, cache, step, memory)
            xp.async_evaluate(following)  # only now, when nothing else refers to the old cache, may its buffers be reused
        tokens = xp.to_numpy(token)
        if ((tokens < 0) & ~ended).any():
            raise ValueError(f"the logits of token {step} are not finite numbers: the model's weights or activations overflow.")
        if stop.size:
            tokens = np.where(ended, np.int32(-1), tokens)
            ended = ended | (tokens[:, None] == stop).any(axis=1)
        yield Step(tokens, time.perf_counter() - began)
        began = time.perf_counter()
        if ended.all():
            return
        if following is None and step < n_tokens:
            following, cache, memory = follow(token, cache, step, memory)
        token = following
