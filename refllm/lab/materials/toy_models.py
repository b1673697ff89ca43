"""Two small models of the toy language, one autoregressive and one masked, and their scores of texts.

The softmax of both goes over the letters only: the special tokens occur in no text.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.materials import toy_language
from refllm.lab.materials.task_models import falling
from refllm.lab.materials.tasks import log_probabilities
from refllm.lab.materials.toy_language import LETTERS, V
from refllm.lab.running.learn import Batch, learn
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.word_piece import WordPiece
from refllm.training.masking import Masking, hide

BEGIN, MASK = V, V + 1  # special tokens; the letters are 0 … V − 1


class Recipe(NamedTuple):
    """The size of a model and its training."""

    longest: int  # letters of the longest texts
    width: int
    steps: int
    batch: int
    rate: float
    seed: int


def texts_at(r: Recipe, step: int) -> np.ndarray:
    """The texts of a step, all of one length: (batch, length) int32."""
    rng = generator(r.seed, "masked texts", step)
    return toy_language.draw(rng, r.batch, int(rng.integers(1, r.longest + 1)))


def next_letters(r: Recipe, step: int) -> Batch:
    """The batch of a step for the autoregressive model: tokens, begun with BEGIN, and the letters as targets, (batch, T) each."""
    texts = texts_at(r, step)
    return np.ascontiguousarray(behind_begin(texts)[:, :-1]), texts


def hidden_letters(r: Recipe, step: int) -> Batch:
    """The batch of a step for the masked model: texts with some letters masked, and these as targets, (batch, T) each."""
    texts = texts_at(r, step)
    masking = Masking(MASK, np.arange(V + 2) < V, (), ())
    return hide(texts, generator(r.seed, "mask", step).random((*texts.shape, 3)), masking)


def train_autoregressive(r: Recipe) -> Model:
    """A small GPT-2; BEGIN precedes every text."""
    module = architecture("gpt2")
    config = module.Config(V + 1, r.width, 2, 2, r.longest, 4 * r.width)
    batch_at = partial(next_letters, r)
    (snapshot,) = learn("gpt2", config, falling(r.rate, r.steps, r.batch, r.longest, r.seed), batch_at, [r.steps], gain=1.0)
    return Model(module, config, snapshot.raw)


def train_masked(r: Recipe) -> Model:
    """A small BERT, trained to predict masked letters (`training.masking`)."""
    module = architecture("bert")
    config = module.Config(V + 2, r.width, 2, 2, r.longest, 4 * r.width)
    batch_at = partial(hidden_letters, r)
    (snapshot,) = learn("bert", config, falling(r.rate, r.steps, r.batch, r.longest, r.seed), batch_at, [r.steps], gain=1.0)
    return Model(module, config, snapshot.raw, tokenizer())


def tokenizer() -> Tokenizer:
    """A vocabulary of the letters, each a word, and the mask."""
    return Tokenizer(WordPiece(dict(enumerate((*LETTERS, "[UNK]"))), V), [AddedToken(MASK, "[MASK]", special=True)])


def in_float64(model: Model) -> Model:
    """The same model with parameters in float64, in NumPy: not every backend has float64."""
    to_numpy = model.backend.xp.to_numpy
    params = {name: to_numpy(p).astype(np.float64) for name, p in model.params.items()}
    return Model(model.architecture, model.config, params, model.tokenizer)


def behind_begin(texts: np.ndarray) -> np.ndarray:
    """Texts (R, T), each preceded by BEGIN: (R, 1 + T)."""
    return np.concatenate([np.full((len(texts), 1), BEGIN, np.int32), texts], axis=1)


def letter_logs(model: Model, tokens: np.ndarray) -> np.ndarray:
    """The log-probabilities of the letters at every position of tokens (R, T): (R, T, 4) float64, nats."""
    return log_probabilities(model.backend.xp.to_numpy(model.logits(tokens)).astype(np.float64)[..., :V])


def log_likelihood(model: Model, texts: np.ndarray) -> np.ndarray:
    """Σ_t log p(x_t | letters before) of texts (R, T) from one pass: (R,) float64, nats."""
    found = letter_logs(model, np.ascontiguousarray(behind_begin(texts)[:, :-1]))
    return np.take_along_axis(found, texts[..., None], axis=-1).sum(axis=(1, 2))


def pseudo_log_likelihood(model: Model, texts: np.ndarray) -> np.ndarray:
    """Σ_t log p(x_t | all other letters) of texts (R, T), one pass for each t: (R,) float64, nats."""
    total = np.zeros(len(texts))
    for t in range(texts.shape[1]):
        hidden = np.where(np.arange(texts.shape[1]) == t, np.int32(MASK), texts)
        total = total + np.take_along_axis(letter_logs(model, hidden)[:, t], texts[:, t, None], axis=-1)[:, 0]
    return total
