"""Two small models of the toy language, one that reads on and one that fills gaps, and how likely each finds a text.

Both choose among the letters only: other tokens, which no text holds, are left out of the sums under the fractions.
"""

from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator, load
from refllm.lab import toy_language
from refllm.lab.learn import learn
from refllm.lab.toy_language import LETTERS, V
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.word_piece import WordPiece
from refllm.training.config import TrainingConfig
from refllm.training.masking import Masking, hide

BEGIN, MASK = V, V + 1  # the ids behind the letters'


class Recipe(NamedTuple):
    """How a model is made and trained."""

    longest: int  # letters of the longest texts
    width: int
    steps: int
    batch: int
    rate: float
    seed: int


def training_of(r: Recipe, context: int) -> TrainingConfig:
    """A constant rate, then down to zero over the last third."""
    return TrainingConfig(
        context=context,
        batch=r.batch,
        steps=r.steps,
        learning_rate=r.rate,
        schedule="wsd",
        warmup_steps=min(50, r.steps // 4),
        decay_steps=max(1, r.steps // 3),
        final_fraction=0.02,
        beta2=0.98,
        weight_decay=0.0,
        seed=r.seed,
    )


def texts_at(r: Recipe, step: int) -> np.ndarray:
    """The texts of a step, all of one length: (batch, length) int32."""
    rng = generator(r.seed, "masked texts", step)
    return toy_language.draw(rng, r.batch, int(rng.integers(1, r.longest + 1)))


def train_autoregressive(r: Recipe) -> Model:
    """A small GPT-2 that reads a text behind the token BEGIN."""
    module = architecture("gpt2")
    config = module.Config(V + 1, r.width, 2, 2, r.longest, 4 * r.width)

    def batch_at(step: int) -> Any:
        texts = texts_at(r, step)
        return np.ascontiguousarray(behind_begin(texts)[:, :-1]), texts

    (snapshot,) = learn("gpt2", config, training_of(r, r.longest), batch_at, [r.steps], gain=1.0)
    return Model(module, config, snapshot.raw)


def train_masked(r: Recipe) -> Model:
    """A small BERT, some of whose letters are hidden as its makers hid them."""
    module = architecture("bert")
    config = module.Config(V + 2, r.width, 2, 2, r.longest, 4 * r.width)
    masking = Masking(MASK, np.arange(V + 2) < V, (), ())

    def batch_at(step: int) -> Any:
        texts = texts_at(r, step)
        return hide(texts, generator(r.seed, "mask", step).random((*texts.shape, 3)), masking)

    (snapshot,) = learn("bert", config, training_of(r, r.longest), batch_at, [r.steps], gain=1.0)
    return Model(module, config, snapshot.raw, tokenizer())


def tokenizer() -> Tokenizer:
    """Letters as words, with a mask."""
    return Tokenizer(WordPiece(dict(enumerate((*LETTERS, "[UNK]"))), V), [AddedToken(MASK, "[MASK]", special=True)])


def in_float64(model: Model) -> Model:
    """The same model with weights of 64 bits."""
    xp = load().xp
    return Model(
        model.architecture, model.config, {n: xp.astype(p, xp.float64) for n, p in model.params.items()}, model.tokenizer
    )


def behind_begin(texts: np.ndarray) -> np.ndarray:
    """Texts (R, T) behind the token that begins them: (R, 1 + T)."""
    return np.concatenate([np.full((len(texts), 1), BEGIN, np.int32), texts], axis=1)


def letter_logs(model: Model, tokens: np.ndarray) -> np.ndarray:
    """The log-probabilities among letters at every place of tokens (R, T): (R, T, 4) float64, nats."""
    logits = load().xp.to_numpy(model.logits(tokens)).astype(np.float64)[..., :V]
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_likelihood(model: Model, texts: np.ndarray) -> np.ndarray:
    """Σ_t log p(x_t | letters before) of texts (R, T) from one pass: (R,) nats."""
    found = letter_logs(model, np.ascontiguousarray(behind_begin(texts)[:, :-1]))
    return np.take_along_axis(found, texts[..., None], axis=-1).sum(axis=(1, 2))


def pseudo_log_likelihood(model: Model, texts: np.ndarray) -> np.ndarray:
    """Σ_t log p(x_t | all other letters) of texts (R, T), one pass for each t: (R,) nats."""
    total = np.zeros(len(texts))
    for t in range(texts.shape[1]):
        hidden = np.where(np.arange(texts.shape[1]) == t, np.int32(MASK), texts)
        total = total + np.take_along_axis(letter_logs(model, hidden)[:, t], texts[:, t, None], axis=-1)[:, 0]
    return total
