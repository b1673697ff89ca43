"""More attempts at a question, or a larger model? What both buy for the same operations, training included.

    pass@k        one of k attempts is right: with something that can check them
    majority@k    the commonest of k answers is right (Wang 2022, arXiv:2203.11171)
    best of k     the one that the model itself finds likeliest is right

    FLOPs = training + questions · k · tokens · FLOPs of a token

Answers are drawn from the model's distribution after the right answers before them. Whether all steps of
an answer are right has its true probability by this; only which wrong answer follows a first error may differ from the model's.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator, load
from refllm.lab.materials.task_models import ARCHITECTURE, Trained
from refllm.lab.materials.tasks import Task, log_probabilities
from refllm.lab.reliability import passk
from refllm.models import architecture

QUESTIONS = 10_000  # that each model's costs are of: so many that asking them some 16 times costs as much as training
ASKED = 1000  # that answers are drawn to


class Cure(NamedTuple):
    """How much of what noise costs a majority wins back, with its interval."""

    share: float
    low: float
    high: float


class Samples(NamedTuple):
    """Attempts at items, each answer as a number that only equal answers share."""

    answers: np.ndarray  # (I, n) int64
    truth: np.ndarray  # (I,) int64
    scores: np.ndarray  # (I, n) float64, their log-probability
    greedy: np.ndarray  # (I,) bool: whether the likeliest steps are all right

    @property
    def hits(self) -> np.ndarray:
        """Which attempts are right: (I, n) bool."""
        return self.answers == self.truth[:, None]


def samples(task: Task, trained: Trained, items: int, count: int, seed: int = 0) -> Samples:
    """Draw `count` attempts at each of a task's items."""
    xp, model, tokens = load().xp, architecture(ARCHITECTURE), task.items(items, seed + 1).tokens
    predicting = np.array(task.answers) - 1
    given = xp.from_numpy(np.ascontiguousarray(tokens[:, :-1]))
    logits = xp.to_numpy(model.forward(trained.params, given, trained.config, checkpointing=True).logits)
    return drawn(logits[:, predicting].astype(np.float64), tokens[:, predicting + 1], count, seed)


def drawn(logits: np.ndarray, right: np.ndarray, count: int, seed: int = 0) -> Samples:
    """Attempts from logits (I, m, V) at items whose right answers are (I, m)."""
    items, m, vocabulary = logits.shape
    logs = log_probabilities(logits)
    edges = np.cumsum(np.exp(logs), axis=-1)
    u = generator(seed, "answers").random((items, m, count)) * edges[..., -1:]
    chosen = np.stack([(edges[i, :, None, :] <= u[i, :, :, None]).sum(axis=-1) for i in range(items)])  # (I, m, n)
    scores = np.take_along_axis(logs, np.minimum(chosen, vocabulary - 1), axis=-1).sum(axis=1)
    together = np.concatenate([chosen.transpose(0, 2, 1), right[:, None, :]], axis=1)  # (I, n + 1, m)
    _, which = np.unique(together.reshape(-1, m), axis=0, return_inverse=True)
    numbered = which.reshape(items, count + 1)
    return Samples(numbered[:, :-1], numbered[:, -1], scores, (logits.argmax(axis=-1) == right).all(axis=1))


def rows(
    found: Samples, p: np.ndarray, trained: Trained, tokens: int, ks: Sequence[int], questions: int = QUESTIONS
) -> list[dict[str, Any]]:
    """What k attempts reach and cost, for every k.

    p: the chance of an attempt at each item, (any number,), by which pass@k is exact    tokens: of a question with its answer
    """
    reached = passk.exact(p, ks)
    return [
        {
            "attempts": k,
            "total_flops": float(passk.total_flops(trained.training_flops, trained.flops_per_token, tokens, k, questions)),
            "pass": float(one_of_k),
            "nats": -math.log(one_of_k) + 0.0 if one_of_k > 0 else None,
            "majority": passk.majority(found.answers, found.truth, k, repeats=10),
            "best": passk.best_of(found.scores, found.hits, k, repeats=10),
            "greedy": float(found.greedy.mean()),
        }
        for k, one_of_k in zip(ks, reached, strict=True)
    ]


def noise(found: Samples) -> dict[str, list[float]]:
    """What noise costs at each item, and what the majority of all attempts wins back: (I,) each.

    Noise costs the difference between the likeliest answer and a drawn one. A majority of infinitely many is the likeliest whole
    answer, so that it wins back what noise costs, and no more than that where the likeliest answer is wrong.
    """
    drawn = found.hits.mean(axis=1)
    voted = passk.majorities(found.answers, found.truth, found.answers.shape[1], repeats=10)
    return {"cost": (found.greedy - drawn).tolist(), "won": (voted - drawn).tolist()}


def cure(noises: Sequence[Sequence[dict[str, list[float]]]], resamples: int = 2000, seed: int = 0) -> Cure | None:
    """The share of noise's cost that a majority wins back, all models together, with the interval of questions drawn anew.

    noises: `noise` of every model, in groups that were asked the same questions and are resampled together
    Returns None where noise costs nothing.
    """
    rng, sums = generator(seed, "cure"), np.zeros((2, 1 + resamples))
    for group in noises:
        cost, won = (np.sum([model[name] for model in group], axis=0) for name in ("cost", "won"))  # (I,): of all models
        drawn = rng.multinomial(len(cost), np.full(len(cost), 1 / len(cost)), size=resamples)
        times = np.concatenate([np.ones((1, len(cost))), drawn])
        sums += np.stack([times @ cost, times @ won]) / len(cost)
    if np.any(sums[0] <= 0):
        return None
    shares = sums[1] / sums[0]
    low, high = np.percentile(shares[1:], (2.5, 97.5))
    return Cure(float(shares[0]), float(min(low, shares[0])), float(max(high, shares[0])))
