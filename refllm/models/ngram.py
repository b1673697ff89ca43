"""The n-gram model with interpolated modified Kneser–Ney smoothing (Chen & Goodman 1999, Harvard TR-10-98, section 3).

For a history h of n − 1 tokens, h′ the same without its first, and c(hw) the count of the n-gram hw:

    p_n(w | h) = max(c(hw) − D(c(hw)), 0) / c(h·) + γ(h) · p_{n−1}(w | h′)        γ(h) = Σ_w D(c(hw)) / c(h·)        p_0 = 1 / V

Below the highest order, c(hw) is the number of different tokens seen before hw (Kneser & Ney 1995).
A history that nothing follows leaves the word to p_{n−1}. The discount D of an order has three values, for counts 1, 2 and more:

    Y = n₁ / (n₁ + 2n₂)        D(1) = 1 − 2Y·n₂/n₁        D(2) = 2 − 3Y·n₃/n₂        D(3+) = 3 − 4Y·n₄/n₃

where n_k is how many n-grams have count k. Where n₁, n₂ or n₃ is 0, or a value is below 0, they are 1/2, 1 and 3/2 (as KenLM's
lmplz has it with --discount_fallback).

Sentences may stand one behind another, each begun by the same token (Heafield et al. 2013; the conventions of lmplz): no n-gram
reaches over it, it is never predicted (its probability is 0 and p_0 = 1 / (V − 1) for the others), and since nothing can come
before an n-gram that starts with it, such an n-gram counts as often as it occurs, at every order.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Tokens = Sequence[int] | np.ndarray

FALLBACK = (0.5, 1.0, 1.5)  # the discounts where the counts of counts give none


class Level(NamedTuple):
    """The n-grams of one order n, sorted by key; an n-gram's place is its number, from which the keys of order n + 1 are made.

    Each array ends with the entry of n-grams never seen, whose number is −1.
    """

    keys: np.ndarray  # (n-grams + 1,) int64: number of the history among the (n−1)-grams · V + last token
    shares: np.ndarray  # (n-grams + 1,) float64: max(c − D, 0) / c(h·); 0 for what was never seen
    backoffs: np.ndarray  # ((n−1)-grams + 1,) float64: γ of each history; 1 for one that nothing follows


class NGram(NamedTuple):
    """A trained model: one level for each order, from 1 up."""

    vocab_size: int
    levels: tuple[Level, ...]
    begin: int | None = None  # the id that begins each sentence; None for a stream without sentences


class Counts(NamedTuple):
    """The n-grams of a stream, one array for each order, from 1 up; an n-gram's place in its arrays is its number."""

    vocab_size: int
    begin: int | None
    keys: tuple[np.ndarray, ...]  # (n-grams,) int64, ascending, made as a level's
    occurrences: tuple[np.ndarray, ...]  # (n-grams,) int64: how often each is there
    counts: tuple[np.ndarray, ...]  # (n-grams,) int64: c as Kneser and Ney count


def train(tokens: Tokens, order: int, vocab_size: int, begin: int | None = None) -> NGram:
    """Count the n-grams of a stream of tokens and smooth them.

    tokens: (T,) ids below vocab_size    order: the n of the longest n-grams, 3 for a trigram
    begin: the id that begins each sentence, where the stream is made of sentences
    Raises ValueError for an order below 1, for no tokens, and for an id outside the vocabulary.
    """
    return smooth(count(tokens, order, vocab_size, begin))


def count(tokens: Tokens, order: int, vocab_size: int, begin: int | None = None) -> Counts:
    """Count the n-grams of a stream, in about 110 bytes a token at order 5. Arguments and errors are those of `train`."""
    if order < 1:
        raise ValueError(f"order={order}; an n-gram model needs an order of at least 1.")
    tokens = _checked(tokens, vocab_size)
    if tokens.size == 0:
        raise ValueError("tokens is empty; an n-gram model needs at least one token to count.")
    if begin is not None and not (0 <= begin < vocab_size and vocab_size > 1):
        raise ValueError(f"begin={begin} and vocab_size={vocab_size}; begin is one of several ids below vocab_size.")
    is_begin = tokens == begin if begin is not None else np.zeros(tokens.size, bool)
    keys: list[np.ndarray] = []
    numbers: list[np.ndarray] = []  # of the n-gram that ends at each position, −1 where none does
    firsts: list[np.ndarray] = []  # a position where each n-gram ends
    for n, history in enumerate(_histories(tokens.size, numbers, order)):
        ends = np.flatnonzero((history >= 0) & ~is_begin if n else history >= 0)
        found, first, number = np.unique(history[ends] * vocab_size + tokens[ends], return_index=True, return_inverse=True)
        keys.append(found)
        firsts.append(ends[first])
        numbers.append(np.full(tokens.size, -1))
        numbers[-1][ends] = number
    occurrences = [np.bincount(number[number >= 0], minlength=k.size) for number, k in zip(numbers, keys, strict=True)]
    counts = []
    for n in range(order - 1):
        # below the highest order an n-gram counts once for each longer one that ends in it
        opening = np.flatnonzero(is_begin[: tokens.size - n]) + n if n else np.zeros(0, np.int64)
        seen = np.concatenate([numbers[n][firsts[n + 1]], numbers[n][opening]])
        counts.append(np.bincount(seen[seen >= 0], minlength=keys[n].size))
    counts.append(occurrences[-1])
    if order == 1:
        counts[0] = np.where(keys[0] == begin, 0, counts[0]) if begin is not None else counts[0]
    return Counts(vocab_size, begin, tuple(keys), tuple(occurrences), tuple(counts))


