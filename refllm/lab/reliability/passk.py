"""More attempts at inference: how often one of k is right, their majority or the best scored, and what all of them cost.

    pass@k of an item solved with probability p each time = 1 − (1 − p)^k

An item with one right answer has p = exp(Σ log-probabilities of its tokens), so pass@k is exact and nothing is sampled.
From c right of n samples the unbiased estimate is 1 − C(n−c, k) / C(n, k) (Chen 2021, arXiv:2107.03374, equation 1).

−ln pass@k falls as (1 − p)^k where all items are alike, and as a power k^−b where the density of p goes to 0 with p^(b−1)
(Brown 2024, arXiv:2407.21787, section 3; Schaeffer 2025, arXiv:2502.17578).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.reliability.outcomes import Measured

ATTEMPTS = (1, 4, 16, 64, 256)


def exact(p: Any, k: Any) -> np.ndarray:
    """Mean pass@k of items with probabilities p (I,), for k (K,) attempts: (K,)."""
    miss = np.log1p(-np.minimum(np.asarray(p, dtype=float), 1 - 1e-16))
    return (-np.expm1(np.outer(np.atleast_1d(k), miss))).mean(axis=1)


def homogeneous(p: Any, k: Any) -> np.ndarray:
    """What pass@k would be if every item had the mean probability: an upper bound, by Jensen's inequality."""
    return exact(np.atleast_1d(np.mean(p)), k)


def estimated(right: Any, n: int, k: int) -> float:
    """Mean unbiased pass@k of items with `right` (I,) of n samples right. Raises ValueError for more attempts than samples."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples an item; draw at least {k}.")
    wrong = n - np.asarray(right)
    j = np.arange(k)
    return float(np.mean(1 - np.prod(np.clip((wrong[:, None] - j) / (n - j), 0, 1), axis=1)))


def majority(answers: Any, truth: Any, k: int, repeats: int = 100, seed: int = 0) -> float:
    """The share of items whose commonest answer among k drawn samples is right; the earliest of equals wins.

    answers: (I, n) integers    truth: (I,)    The k are drawn without replacement, `repeats` times.
    """
    return float(majorities(answers, truth, k, repeats, seed).mean())


def majorities(answers: Any, truth: Any, k: int, repeats: int = 100, seed: int = 0) -> np.ndarray:
    """How often each item's commonest answer among k drawn samples is right: (I,). Raises ValueError for k beyond the samples."""
    answers, truth = np.asarray(answers), np.asarray(truth)
    if not 1 <= k <= answers.shape[1]:
        raise ValueError(f"a majority of {k} cannot be taken from {answers.shape[1]} samples an item; draw at least {k}.")
    rng, rows, hits = generator(seed, "majority"), np.arange(len(answers))[:, None], np.zeros(len(answers))
    _, names = np.unique(answers, return_inverse=True)
    cells = np.unique(rows * (names.max() + 1) + names.reshape(answers.shape), return_inverse=True)[1].reshape(answers.shape)
    for _ in range(repeats):
        drawn = np.argsort(rng.random(answers.shape), axis=1)[:, :k]
        mine = np.take_along_axis(cells, drawn, axis=1)  # an item's answer has its own number
        votes = np.bincount(mine.ravel(), minlength=cells.max() + 1)[mine]
        chosen = np.take_along_axis(drawn, votes.argmax(axis=1)[:, None], axis=1)
        hits += np.take_along_axis(answers, chosen, axis=1)[:, 0] == truth
    return hits / repeats


def best_of(scores: Any, right: Any, n: int, repeats: int = 100, seed: int = 0) -> float:
    """The share of items where the best scored of n drawn samples is right. scores, right: (I, samples).

    Raises ValueError for an n beyond the samples.
    """
    scores, right = np.asarray(scores), np.asarray(right)
    if not 1 <= n <= scores.shape[1]:
        raise ValueError(f"the best of {n} cannot be taken from {scores.shape[1]} samples an item; draw at least {n}.")
    rng, hits = generator(seed, "best"), 0.0
    for _ in range(repeats):
        drawn = np.argsort(rng.random(scores.shape), axis=1)[:, :n]
        chosen = np.take_along_axis(drawn, np.take_along_axis(scores, drawn, 1).argmax(1)[:, None], 1)
        hits += float(np.take_along_axis(right, chosen, 1).mean())
    return hits / repeats


class Tail(NamedTuple):
    """How −ln pass@k falls as k grows."""

    exponent: float  # b of k^−b
    error: float  # root mean square of ln(−ln pass@k) less that law's
    power_law: bool  # whether its error is less than that of an exponential law, which equally hard items have


def tail(k: Any, reached: Any) -> Tail | None:
    """The power law through pass@k (K,) at k (K,) attempts; None where fewer than three of them lie between 0 and 1."""
    k, reached = np.asarray(k, dtype=float), np.asarray(reached, dtype=float)
    open_ = (reached > 0) & (reached < 1 - 1e-12)  # beyond, only rounding is left
    if open_.sum() < 3:
        return None
    logs, errors = np.log(-np.log(reached[open_])), []
    for x in (np.log(k[open_]), k[open_]):
        slope, start = np.polyfit(x, logs, 1)
        errors.append((float(np.sqrt(np.mean((start + slope * x - logs) ** 2))), -float(slope)))
    (power, exponent), (exponential, _) = errors
    return Tail(exponent, power, power < exponential)


def total_flops(training: float, per_token: float, tokens: float, k: Any, questions: float) -> Any:
    """FLOPs of training a model and of asking it `questions` times, k attempts of so many tokens each."""
    return training + per_token * tokens * np.asarray(k) * questions


def rows(found: Measured, ks: Sequence[int] = (), seed: int = 0) -> list[dict[str, Any]]:
    """What k attempts reach, for every k: one of them right, exactly from probabilities or else estimated from the attempts that
    were made; and where answers or scores are known, what their majority or the best of them reaches.

    ks: none for 1, 4, 16 … as far as attempts go    Raises ValueError for a k that is beyond both.
    """
    hits, p = found.hits(), found.item_probability()
    made = 0 if hits is None else hits.shape[1]
    exactly = found.probability is not None
    asked = (
        sorted(set(ks)) if ks else [k for k in ATTEMPTS if exactly or k <= made] + [made] * (not exactly and made not in ATTEMPTS)
    )
    table = []
    for k, reached, alike in zip(asked, exact(p, asked), homogeneous(p, asked), strict=True):
        estimate = estimated(hits.sum(axis=1), made, k) if hits is not None and (k <= made or not exactly) else None
        value = float(reached) if exactly else float(estimate or 0.0)
        row = {"k": k, "pass@k": value} | ({"estimated": estimate} if exactly and made else {}) | {"if alike": float(alike)}
        if found.answers is not None:
            row["majority"] = majority(found.answers, found.answer, k, seed=seed) if k <= made else None
        if found.scores is not None:
            row["best of k"] = best_of(found.scores, hits, k, seed=seed) if k <= made else None
        table.append(row | {"-ln pass@k": -math.log(value) + 0.0 if value > 0 else None})
    return table
