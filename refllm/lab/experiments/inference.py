"""More attempts at a question, or a larger model? The accuracy of both for the same FLOPs, training included.

    pass@k        one of k attempts is right: useful where a verifier can tell which
    majority@k    the most common of k answers is right (Wang 2022, arXiv:2203.11171)
    best of k     the answer of k that has the highest probability under the model is right

    FLOPs = training + questions · k · tokens · FLOPs of a token

Each step of an answer is sampled given the right steps before it (teacher forcing). So an answer is all right with its true
probability; only which wrong steps follow a first error may differ from free sampling.
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

QUESTIONS = 10_000  # counted in each model's cost: about 16 attempts at all of them cost as much as training
ASKED = 1000  # questions whose answers are sampled


class Cure(NamedTuple):
    """The share of the cost of noise that a majority recovers, with its 95 % interval."""

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
    """Sample `count` attempts at each of so many items of a task."""
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
    """What k attempts at each question achieve and cost, a row for every k.

    p: the probability that an attempt is right, for each item, (n,), from which pass@k is exact    tokens: of a question with its
    answer
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
    """The cost of noise at each item, and what the majority of all attempts recovers of it, "cost" and "won": (I,) each.

    Noise costs the difference in accuracy between the most likely answer and a sampled one. A majority of infinitely many samples
    is the most likely whole answer: it recovers just this cost, and is wrong where the most likely answer is.
    """
    drawn = found.hits.mean(axis=1)
    voted = passk.majorities(found.answers, found.truth, found.answers.shape[1], repeats=10)
    return {"cost": (found.greedy - drawn).tolist(), "won": (voted - drawn).tolist()}


def cure(noises: Sequence[Sequence[dict[str, list[float]]]], resamples: int = 2000, seed: int = 0) -> Cure | None:
    """The share of the cost of noise that a majority recovers, over all models, with its 95 % bootstrap interval over questions.

    noises: `noise` of every model, in groups with the same questions, which are resampled together
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
