"""Models that foresee texts character by character, for a coder and for its decoder: the same numbers for both, to the bit.

What a text costs is found on another way than the forecasts: in one pass over all of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import load
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import decode
from refllm.decoding.logprobs import log_softmax
from refllm.evaluation.likelihood import token_log_probabilities
from refllm.lab import ngrams, text_models
from refllm.lab.arithmetic_coder import Decoder, Encoder, frequencies
from refllm.lab.learn import learn
from refllm.lab.sweep import config_of
from refllm.models import architecture, ngram
from refllm.models.model import Model

Forecast = Callable[[np.ndarray], np.ndarray]  # told the characters read last (R,), the probabilities of the next (R, V)


class Forecaster(NamedTuple):
    """A model that has learned."""

    begin: Callable[[int], Forecast]  # forecasts of so many texts side by side, none of which has begun
    nats: Callable[[np.ndarray], np.ndarray]  # ids (R, 1 + T) -> what each of the T costs, (R, T)


def transformer(ids_at: Callable[[int], np.ndarray], vocab_size: int, steps: int, width: int, seed: int) -> Forecaster:
    """Train a small Llama. ids_at: the texts of a step, (R, 1 + T) int32"""
    rows, length = ids_at(0)[:, 1:].shape
    config = config_of(width, vocab_size, length)

    def batch_at(step: int) -> Any:
        ids = ids_at(step)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    training = text_models.training(width, steps, rows, length, seed)
    (snapshot,) = learn(text_models.ARCHITECTURE, config, training, batch_at, [steps])
    return forecaster_of(Model(architecture(text_models.ARCHITECTURE), config, snapshot.averaged))


def forecaster_of(model: Model) -> Forecaster:
    """Forecasts from a model's cache, and costs from one pass."""

    def begin(rows: int) -> Forecast:
        xp, cache = load().xp, new_cache(model, rows, model.config.max_positions)

        def forecast(last: np.ndarray) -> np.ndarray:
            nonlocal cache
            logits, cache = decode(model, xp.from_numpy(last.astype(np.int32)[:, None]), cache)
            return np.exp(xp.to_numpy(log_softmax(logits)).astype(np.float64))

        return forecast

    return Forecaster(begin, lambda ids: -token_log_probabilities(model, ids))


def counted(ids_at: Callable[[int], np.ndarray], vocab_size: int, steps: int, order: int) -> Forecaster:
    """Count n-grams in the texts of as many steps. ids_at: the texts of a step, (R, 1 + T) int32"""
    model = ngram.train(np.concatenate([ids_at(step).reshape(-1) for step in range(steps)]), order, vocab_size)

    def begin(rows: int) -> Forecast:
        state = ngrams.start(model, rows)

        def forecast(last: np.ndarray) -> np.ndarray:
            nonlocal state
            state = ngrams.read(model, state, last)
            return ngrams.distributions(model, state)

        return forecast

    def nats(ids: np.ndarray) -> np.ndarray:
        return np.stack([-ngram.log_probabilities(model, row[1:], row[:1]) for row in ids])

    return Forecaster(begin, nats)


def encoded(ids: np.ndarray, forecast: Forecast) -> tuple[bytes, int]:
    """The code of texts (R, 1 + T) side by side but for their first characters, and its length in bits."""
    encoder = Encoder()
    for t in range(1, ids.shape[1]):
        for symbol, row in zip(ids[:, t].tolist(), np.cumsum(frequencies(forecast(ids[:, t - 1])), axis=1), strict=True):
            encoder.write(symbol, row)
    return encoder.finish(), len(encoder.bits)


def decoded(code: bytes, first: np.ndarray, length: int, forecast: Forecast) -> np.ndarray:
    """The texts of a code, (R, 1 + length), given their first characters (R,)."""
    decoder, columns = Decoder(code), [first]
    for _ in range(length):
        rows = np.cumsum(frequencies(forecast(columns[-1])), axis=1)
        columns.append(np.array([decoder.read(row) for row in rows], dtype=first.dtype))
    return np.stack(columns, axis=1)
