"""Masked training (Devlin 2018, arXiv:1810.04805, section 3.1): tokens are hidden, and the model learns to guess them.

Of the tokens of a window 15 % are chosen, and one at least. Of the chosen 80 % become the mask, 10 % a token drawn from all, and
10 % stay, lest the model trust what is no mask. They alone are targets. Special tokens are never chosen, nor drawn.

The draws come from the host, addressed by (seed, step): every backend learns the same, a resumed run goes on as it would have,
and a text that is read again is hidden otherwise.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.tokenizer import Tokenizer
from refllm.training import data
from refllm.training.data import Corpus
from refllm.training.step import IGNORED

CHOSEN, MASKED, DRAWN = 0.15, 0.8, 0.1  # the share of tokens chosen; of these, those masked, and those drawn anew


@dataclass(frozen=True, eq=False)
class Masking:
    """What hiding tokens needs to know of a vocabulary."""

    mask: int  # the id that stands for a hidden token
    ordinary: np.ndarray  # (V,) bool: the tokens that may be chosen, and drawn
    before: tuple[int, ...]  # the special tokens that the vocabulary's makers put around a text
    behind: tuple[int, ...]

    @property
    def n_around(self) -> int:
        """How many tokens of a window stand around the text."""
        return len(self.before) + len(self.behind)


def masking_of(tokenizer: Tokenizer, context: int) -> Masking:
    """How tokens of a vocabulary are hidden in windows of a context.

    Raises ValueError where it has no mask, and where the special tokens around a text leave no room for it.
    """
    if tokenizer.mask is None:
        raise ValueError(
            "the tokenizer has no mask to hide tokens with: none of its special tokens is [MASK], <mask> or <|mask|>. "
            "Choose another as data.tokenizer, or none, and one is trained."
        )
    ordinary = np.zeros(tokenizer.vocab_size, dtype=bool)
    for i in range(tokenizer.vocab_size):
        with suppress(ValueError):  # an id without a token
            ordinary[i] = bool(tokenizer.bytes_of(i)) and not tokenizer.is_special(i)
    template = tokenizer.template
    masking = Masking(tokenizer.mask, ordinary, template.before if template else (), template.behind if template else ())
    if context <= masking.n_around:
        raise ValueError(
            f"training.context={context} has no room for text: {masking.n_around} special tokens stand around it. Make it longer."
        )
    return masking


def hide(tokens: np.ndarray, uniforms: np.ndarray, masking: Masking) -> tuple[np.ndarray, np.ndarray]:
    """The tokens with some hidden, and the targets: what stood there, −100 elsewhere; (..., T) int32 each.

    tokens: (..., T) integers    uniforms: (..., T, 3) in [0, 1): whether a token is chosen, what becomes of it, what is drawn
    """
    free = masking.ordinary[tokens]
    lot = np.where(free, uniforms[..., 0], np.inf)
    chosen = free & ((lot < CHOSEN) | (lot == np.min(lot, axis=-1, keepdims=True)))
    ids = np.flatnonzero(masking.ordinary)
    drawn = ids[(uniforms[..., 2] * len(ids)).astype(np.int64)] if len(ids) else tokens
    fate = uniforms[..., 1]
    hidden = np.where(fate < MASKED, masking.mask, np.where(fate < MASKED + DRAWN, drawn, tokens))
    return np.where(chosen, hidden, tokens).astype(np.int32), np.where(chosen, tokens, IGNORED).astype(np.int32)


def batch(
    masking: Masking, corpus: Corpus, seed: int, step: int, index: int, *, context: int, batch: int, accumulation: int
) -> tuple[Any, Any]:
    """Micro-batch `index` of a step: tokens and targets, (B, T) int32 NumPy arrays each.

    Windows and draws are those of the whole step, so k micro-batches of B windows are one batch of k·B.
    """
    inner = context - masking.n_around
    tokens, _ = data.batch(corpus, seed, step, index, context=inner, batch=batch, accumulation=accumulation)
    uniforms = generator(seed, "mask", step).random((accumulation, batch, context, 3))
    return hide(_surrounded(tokens, masking), uniforms[index], masking)


def evaluation_batches(masking: Masking, corpus: Corpus, *, context: int, batch: int, windows: int) -> Iterator[tuple[Any, Any]]:
    """The windows of an evaluation, some at a time: (B, T) tokens and targets, hidden alike every time and in every run."""
    n_before = 0
    for tokens, _ in data.evaluation_batches(corpus, context=context - masking.n_around, batch=batch, windows=windows):
        uniforms = [generator(0, "mask/evaluation", n_before + i).random((context, 3)) for i in range(len(tokens))]
        n_before += len(tokens)
        yield hide(_surrounded(tokens, masking), np.stack(uniforms), masking)


def _surrounded(tokens: np.ndarray, masking: Masking) -> np.ndarray:
    """tokens: (B, T) with the special tokens around each row."""
    rows = len(tokens)
    before, behind = (np.broadcast_to(np.asarray(ids, np.int32), (rows, len(ids))) for ids in (masking.before, masking.behind))
    return np.concatenate([before, tokens, behind], axis=1)
