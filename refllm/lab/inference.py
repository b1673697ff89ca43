"""More attempts at a question, or a larger model? What both buy for the same operations, training included.

    pass@k        one of k attempts is right: with something that can check them
    majority@k    the commonest of k answers is right (Wang 2022, arXiv:2203.11171)
    best of k     the one that the model itself finds likeliest is right

    FLOPs = training + questions · k · tokens · FLOPs of a token

Answers are drawn from the model's distribution after the right answers before them. Whether all steps of
an answer are right has its true probability by this; only which wrong answer follows a first error may differ from the model's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator, load
from refllm.lab import passk
from refllm.lab.task_models import ARCHITECTURE, Trained
from refllm.lab.tasks import Task
from refllm.models import architecture

QUESTIONS = 1000  # asked of each model: so many that asking costs about as much as training


class Samples(NamedTuple):
    """Attempts at items, each answer as a number that only equal answers share."""

    answers: np.ndarray  # (I, n) int64
    truth: np.ndarray  # (I,) int64
    scores: np.ndarray  # (I, n) float64, their log-probability
    greedy: float  # the share of items whose likeliest steps are all right


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
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    edges = np.cumsum(np.exp(logs), axis=-1)
    u = generator(seed, "answers").random((items, m, count)) * edges[..., -1:]
    chosen = np.stack([(edges[i, :, None, :] <= u[i, :, :, None]).sum(axis=-1) for i in range(items)])  # (I, m, n)
    scores = np.take_along_axis(logs, np.minimum(chosen, vocabulary - 1), axis=-1).sum(axis=1)
    together = np.concatenate([chosen.transpose(0, 2, 1), right[:, None, :]], axis=1)  # (I, n + 1, m)
    _, which = np.unique(together.reshape(-1, m), axis=0, return_inverse=True)
    numbered = which.reshape(items, count + 1)
    greedy = float((logits.argmax(axis=-1) == right).all(axis=1).mean())
    return Samples(numbered[:, :-1], numbered[:, -1], scores, greedy)


def rows(found: Samples, trained: Trained, tokens: int, ks: Sequence[int], questions: int = QUESTIONS) -> list[dict[str, Any]]:
    """What k attempts reach and cost, for every k. tokens: of a question with its answer."""
    hits = found.answers == found.truth[:, None]
    n = hits.shape[1]
    return [
        {
            "attempts": k,
            "total_flops": float(passk.total_flops(trained.training_flops, trained.flops_per_token, tokens, k, questions)),
            "pass": passk.estimated(hits.sum(axis=1), n, k),
            "majority": passk.majority(found.answers, found.truth, k, repeats=10),
            "best": passk.best_of(found.scores, hits, k, repeats=10),
            "greedy": found.greedy,
        }
        for k in ks
    ]
