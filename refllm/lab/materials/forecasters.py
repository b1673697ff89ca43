"""Models that predict texts token by token, and the arithmetic code of texts by their predictions.

Encoder and decoder must see the same probabilities to the last bit, so both get them one step at a time (`Forecast`). The
cost of the texts is also computed in one pass over each (`Forecaster.nats`), as a check on the steps.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from refllm.decoding.cache import new_cache
from refllm.decoding.generate import decode
from refllm.decoding.logprobs import log_softmax
from refllm.evaluation.likelihood import check_causal, score_rows, split_tokens, tokenizer_of
from refllm.lab.materials import ngrams, text_models
from refllm.lab.materials.arithmetic_coder import Decoder, Encoder, frequencies
from refllm.lab.materials.text_models import config_of
from refllm.lab.running.learn import learn
from refllm.models import architecture, ngram
from refllm.models.model import Model

Rows = Sequence[Sequence[int]]  # token ids of texts, of any lengths; the first token of each is given, the others are predicted
Ids = Callable[[str], list[int]]  # a text to its tokens, preceded by the one that begins every text
Forecast = Callable[[np.ndarray], np.ndarray]  # the last token of each text (R,) to the probabilities of the next (R, V) float64


class Forecaster(NamedTuple):
    """A model of texts."""

    begin: Callable[[int, int], Forecast]  # predictions for R texts side by side, from their first token, of at most T each
    nats: Callable[[Rows], list[np.ndarray]]  # −ln p of each token of the texts but the first, (T,) float64 for each text
    ids: Ids
    vocab_size: int


def transformer(
    rows_at: Callable[[int], Rows], ids: Ids, vocab_size: int, *, length: int, steps: int, width: int, seed: int
) -> Forecaster:
    """A small Llama, trained. rows_at: the texts of a step, of at most 1 + length tokens"""
    config = config_of(width, vocab_size, length)
    training = text_models.training(width, steps, len(rows_at(0)), length, seed)
    (snapshot,) = learn(text_models.ARCHITECTURE, config, training, lambda step: batch(rows_at(step), length), [steps])
    return forecaster_of(Model(architecture(text_models.ARCHITECTURE), config, snapshot.averaged), ids)


def batch(rows: Rows, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and their successors, (R, length) int32 each, padded as `text_models.padded` does."""
    return text_models.padded([(row[:-1], row[1:]) for row in rows], length)


def forecaster_of(model: Model, ids: Ids) -> Forecaster:
    """The forecaster of a model, which decodes with a cache."""

    def begin(rows: int, length: int) -> Forecast:
        xp, cache = model.backend.xp, new_cache(model, rows, length)

        def forecast(last: np.ndarray) -> np.ndarray:
            nonlocal cache
            logits, cache = decode(model, xp.from_numpy(last.astype(np.int32)[:, None]), cache)
            return np.exp(xp.to_numpy(log_softmax(logits)).astype(np.float64))

        return forecast

    def nats(rows: Rows) -> list[np.ndarray]:
        return [-scores.log_probabilities for scores in score_rows(model, rows, [len(row) - 1 for row in rows])]

    return Forecaster(begin, nats, ids, model.config.vocab_size)


def checkpoint(path: str) -> Forecaster:
    """The user's model with its own tokenizer, in float32: in half precision a cache and one pass differ by whole bits.

    Raises OSError where there is no such file, ValueError for a model that does not predict the next token, has no tokenizer or
    no token that begins a text.
    """
    from refllm.checkpoints import load as load_model

    model = load_model(path, dtype="float32")
    check_causal(model)
    tokenizer = tokenizer_of(model)
    if tokenizer.bos is None and tokenizer.eos is None:
        raise ValueError(f"the tokenizer of {path} has no token that begins or ends a document, to precede a text.")

    def ids(text: str) -> list[int]:
        before, after = split_tokens(tokenizer, "", text)
        room = model.config.max_positions
        if len(after) > room:
            raise ValueError(f"a text of {len(text)} characters is {len(after)} tokens; the model's context holds {room}.")
        return [*before, *after]

    return forecaster_of(model, ids)


def counted(rows_at: Callable[[int], Rows], ids: Ids, vocab_size: int, *, steps: int, order: int) -> Forecaster:
    """An n-gram model of the texts of all steps. rows_at: the texts of a step, of any lengths"""
    model = ngram.train(np.concatenate([row for step in range(steps) for row in rows_at(step)]), order, vocab_size)

    def begin(rows: int, length: int) -> Forecast:
        state = ngrams.start(model, rows)

        def forecast(last: np.ndarray) -> np.ndarray:
            nonlocal state
            state = ngrams.read(model, state, last)
            return ngrams.distributions(model, state)

        return forecast

    def nats(rows: Rows) -> list[np.ndarray]:
        return [-ngram.log_probabilities(model, row[1:], row[:1]) for row in rows]

    return Forecaster(begin, nats, ids, vocab_size)


def encoded(rows: Rows, forecaster: Forecaster) -> tuple[bytes, int, np.ndarray]:
    """The code of all texts but their first tokens, step by step; its length in bits; and p of each token coded, (n,) float64."""
    encoder, last, chosen = Encoder(), np.array([row[0] for row in rows]), []
    forecast = forecaster.begin(len(rows), max(map(len, rows)) - 1)
    for t in range(1, max(map(len, rows))):
        p = forecast(last)
        sums = np.cumsum(frequencies(p), axis=1)
        for i, row in enumerate(rows):
            if t < len(row):
                encoder.write(row[t], sums[i])
                chosen.append(p[i, row[t]])
                last[i] = row[t]
    return encoder.finish(), len(encoder.bits), np.array(chosen)


def decoded(code: bytes, first: Sequence[int], lengths: Sequence[int], forecaster: Forecaster) -> list[list[int]]:
    """The texts of a code, given the first token of each and how many it has in all."""
    decoder, last, rows = Decoder(code), np.array(first), [[token] for token in first]
    forecast = forecaster.begin(len(rows), max(lengths) - 1)
    for t in range(1, max(lengths)):
        sums = np.cumsum(frequencies(forecast(last)), axis=1)
        for i, row in enumerate(rows):
            if t < lengths[i]:
                row.append(decoder.read(sums[i]))
                last[i] = row[t]
    return rows
