"""An n-gram model in back-off form (Katz 1987), as ARPA files hold it: every n-gram that it keeps, with its probability.

    p(w | h) = p(hw) where hw is kept, else b(h) · p(w | h′)        h′ is h without its first; b(h) = 1 where h is not kept

Interpolated Kneser–Ney takes this form exactly, with b = γ, because a sum of both terms is stored where hw was seen.
Numbers are log10, as in ARPA files. Stupid backoff has the same form with scores that are no probabilities.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refllm.models.ngram import NGram, Tokens

LN10 = float(np.log(10))


class Table(NamedTuple):
    """The n-grams of each order, from 1 up, ascending; an n-gram's place is its number. Those of order 1 are all the ids.

    The key of an n-gram hw is number of h · V + w: every n-gram's history is kept too, and what follows a history is a run.
    """

    vocab_size: int
    begin: int | None  # the id that begins each sentence, which is never predicted
    keys: tuple[np.ndarray, ...]  # (n-grams,) int64
    scores: tuple[np.ndarray, ...]  # (n-grams,) log10 p(hw)
    weights: tuple[np.ndarray, ...]  # (n-grams,) log10 b, of every order but the highest
    absent: float = 0.0  # log10 b of a history that is not kept

    @property
    def order(self) -> int:
        """The n of the longest n-grams."""
        return len(self.keys)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams it keeps of each order."""
        return tuple(keys.size for keys in self.keys)


def log10(x: np.ndarray) -> np.ndarray:
    """log10 with −inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log10(x)


def from_kneser_ney(model: NGram) -> Table:
    """The back-off form of an interpolated model: the same probabilities after every context."""
    V = model.vocab_size
    first = model.levels[0]
    p0 = np.full(V, 1 / V) if model.begin is None else np.where(np.arange(V) == model.begin, 0.0, 1 / (V - 1))
    seen = first.keys[:-1]  # the ids that occur; from here on an id is its own number
    p = first.backoffs[0] * p0
    p[seen] += first.shares[:-1]
    keys, scores, weights = [np.arange(V)], [log10(p)], []
    suffix = np.zeros(0, np.int64)  # of each n-gram: the number of the one without its first
    for n, level in enumerate(model.levels[1:], start=2):
        history, word = np.divmod(level.keys[:-1], V)
        gamma = level.backoffs[:-1]
        if n == 2:
            history, opened, suffix = seen[history], np.ones(V), word
            opened[seen] = gamma
            gamma = opened
        else:
            suffix = np.searchsorted(keys[-1], suffix[history] * V + word)
        p = np.minimum(level.shares[:-1] + gamma[history] * p[suffix], 1.0)
        keys.append(history * V + word)
        scores.append(log10(p))
        weights.append(log10(gamma))
    return Table(V, model.begin, tuple(keys), tuple(scores), tuple(weights))


def find(table: Table, n: int, history: np.ndarray, word: np.ndarray) -> np.ndarray:
    """The number of each n-gram, from its history's number and its last token; −1 where it is not kept."""
    if n == 1:
        return np.asarray(word)
    keys = table.keys[n - 1]
    wanted = np.where(history < 0, -1, history * table.vocab_size + word)
    if keys.size == 0:
        return np.full(wanted.shape, -1)
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, place, -1)


def number_of(table: Table, rows: np.ndarray) -> np.ndarray:
    """The number of each n-gram in rows (M, n), −1 where it is not kept."""
    number = rows[:, 0]
    for n in range(2, rows.shape[1] + 1):
        number = find(table, n, number, rows[:, n - 1])
    return number


def score_rows(table: Table, rows: np.ndarray) -> np.ndarray:
    """log10 p of the last token of each row after the others: (M,), for rows (M, n) with n at most the order."""
    score = table.scores[0][rows[:, -1]]
    for n in range(2, rows.shape[1] + 1):
        history = number_of(table, rows[:, -n:-1])
        score = _lengthen(table, n, score, history, find(table, n, history, rows[:, -1]))
    return score


