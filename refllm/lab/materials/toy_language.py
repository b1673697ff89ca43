"""A language of four letters, so small that all its texts can be enumerated: a Markov chain, known exactly.

    P(x) = 1/4 · Π_t A(x_{t−1}, x_t)          A: the next letter of the alphabet follows with probability FOLLOWS, else any other

The probabilities of a hidden letter given all others follow from the table of all P(x) by Bayes' rule.
"""

import itertools

import numpy as np

LETTERS = "abcd"
V = len(LETTERS)
FOLLOWS = 0.85  # the probability that a letter is followed by the next of the alphabet, d by a


def transitions() -> np.ndarray:
    """A: (4, 4) float64, a row for each previous letter."""
    table = np.full((V, V), (1 - FOLLOWS) / (V - 1))
    table[np.arange(V), (np.arange(V) + 1) % V] = FOLLOWS
    return table


def draw(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Texts drawn from P: (rows, length) int32."""
    cumulative, columns = np.cumsum(transitions(), axis=1), [rng.integers(0, V, rows)]
    for u in rng.random((length - 1, rows)):
        columns.append((u[:, None] > cumulative[columns[-1], :-1]).sum(axis=1))
    return np.stack(columns, axis=1).astype(np.int32)


def every_text(length: int) -> np.ndarray:
    """All texts of a length: (4^length, length) int32, in alphabetical order."""
    return np.array(list(itertools.product(range(V), repeat=length)), dtype=np.int32)


def log_likelihood(texts: np.ndarray) -> np.ndarray:
    """ln P of texts (R, T): (R,) float64, nats."""
    steps = np.log(transitions())[texts[:, :-1], texts[:, 1:]]
    return steps.sum(axis=1) - np.log(V)


def pseudo_log_likelihood(length: int) -> np.ndarray:
    """Σ_t ln P(x_t | all other letters) of every text of a length: (4^length,) float64, nats."""
    P = np.exp(log_likelihood(every_text(length))).reshape((V,) * length)
    return sum((np.log(P / P.sum(axis=t, keepdims=True)) for t in range(length)), np.zeros_like(P)).reshape(-1)
