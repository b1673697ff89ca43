"""What stands behind a mask, and how likely a masked model finds a whole text.

A masked model gives the probability of a token from what stands on both sides of it. Its pseudo-log-likelihood of a text (Salazar
2020, arXiv:1910.14659, equation 1) hides each token in turn:

    PLL = Σ_t log p(token t | all other tokens)          pseudo-perplexity = exp(−PLL / tokens)

It is no logarithm of a probability, for the texts' do not sum to one; it compares texts of the same model.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding.logprobs import likeliest, log_softmax
from refllm.evaluation.likelihood import LOGITS, tokenizer_of
from refllm.layers.blocks import blocks
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer
from refllm.tokenizer.tokenizer import MASK_NAMES


class Filling(NamedTuple):
    """The likeliest tokens in place of one mask, the likeliest first."""

    position: int  # of the mask among the tokens that the model read
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]  # nats


def fill(model: Model, text: str, k: int = 5) -> list[Filling]:
    """The k likeliest tokens in place of each mask of a text, each mask judged while the others stay.

    text: holds the mask as the vocabulary spells it, [MASK] for BERT
    Raises ValueError for a text without a mask or longer than the model reads, and a model that sees only what came before.
    """
    tokenizer, mask = tokenizer_of(model), mask_of(model)
    if not 1 <= k <= model.config.vocab_size:
        raise ValueError(f"k={k} must be 1 … {model.config.vocab_size}, the tokens that there are.")
    spelled = tokenizer.bytes_of(mask).decode()
    tokens = np.asarray(tokenizer.with_special_tokens(tokenizer.encode(text, {spelled}, ())))
    places = np.flatnonzero(tokens == mask)
    if not len(places):
        raise ValueError(f"the text holds no {spelled}; write it where a token is to be guessed.")
    found = likeliest(log_softmax(_read(model, tokens[None, :], places[None, :])), k)
    ids, nats = (_on_host(model, x)[0] for x in found)  # (masks, k)
    return [Filling(place, tuple(map(int, ids[i])), tuple(map(float, nats[i]))) for i, place in enumerate(places.tolist())]


def masked_log_probabilities(model: Model, tokens: Any, places: Any) -> np.ndarray:
    """The log-probability of the token at each of some places when it alone is hidden: (n,) float64, in nats.

    tokens: (T,) ids, special ones included    places: (n,) positions among them
    Raises ValueError for a model without a tokenizer, whose mask is not known, and for tokens that it cannot read.
    """
    tokens, places = np.asarray(tokens), np.asarray(places, dtype=np.int64)
    mask, T = mask_of(model), len(tokens)
    rows_at_once = max(1, LOGITS // (T * model.config.vocab_size))
    found = [np.zeros(0)]
    for start, stop in blocks(len(places), rows_at_once):
        hidden = places[start:stop]
        rows = np.where(np.arange(T) == hidden[:, None], mask, tokens)  # (n, T), each with one token hidden
        p = log_softmax(_read(model, rows, hidden[:, None]))  # (n, 1, V)
        xp = model.backend.xp
        found.append(
            _on_host(model, xp.take_along_axis(p, xp.from_numpy(tokens[hidden].astype(np.int32))[:, None, None], axis=-1))
        )
    return np.concatenate([x.reshape(-1) for x in found])


class PseudoLikelihood(NamedTuple):
    """A text in the eyes of a masked model."""

    tokens: tuple[int, ...]  # of the text, without those that the model's makers put around it
    log_probabilities: np.ndarray  # (tokens,) float64, nats: of each given all the others

    @property
    def total(self) -> float:
        """The pseudo-log-likelihood, in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def pseudo_perplexity(self) -> float:
        """exp(−total / tokens)."""
        return math.exp(-self.total / len(self.tokens))


def pseudo_log_likelihood(model: Model, text: str) -> PseudoLikelihood:
    """Hide each token of a text in turn, and ask how likely it is given the others.

    Raises ValueError for an empty text, one longer than the model reads, and a model that sees only what came before.
    """
    tokenizer = tokenizer_of(model)
    mask_of(model)
    ids = tokenizer.encode(text, disallowed_special=())
    if not ids:
        raise ValueError("the text is empty; there is no token to hide.")
    before = len(tokenizer.template.before) if tokenizer.template else 0
    places = np.arange(before, before + len(ids))
    return PseudoLikelihood(tuple(ids), masked_log_probabilities(model, tokenizer.with_special_tokens(ids), places))


def mask_of(model: Model) -> int:
    """The id of a masked model's mask. Raises ValueError for another model, and for a vocabulary without one."""
    if model.architecture.AUTOREGRESSIVE:
        name = model.architecture.__name__.rpartition(".")[2]
        raise ValueError(f"{name} predicts the next token and fills no masks; `refllm score` and `generate` are for it.")
    tokenizer: Tokenizer = tokenizer_of(model)
    if tokenizer.mask is None:
        raise ValueError(f"the vocabulary has no mask: none of its special tokens is {' or '.join(MASK_NAMES)}.")
    return tokenizer.mask


def _read(model: Model, tokens: np.ndarray, places: np.ndarray):
    """The logits (B, n, V) at places (B, n) of tokens (B, T)."""
    xp, room, (B, T) = model.backend.xp, model.config.max_positions, tokens.shape
    if room < T:
        raise ValueError(f"the text has {T} tokens; the model reads at most {room} at once, and needs them all.")
    logits = model.architecture.forward(model.params, model.tokens(tokens), model.config).logits
    flat = xp.from_numpy((np.arange(B)[:, None] * T + places).reshape(-1).astype(np.int32))
    return xp.reshape(xp.take(xp.reshape(logits, (B * T, -1)), flat, axis=0), (*places.shape, logits.shape[-1]))


def _on_host(model: Model, x) -> np.ndarray:
    """An array in float64 NumPy. Raises ValueError where it holds what is no number."""
    values = model.backend.xp.to_numpy(x).astype(np.float64)
    if np.isnan(values).any():
        raise ValueError("the logits are not finite numbers: the model's weights or activations overflow.")
    return values