def _lengthen(table: Table, n: int, score: np.ndarray, history: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Scores after histories of n − 1 tokens, from those after histories one shorter."""
    weights = np.append(table.weights[n - 2], table.absent)  # −1 finds the last
    return np.where(number >= 0, np.append(table.scores[n - 1], 0.0)[number], score + weights[history])


def log_probabilities(table: Table, tokens: Tokens, context: Tokens = ()) -> np.ndarray:
    """The log probability of each token after those before it, in nats: (T,) float64; −inf for the one that begins sentences.

    tokens: (T,) ids    context: ids that come before the first
    Raises ValueError for an id outside the vocabulary.
    """
    context = _checked(table, context)[max(0, len(context) - table.order + 1) :]
    stream = np.concatenate([context, _checked(table, tokens)])
    places = np.arange(stream.size)
    begun = np.maximum.accumulate(np.where(stream == table.begin, places, 0)) if table.begin is not None else 0 * places
    known = places - np.append([0], begun[:-1])[: stream.size]  # how many tokens of its sentence come before each
    score, number = table.scores[0][stream], stream
    for n in range(2, table.order + 1):
        history = np.append([-1], number[:-1])[: stream.size]
        number = find(table, n, history, stream)
        score = np.where(known >= n - 1, _lengthen(table, n, score, history, number), score)
    return score[context.size :].astype(np.float64) * LN10


def log10_distribution(table: Table, context: Tokens = ()) -> np.ndarray:
    """log10 p of every token after a context: (V,). Tokens before the last that begins a sentence do not count.

    Raises ValueError for an id outside the vocabulary.
    """
    context = _checked(table, context)[max(0, len(context) - table.order + 1) :]
    if table.begin is not None and (begins := np.flatnonzero(context == table.begin)).size:
        context = context[begins[-1] :]
    scores = table.scores[0].astype(np.float64)
    for n in range(2, context.size + 2):
        history = int(number_of(table, context[None, context.size - n + 1 :])[0])
        if history < 0:
            scores = scores + table.absent
            continue
        scores = scores + table.weights[n - 2][history]
        keys = table.keys[n - 1]
        start, end = np.searchsorted(keys, [history * table.vocab_size, (history + 1) * table.vocab_size])
        scores[keys[start:end] - history * table.vocab_size] = table.scores[n - 1][start:end]
    return scores


def suggest(table: Table, context: Tokens, k: int, among: np.ndarray | None = None) -> list[int]:
    """The k tokens most probable after a context, the best first, of equals the lowest id; fewer where there are fewer.

    among: the ids that may be suggested; all without it    Tokens of probability 0 are not suggested.
    Raises ValueError for k below 1 and for an id outside the vocabulary.
    """
    if k < 1:
        raise ValueError(f"k={k}; suggest gives at least one token.")
    return best(log10_distribution(table, context), k, among)


def best(scores: np.ndarray, k: int, among: np.ndarray | None = None) -> list[int]:
    """The ids of the k highest scores (V,) above −inf, the best first, of equals the lowest id."""
    ids = np.arange(scores.size) if among is None else np.sort(among)
    ids = ids[scores[ids] > -np.inf]
    if ids.size > k:
        ids = ids[scores[ids] >= np.partition(scores[ids], ids.size - k)[ids.size - k]]
    return ids[np.argsort(-scores[ids], kind="stable")][:k].tolist()


def perplexity(log_p: np.ndarray | Sequence[float]) -> float:
    """exp of the mean surprise, for log probabilities in nats. Raises ValueError where there is none."""
    if len(log_p) == 0:
        raise ValueError("there is no token to judge; perplexity needs at least one.")
    return float(np.exp(-np.mean(log_p)))


def _checked(table: Table, tokens: Tokens) -> np.ndarray:
    ids = np.asarray(tokens, np.int64)
    if ids.ndim != 1:
        raise ValueError(f"tokens has shape {ids.shape}; an n-gram model needs (T,), one stream of ids.")
    wrong = ids[(ids < 0) | (ids >= table.vocab_size)]
    if wrong.size:
        raise ValueError(f"token id {wrong[0]} is outside the vocabulary of {table.vocab_size} tokens.")
    return ids
