"""Models that are trained on pieces of text and then sample as many pieces: n-gram tables and small transformers."""

from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.decoding.generate import generate
from refllm.decoding.sampler import Sampler
from refllm.lab.materials import ngrams, text_models
from refllm.models import architecture, ngram
from refllm.models.model import Model

Windows = tuple[np.ndarray, np.ndarray]  # tokens and targets, (B, T) each


class Generation(NamedTuple):
    """One generation: its held-out loss, and what it sampled."""

    loss: float  # on held-out windows, nats per token
    written: np.ndarray  # (pieces, length) uint8
    entropy: float  # of what it sampled, under itself: nats per token


class Recipe(NamedTuple):
    """The size of a transformer, d_model, and its training: steps on `batch` windows of `context` tokens."""

    width: int
    steps: int
    batch: int
    context: int
    vocab_size: int


def table(data: np.ndarray, judged: Windows, order: int, vocab_size: int, pieces: int, seed: int, step: int) -> Generation:
    """An n-gram table of data (n, length). It samples pieces of the same length; seed and step address the random numbers."""
    model = ngram.train(data.ravel(), order, vocab_size)
    logs = [ngram.log_probabilities(model, after, window[:1]) for window, after in zip(*judged, strict=True)]
    drawn = ngrams.sample(model, pieces, data.shape[1], seed, step)
    return Generation(-float(np.mean(logs)), drawn.tokens, drawn.surprise)


def transformer(data: np.ndarray, judged: Windows, recipe: Recipe, pieces: int, seed: int) -> Generation:
    """A transformer trained on data (n, context + 1). It samples pieces of this length, with first
    tokens drawn from those of its data.
    """
    r, config = recipe, text_models.config_of(recipe.width, recipe.vocab_size, recipe.context + 1)

    def batch_at(step: int) -> Any:
        rows = data[generator(seed, "batch", step).integers(len(data), size=r.batch)].astype(np.int32)
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    (snapshot,) = text_models.learned(config, r.batch, r.context, seed, batch_at, [r.steps])
    params = snapshot.averaged
    begun = data[generator(seed, "begun").integers(len(data), size=pieces), :1].astype(np.int32)
    steps = generate(Model(architecture(text_models.ARCHITECTURE), config, params), begun.tolist(), r.context, Sampler(), seed)
    written = np.concatenate([begun, np.stack([step.tokens for step in steps], axis=1)], axis=1)
    entropy = text_models.loss_of(params, config, (written[:, :-1], written[:, 1:]))
    return Generation(text_models.loss_of(params, config, judged), written.astype(np.uint8), entropy)
