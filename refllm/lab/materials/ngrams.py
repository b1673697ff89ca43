"""A batch of texts under one n-gram model (`refllm.models.ngram`): their states, the probabilities of the next token, samples.

The state of a text is the m-grams that it ends in, m = 0 … order − 1, each by its number in the model. It gives the probabilities
of all next tokens, for every text at once, and the state after any of them.
"""

from typing import NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.models.ngram import Counts, Level, NGram, smooth


class Sample(NamedTuple):
    """Texts drawn from a model."""

    tokens: np.ndarray  # (B, T) uint8
    surprise: float  # nats per token under the model itself: an estimate of its entropy


def shortened(counts: Counts, order: int) -> NGram:
    """The model of a lower order, from counts that were made for a higher one; of a stream without sentences."""
    return smooth(
        Counts(
            counts.vocab_size,
            counts.begin,
            counts.keys[:order],
            counts.occurrences[:order],
            (*counts.counts[: order - 1], counts.occurrences[order - 1]),
        )
    )


def entries(model: NGram) -> int:
    """How many n-grams its table holds, of all orders."""
    return sum(level.keys.size - 1 for level in model.levels)


def start(model: NGram, rows: int) -> np.ndarray:
    """The state of empty texts: (rows, order) int64, the number of the m-gram that each ends in; −1 for none."""
    state = np.full((rows, len(model.levels)), -1, np.int64)
    state[:, 0] = 0
    return state


def read(model: NGram, state: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The state of the texts after one more token each, tokens (rows,): (rows, order) int64."""
    columns = [np.zeros(len(state), np.int64)]
    for n, level in enumerate(model.levels[:-1]):
        wanted = state[:, n] * model.vocab_size + tokens  # negative, so not to be found, where there is none
        place = np.searchsorted(level.keys, wanted)
        columns.append(np.where(level.keys[place] == wanted, place, -1))
    return np.stack(columns, axis=1)


def distributions(model: NGram, state: np.ndarray) -> np.ndarray:
    """The probability of every next token of each text: (rows, V) float64. Equal to `ngram.distribution`, row by row."""
    p = np.full((len(state), model.vocab_size), 1 / model.vocab_size)
    for n, level in enumerate(model.levels):
        row, token, share = _followers(level, state[:, n], model.vocab_size)
        p = level.backoffs[state[:, n]][:, None] * p
        p[row, token] += share  # no pair of row and token is there twice
    return p


def predictions(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """The probabilities after each token of windows (B, T), given those before it in its window: (B, T, V) float64."""
    state, found = start(model, len(tokens)), []
    for column in tokens.T:
        state = read(model, state, column)
        found.append(distributions(model, state))
    return np.stack(found, axis=1)


def sample(model: NGram, rows: int, length: int, seed: int, step: int = 0) -> Sample:
    """Sample texts of `length` tokens, each without a prompt. seed and step address the random numbers."""
    uniforms = generator(seed, "ngram sample", step).random((length, rows))
    state, tokens, surprise = start(model, rows), [], 0.0
    for u in uniforms:
        p = distributions(model, state)
        below = np.cumsum(p, axis=1)
        token = np.minimum(np.sum(below <= u[:, None], axis=1), model.vocab_size - 1)  # rounding may leave the sum below u
        surprise -= float(np.sum(np.log(p[np.arange(rows), token])))
        state = read(model, state, token)
        tokens.append(token.astype(np.uint8))
    return Sample(np.stack(tokens, axis=1), surprise / (rows * length))


def _followers(level: Level, histories: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n-grams that begin with each history (rows,): their history's row, last token and share, (n,) each."""
    begins = np.searchsorted(level.keys, histories * vocab_size)
    sizes = np.searchsorted(level.keys, (histories + 1) * vocab_size) - begins
    row = np.repeat(np.arange(len(histories)), sizes)
    place = np.arange(sizes.sum()) + np.repeat(begins - np.cumsum(sizes) + sizes, sizes)
    return row, level.keys[place] - histories[row] * vocab_size, level.shares[place]
