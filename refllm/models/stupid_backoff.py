"""Stupid backoff (Brants et al. 2007, "Large Language Models in Machine Translation", section 4): scores from plain counts.

    S(w | h) = f(hw) / f(h) where hw was seen, else α · S(w | h′)        S(w) = f(w) / N        α = 0.4

f counts occurrences and N is the number of tokens. Scores are no probabilities: after a history they may sum to more or less
than one. They are cheap to make for any amount of text, and rank nearly as well.
"""

import numpy as np

from refllm.models.back_off import Table, log10
from refllm.models.ngram import Counts, Tokens, count

ALPHA = 0.4


def train(tokens: Tokens, order: int, vocab_size: int, begin: int | None = None, alpha: float = ALPHA) -> Table:
    """Count the n-grams of a stream of tokens; the table's numbers are log10 of scores. A token never seen scores 0.

    tokens: (T,) ids below vocab_size    begin: the id that begins each sentence, which scores 0
    alpha: what each step to a shorter history costs
    Raises ValueError for an order below 1, no tokens, an id outside the vocabulary, and an alpha outside 0 … 1.
    """
    return from_counts(count(tokens, order, vocab_size, begin), alpha)


def from_counts(counts: Counts, alpha: float = ALPHA) -> Table:
    """The table of counted n-grams. Raises ValueError for an alpha outside 0 … 1."""
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}; stupid backoff multiplies by a number above 0 and not above 1.")
    V = counts.vocab_size
    seen, f = counts.keys[0], np.zeros(V)
    f[seen] = counts.occurrences[0]
    said = np.where(np.arange(V) == counts.begin, 0.0, f) if counts.begin is not None else f
    keys, scores = [np.arange(V)], [log10(said / max(said.sum(), 1))]
    for n, (key, occurrences) in enumerate(zip(counts.keys[1:], counts.occurrences[1:], strict=True), start=2):
        history, word = np.divmod(key, V)
        history = seen[history] if n == 2 else history
        keys.append(history * V + word)
        scores.append(log10(occurrences / f[history]))
        f = occurrences
    weights = tuple(np.full(k.size, np.log10(alpha)) for k in keys[:-1])
    return Table(V, counts.begin, tuple(keys), tuple(scores), weights, float(np.log10(alpha)))
