"""Tasks with one right answer and unlimited items: facts to memorise, sums to compute, symbols to count.

A task draws sequences of tokens and says which of them are answers. Only answers are learned: the other targets are −100.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator


class Items(NamedTuple):
    """Sequences with their answers."""

    tokens: np.ndarray  # (I, T + 1) int32, answers and all
    features: np.ndarray  # (I, m) int64: what each answer asks for, a fact's number for instance


class Task(NamedTuple):
    """A way to draw sequences of one length."""

    name: str
    vocab_size: int
    answers: tuple[int, ...]  # the positions of the sequence that are answers, m of them
    length: int  # T + 1
    draw: Callable[[np.random.Generator, int], Items]

    @property
    def context(self) -> int:
        """T: tokens that a model reads of a sequence."""
        return self.length - 1

    def batch(self, seed: int, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets of a training step, (rows, T) int32 each."""
        tokens = self.draw(generator(seed, f"{self.name} batch", step), rows).tokens
        targets = np.full((rows, self.context), -100, dtype=np.int32)
        predicting = np.array(self.answers) - 1
        targets[:, predicting] = tokens[:, predicting + 1]
        return np.ascontiguousarray(tokens[:, :-1]), targets

    def items(self, count: int, seed: int = 0) -> Items:
        """The items for evaluation: the same for all models."""
        return self.draw(generator(seed, f"{self.name} items"), count)


def facts(keys: int = 48, values: int = 16, per_sequence: int = 8, zipf: float = 0.0, seed: int = 0) -> Task:
    """A table of keys² facts, each two keys and one of `values` answers; several facts in a sequence.

    A feature is a fact's number.
    zipf: the exponent of the facts' frequencies, the first the most frequent; 0: all equal
    Facts are drawn with replacement, so that answers which depend on their fact alone are independent: drawn without it, a model
    that knows k of n facts would have all m answers right with a probability below (k/n)^m.
    """
    table = generator(seed, "facts").integers(0, values, keys * keys)
    weights = np.arange(1, keys * keys + 1, dtype=float) ** -zipf
    chances = weights / weights.sum()

    def draw(rng: np.random.Generator, rows: int) -> Items:
        fact = (
            rng.choice(keys * keys, size=(rows, per_sequence), p=chances)
            if zipf
            else rng.integers(0, keys**2, (rows, per_sequence))
        )
        parts = [fact // keys, keys + fact % keys, 2 * keys + table[fact]]
        return Items(np.stack(parts, axis=2).reshape(rows, -1).astype(np.int32), fact)

    answers = tuple(range(2, 3 * per_sequence, 3))
    return Task("facts" if not zipf else "rare facts", 2 * keys + values, answers, 3 * per_sequence, draw)


PLUS, EQUALS = 10, 11


def addition(digits: int = 6) -> Task:
    """a + b = their sum, the lowest digit of the sum first, so that a carry is known when it is needed.

    A feature is 8 times the answer's position plus the length of the chain of carries into it, 7 at most, 0 without a carry.
    """

    def draw(rng: np.random.Generator, rows: int) -> Items:
        a, b = rng.integers(0, 10, (2, rows, digits))  # the highest digit first
        carry, chain = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        sums, features = [], []
        for i in range(digits):
            total = a[:, -1 - i] + b[:, -1 - i]
            features.append(8 * i + np.minimum(chain, 7))
            sums.append((total + carry) % 10)
            chain = np.where(total >= 10, 1, np.where((total == 9) & (chain > 0), chain + 1, 0))
            carry = (total + carry) // 10
        sums.append(carry)
        features.append(8 * digits + np.minimum(chain, 7))
        column = np.ones((rows, 1), dtype=np.int64)
        tokens = np.concatenate([a, PLUS * column, b, EQUALS * column, np.stack(sums, axis=1)], axis=1)
        return Items(tokens.astype(np.int32), np.stack(features, axis=1))

    first = 2 * digits + 2
    return Task("addition", 12, tuple(range(first, first + digits + 1)), first + digits + 1, draw)


def running_sum(steps: int, written: bool) -> Task:
    """The sum of digits modulo 10: every state written out, or the last one only. A feature is the answer's place."""

    def draw(rng: np.random.Generator, rows: int) -> Items:
        digits = rng.integers(0, 10, (rows, steps))
        states = np.cumsum(digits, axis=1) % 10
        shown = states if written else states[:, -1:]
        tokens = np.concatenate([digits, np.full((rows, 1), EQUALS), shown], axis=1)
        return Items(tokens.astype(np.int32), np.broadcast_to(np.arange(shown.shape[1]), shown.shape))

    count = steps if written else 1
    name = f"running sum of {steps}, {'written out' if written else 'in the head'}"
    return Task(name, 12, tuple(range(steps + 1, steps + 1 + count)), steps + 1 + count, draw)


def counting(length: int, most: int = 64) -> Task:
    """How many of a row of a's and b's are a's: token 0 is b, 1 is a, 2 asks, 3 + n answers. A feature is the answer."""

    def draw(rng: np.random.Generator, rows: int) -> Items:
        share = rng.random((rows, 1))
        marks = (rng.random((rows, length)) < share).astype(np.int64)
        n = marks.sum(axis=1, keepdims=True)
        return Items(np.concatenate([marks, np.full((rows, 1), 2), 3 + n], axis=1).astype(np.int32), n)

    return Task(f"counting to {length}", 4 + most, (length + 1,), length + 2, draw)


class Outcomes(NamedTuple):
    """How a model did on items; all (I, m)."""

    right: np.ndarray  # bool: whether the right answer was the likeliest, given right answers before it
    probability: np.ndarray  # float64: of the right answer
    features: np.ndarray  # int64

    def attempts(self, count: int, seed: int = 0) -> np.ndarray:
        """Whether answers sampled from the model at temperature one are right: (count, I, m) bool."""
        return generator(seed, "attempts").random((count, *self.probability.shape)) < self.probability

    def item_probability(self) -> np.ndarray:
        """The probability that a sampled answer is right in all its steps: (I,)."""
        return self.probability.prod(axis=1)


def judge(task: Task, items: Items, logits_of: Callable[[np.ndarray], np.ndarray], rows: int = 250) -> Outcomes:
    """A model's outcomes, by its logits (B, T, V) of tokens (B, T), each answer given the right answers before it."""
    predicting = np.array(task.answers) - 1
    parts: list[Any] = []
    for i in range(0, len(items.tokens), rows):
        tokens = items.tokens[i : i + rows]
        logits = logits_of(np.ascontiguousarray(tokens[:, :-1]))[:, predicting].astype(np.float64)
        answer = tokens[:, predicting + 1]
        chosen = np.take_along_axis(log_probabilities(logits), answer[..., None], axis=-1)[..., 0]
        parts.append((logits.argmax(axis=-1) == answer, np.exp(chosen)))
    right, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Outcomes(right, probability, items.features)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax of logits (..., V) float64 over the last axis: (..., V) float64, nats."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