def smooth(counts: Counts) -> NGram:
    """The model of counted n-grams."""
    sizes = [1, *(keys.size for keys in counts.keys)]
    levels = [
        _smooth(keys, c, n_histories, counts.vocab_size)
        for keys, c, n_histories in zip(counts.keys, counts.counts, sizes[:-1], strict=True)
    ]
    return NGram(counts.vocab_size, tuple(levels), counts.begin)


def log_probabilities(model: NGram, tokens: Tokens, context: Tokens = ()) -> np.ndarray:
    """The log probability of each token after those before it, in nats: (T,) float64; −inf for the token that begins sentences.

    tokens: (T,) ids    context: ids that come before the first; what the stream's first tokens are predicted from
    Raises ValueError for an id outside the vocabulary.
    """
    context = _checked(context, model.vocab_size)[max(0, len(context) - len(model.levels) + 1) :]
    stream = np.concatenate([context, _checked(tokens, model.vocab_size)])
    numbers: list[np.ndarray] = []
    p = _uniform(model)[stream]
    for history, level in zip(_histories(stream.size, numbers, len(model.levels)), model.levels, strict=True):
        number = _find(level, history, stream, model.vocab_size)
        numbers.append(number)
        p = level.shares[number] + level.backoffs[history] * p
    with np.errstate(divide="ignore"):
        return np.log(p[context.size :])


def distribution(model: NGram, context: Tokens = ()) -> np.ndarray:
    """The probability of every token after a context: (V,) float64, summing to one.

    Raises ValueError for an id outside the vocabulary.
    """
    context = _checked(context, model.vocab_size)
    every = np.arange(model.vocab_size)
    p = _uniform(model)
    for n, level in enumerate(model.levels):
        if n > context.size:
            break
        history = np.zeros(1, np.int64)
        for earlier, token in zip(model.levels, context[context.size - n :], strict=False):
            history = _find(earlier, history, np.array([token]), model.vocab_size)
        p = level.shares[_find(level, history, every, model.vocab_size)] + level.backoffs[history] * p
    return p


def _uniform(model: NGram) -> np.ndarray:
    """p_0 of every token: (V,)."""
    if model.begin is None:
        return np.full(model.vocab_size, 1 / model.vocab_size)
    return np.where(np.arange(model.vocab_size) == model.begin, 0.0, 1 / (model.vocab_size - 1))


def _histories(n_tokens: int, numbers: list[np.ndarray], order: int) -> Iterator[np.ndarray]:
    """For each order n the number of the (n−1)-gram before each position, −1 for none; reads `numbers` as they are found."""
    yield np.zeros(n_tokens, np.int64)
    for n in range(1, order):
        yield np.concatenate([[-1], numbers[n - 1][:-1]])


def _smooth(keys: np.ndarray, counts: np.ndarray, n_histories: int, vocab_size: int) -> Level:
    """The level of n-grams with these counts."""
    history = keys // vocab_size
    discount = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    total = np.bincount(history, counts, n_histories + 1)
    withheld = np.bincount(history, discount, n_histories + 1)
    followed = total > 0
    total[~followed] = 1
    return Level(
        np.append(keys, np.iinfo(np.int64).max),
        np.append((counts - discount) / total[history], 0.0),
        np.where(followed, withheld / total, 1.0),
    )


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """D(1), D(2) and D(3+) for n-grams with these counts, as the module's head defines them."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if 0 in (n1, n2, n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return found if min(found) >= 0 else FALLBACK


def _find(level: Level, history: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """The number of each n-gram (history, token), −1 for one never seen."""
    wanted = history * vocab_size + tokens  # negative, so not to be found, where the history was never seen
    place = np.searchsorted(level.keys, wanted)
    return np.where(level.keys[place] == wanted, place, -1)


def _checked(tokens: Tokens, vocab_size: int) -> np.ndarray:
    """The tokens as (T,) int64."""
    array = np.asarray(tokens, np.int64)
    if array.ndim != 1:
        raise ValueError(f"tokens has shape {array.shape}; an n-gram model needs (T,), one stream of ids.")
    wrong = array[(array < 0) | (array >= vocab_size)]
    if wrong.size:
        raise ValueError(f"token id {wrong[0]} is outside the vocabulary of {vocab_size} tokens.")
    return array
