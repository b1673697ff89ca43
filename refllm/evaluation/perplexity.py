"""How well a model predicts a text: perplexity, and bits per byte, which compare across tokenizers.

    perplexity = exp(−Σ log p / tokens)          bits per byte = −Σ log₂ p / bytes

A text longer than the model's context is read in windows that overlap, as transformers documents it ("Perplexity of fixed-length
models"): window i begins at i · stride and scores what no earlier window scored, so each token is scored exactly once, and after
the first window each sees at least context − stride tokens before it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.evaluation.likelihood import Scores, check_causal, score_rows, tokenizer_of
from refllm.layers.blocks import blocks
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer


class Window(NamedTuple):
    """Tokens begin … end − 1 of a text are read, those from `scored` on are scored."""

    begin: int
    end: int
    scored: int


def windows(n_tokens: int, context: int, stride: int) -> list[Window]:
    """The windows over a text that score each of its tokens but the first once.

    context: tokens in a window    stride: from the beginning of one to that of the next, 1 … context − 1
    Raises ValueError where the windows would leave tokens out, or a window could score none.
    """
    if context < 2:
        raise ValueError(f"context={context} leaves no token to predict from; a window needs at least 2.")
    if not 1 <= stride < context:
        raise ValueError(f"stride={stride} must be 1 … {context - 1}, below the context of {context}: windows overlap.")
    found, scored = [], 1
    for begin in range(0, n_tokens, stride):
        end = min(begin + context, n_tokens)
        if end > scored:
            found.append(Window(begin, end, scored))
        scored = end
        if end == n_tokens:
            break
    return found


def score_text(
    model: Model,
    tokens: Sequence[int] | np.ndarray,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch: int = 8,
    alternatives: int = 0,
) -> Iterator[Scores]:
    """Score every token but the first of a text of any length, in order, a batch of windows at a time: (n,) each.

    tokens: (T,) ids    context: tokens in a window; the model's own where not given    stride: half of it where not given
    Raises ValueError for windows that the model cannot read, and as `likelihood.score_tokens` does.
    """
    check_causal(model)
    context = model.config.max_positions if context is None else context
    if context > model.config.max_positions:
        raise ValueError(f"context={context} is longer than the model's, max_positions={model.config.max_positions}.")
    places = windows(len(tokens), context, max(1, context // 2) if stride is None else stride)
    for start, stop in blocks(len(places), batch):
        several = places[start:stop]
        rows, counts = [list(tokens[w.begin : w.end]) for w in several], [w.end - w.scored for w in several]
        found = score_rows(model, rows, counts, batch=batch, alternatives=alternatives)
        yield Scores(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


class Perplexity(NamedTuple):
    """How well a text is predicted. Texts add up: their nats, tokens, bytes and words do."""

    nats: float  # −Σ log p of all tokens scored
    n_tokens: int  # that were scored
    n_bytes: int  # of UTF-8 that they stand for
    n_words: int  # between white space, in the whole text

    @property
    def nats_per_token(self) -> float:
        """The loss of training."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """Among how many equally likely tokens the model would be as unsure."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    @property
    def bits_per_token(self) -> float:
        """The surprise of a token, in bits."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """What a byte would take if the model compressed the text, in bits."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else math.inf

    @property
    def bits_per_word(self) -> float:
        """The same of a word."""
        return self.nats / math.log(2) / self.n_words if self.n_words else math.inf

    def __add__(self, other: Any) -> "Perplexity":
        """Of both texts together."""
        return Perplexity(*(a + b for a, b in zip(self, other, strict=True)))


def _unwatched(scored: int, of: int) -> None:
    """Nobody asks how far it is."""


def perplexity(
    model: Model,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
    batch: int = 8,
    watch: Callable[[int, int], None] = _unwatched,
) -> Perplexity:
    """How well a model predicts a text.

    context, stride: of the windows, in tokens; the model's context, and half of it, where not given
    bos: whether the text's first token is scored too, after the one that begins a document (or, for a vocabulary that has none,
    ends one); where not given, if there is one that begins    batch: windows at once, which changes no result
    watch: called with how many tokens are scored, and how many there are
    Raises ValueError for a text too short to be scored, and as `score_text` does.
    """
    tokens, n_bytes = text_tokens(tokenizer_of(model), text, bos)
    nats, n_scored = [], 0
    for scores in score_text(model, tokens, context=context, stride=stride, batch=batch):
        nats.append(-math.fsum(scores.log_probabilities))
        n_scored += len(scores.log_probabilities)
        watch(n_scored, len(tokens) - 1)
    return Perplexity(math.fsum(nats), n_scored, n_bytes, len(text.split()))


def text_tokens(tokenizer: Tokenizer, text: str, bos: bool | None) -> tuple[np.ndarray, int]:
    """The ids of a text, (T,), behind the one that begins a document if bos asks for it, and the bytes of all but the first.

    Raises ValueError for a text of which nothing is predicted.
    """
    begins = document_begin(tokenizer, bos)
    ids = tokenizer.encode_array(text, disallowed_special=(), backend="numpy")
    n_bytes = len(text.encode("utf-8", "replace"))
    if begins is not None:
        tokens = np.concatenate([np.asarray([begins], ids.dtype), ids])
    else:
        tokens, n_bytes = ids, n_bytes - sum(map(len, tokenizer.stretches(ids[:1].tolist())))
    if len(tokens) < 2:
        raise ValueError(f"the text has {len(ids)} tokens; the first only begins it, so nothing is predicted.")
    return tokens, n_bytes


def document_begin(tokenizer: Tokenizer, bos: bool | None) -> int | None:
    """The token to put before a text, or None. Raises ValueError where one is wanted and there is none."""
    if bos is None:
        return tokenizer.bos
    first = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    if bos and first is None:
        raise ValueError("no token of this vocabulary begins or ends a document; score the text without one (--no-bos).")
    return first if bos else None
