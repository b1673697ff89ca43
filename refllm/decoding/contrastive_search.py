"""Contrastive search: of the k likeliest tokens the one that is likely and unlike what came before (Su 2022,
arXiv:2202.06417, equation 5).

    token = argmax_{v in the k likeliest}  (1 − α) · p(v) − α · max_j cos(h_v, h_j)

h are the features that the head turns into logits. The candidates are read as k rows that share the blocks of the text so far,
and the row of the one chosen goes on.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from refllm.array_api import namespace
from refllm.decoding.cache import new_cache
from refllm.decoding.fit import fit
from refllm.decoding.generate import check_continues
from refllm.decoding.logprobs import likeliest, log_softmax
from refllm.layers.cache_rows import expand, take_rows
from refllm.layers.precision import widen
from refllm.models.model import Model

CHUNK = 64  # positions of the prompt read at once, since logits of all of them are computed beside their features
TINY = 1e-30  # below the square of any length that features have


@dataclass(frozen=True)
class Contrast:
    """How tokens are weighed."""

    k: int  # candidates at each step
    alpha: float  # weight of the penalty against that of the probability, 0 … 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} leaves no candidate; it must be at least 1.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} is not a weight; it must be from 0 to 1.")


class Choice(NamedTuple):
    """A token that was chosen."""

    token: int
    logprob: float  # nats
    score: float  # by which it was chosen
    seconds: float  # spent on it; the first's is the time to the first token, prefill included


def contrastive_search(
    model: Model, prompt: Sequence[int], n_tokens: int, contrast: Contrast, stop: Collection[int] = ()
) -> Iterator[Choice]:
    """Continue a prompt by up to n_tokens, or until one of the ids in `stop`, which is yielded too.

    Raises ValueError as `generate` does, and for more candidates than the vocabulary has tokens.
    """
    check_continues(model)
    ids, n_tokens = fit(prompt, n_tokens, model.config.max_positions)
    tokens = model.tokens([ids])
    if contrast.k > model.config.vocab_size:
        raise ValueError(f"k={contrast.k} candidates are more than the vocabulary of {model.config.vocab_size} tokens.")
    return _choices(model, tokens, n_tokens, contrast, frozenset(stop))


def _choices(model: Model, prompt, n_tokens: int, contrast: Contrast, stop: frozenset[int]) -> Iterator[Choice]:
    began, xp = time.perf_counter(), model.backend.xp
    logits, seen, cache = _read_prompt(model, prompt, prompt.shape[1] + n_tokens)
    for step in range(n_tokens):
        logprobs, T = log_softmax(logits), prompt.shape[1] + step
        candidates, known = likeliest(logprobs, contrast.k)  # (1, k)
        tokens = xp.astype(xp.reshape(candidates, (contrast.k, 1)), xp.int32)
        output = model.architecture.forward(model.params, tokens, model.config, expand(cache, contrast.k))
        features = directions(output.features[:, -1, :])  # (k, D)
        scores = weighed(known[0, :], features, seen[:T, :], contrast.alpha)
        best = xp.argmax(scores, axis=0, keepdims=True)  # (1,), the likelier among equals
        told = xp.stack([xp.take(x, best, axis=0)[0] for x in (known[0, :], scores)], axis=0)
        token, (logprob, score) = int(xp.to_numpy(xp.take(candidates[0, :], best, axis=0))[0]), xp.to_numpy(told).tolist()
        if logprob != logprob:
            raise ValueError(
                f"the logits of token {step + 1} are not finite numbers: the model's weights or activations overflow."
            )
        yield Choice(token, logprob, score, time.perf_counter() - began)
        if token in stop:
            return
        began = time.perf_counter()
        cache = take_rows(output.cache, xp.astype(best, xp.int32))
        logits = xp.take(output.logits[:, -1, :], best, axis=0)
        seen = xp.write(seen, T, xp.take(features, best, axis=0), axis=0)


def _read_prompt(model: Model, prompt, room: int):
    """The logits (1, V) of the next token, the directions of all features so far in a buffer (room, D), and the cache."""
    xp, cache, read = model.backend.xp, new_cache(model, 1, room), []
    for start in range(0, prompt.shape[1], CHUNK):
        tokens = prompt[:, start : min(start + CHUNK, prompt.shape[1])]
        output = model.architecture.forward(model.params, tokens, model.config, cache)
        cache = output.cache
        read.append(directions(output.features[0, :, :]))
    known = xp.concat(read, axis=0)  # (T, D)
    seen = xp.write(xp.zeros((room, known.shape[1]), dtype=known.dtype), 0, known, axis=0)
    return output.logits[:, -1, :], seen, cache


def directions(features):
    """features: (..., D) at length one, in float32 at least; those of length zero stay."""
    xp = namespace(features)
    wide = widen(features)
    return wide * xp.rsqrt(xp.maximum(xp.sum(wide * wide, axis=-1, keepdims=True), xp.asarray(TINY, dtype=wide.dtype)))


def weighed(logprobs, features, seen, alpha: float):
    """Equation 5: (k,). logprobs: (k,)    features: (k, D) of the candidates, seen: (T, D) of the text, at length one"""
    xp = namespace(logprobs)
    alike = xp.max(features @ xp.matrix_transpose(seen), axis=-1)  # (k,)
    return (1 - alpha) * xp.exp(logprobs) - alpha * xp.astype(alike, logprobs.dtype)
