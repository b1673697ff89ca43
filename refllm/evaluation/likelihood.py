"""How likely a model finds tokens: the log-probability of each given those before it, in nats.

    log p(token t | tokens before) = z[token] − log Σ_V exp(z),   z the logits after token t − 1

The likelihood of a whole is the product of its parts', so the log-likelihood of a continuation is a sum. Where a prompt ends and
its continuation begins, tokens may straddle; the rule here is that of lm-evaluation-harness (Gao et al. 2021,
doi:10.5281/zenodo.5371628): both are encoded together, and a space at the prompt's end belongs to the continuation.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import namespace
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import pad_left
from refllm.decoding.logprobs import likeliest, log_softmax
from refllm.layers.blocks import blocks
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer

LOGITS = 1 << 23  # that exist at once: 32 MB in float32, however long the text and large the vocabulary


class Scores(NamedTuple):
    """What a model says of n tokens; the arrays' leading axes are (B, n), or (n,) for one row.

    Where nothing is predicted, at padding and at the token behind it, the numbers are 0.
    """

    log_probabilities: np.ndarray  # (…) float64, nats: of each token given those before it
    alternatives: np.ndarray  # (…, k) int32: the k likeliest tokens in its place, the lower id first among equals
    alternative_log_probabilities: np.ndarray  # (…, k) float64, nats


def token_log_probabilities(model: Model, tokens: Any, valid: Any = None) -> np.ndarray:
    """The log-probability of every token but the first given those before it: (B, T−1) float64, in nats.

    tokens: (B, T) ids, T − 1 at most the model's context    valid: (B, T) bool or None, False for padding at either side
    Raises ValueError as `score_tokens` does.
    """
    return score_tokens(model, tokens, valid).log_probabilities


def score_tokens(model: Model, tokens: Any, valid: Any = None, *, begin: int = 1, alternatives: int = 0) -> Scores:
    """Score tokens begin … T−1 of each row, of shape (B, T−begin), reading what comes before them once.

    tokens: (B, T) ids, T − 1 at most the model's context    valid: (B, T) bool or None, False for padding at either side
    alternatives: how many of the likeliest tokens to tell beside each
    Raises ValueError for a model that sees what follows, ids outside the vocabulary, tokens beyond the context, or logits that
    are no numbers.
    """
    check_causal(model)
    xp, V = model.backend.xp, model.config.vocab_size
    tokens = model.tokens(tokens)
    B, T = tokens.shape
    valid = xp.to_numpy(valid) if isinstance(valid, model.backend.array_type) else valid
    kept = np.ones((B, T), dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
    if kept.shape != (B, T):
        raise ValueError(f"valid has shape {kept.shape}; it needs that of tokens, {(B, T)}.")
    if model.config.max_positions < T - 1:
        raise ValueError(
            f"tokens has T={T}, but the model's context is max_positions={model.config.max_positions}: at most "
            f"{model.config.max_positions + 1} tokens are scored at once. Windows over longer texts are perplexity's."
        )
    if not (1 <= begin <= T and 0 <= alternatives <= V):
        raise ValueError(f"begin={begin} must be 1 … {T}, and alternatives={alternatives} 0 … {V}.")
    if begin == T:
        return Scores(np.zeros((B, 0)), np.zeros((B, 0, alternatives), np.int32), np.zeros((B, 0, alternatives)))
    begun = np.maximum.accumulate(kept, axis=1)  # padding at the right needs no hiding: no token before it sees it
    mask = None if begun.all() else xp.from_numpy(begun)
    cache, parts = new_cache(model, B, T - 1), []
    for start, stop in [(0, begin - 1)] * (begin > 1) + _spans(begin - 1, T - 1, LOGITS // (B * V)):
        read = {"valid": None if mask is None else mask[:, start:stop], "last": 1 if stop < begin else None}
        logits, cache, *_ = model.architecture.forward(model.params, tokens[:, start:stop], model.config, cache, **read)
        if stop >= begin:
            parts.append(_judge(logits, tokens[:, start + 1 : stop + 1], alternatives))
    predicted = kept[:, begin - 1 : -1] & kept[:, begin:]
    chosen, ids, theirs = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    if np.isnan(chosen[predicted]).any():
        raise ValueError("the logits are not finite numbers: the model's weights or activations overflow.")
    every = predicted[..., None]
    return Scores(np.where(predicted, chosen, 0.0), np.where(every, ids, np.int32(0)), np.where(every, theirs, 0.0))


def score_rows(
    model: Model, rows: Sequence[Sequence[int]], counts: Sequence[int], *, batch: int = 8, alternatives: int = 0
) -> list[Scores]:
    """Score the last counts[i] tokens of each row, the rows side by side in batches of similar length: (n,) for each.

    rows: ids, one list per row, of any lengths    batch: rows at once, which decides memory and speed and no result
    Raises ValueError as `score_tokens` does, and for a count that leaves no token before the first scored.
    """
    if batch < 1:
        raise ValueError(f"batch={batch} holds no row; it must be at least 1.")
    for row, count in zip(rows, counts, strict=True):
        if not 0 <= count < max(1, len(row)):
            raise ValueError(f"{count} tokens cannot be scored in a row of {len(row)}: the first follows at least one.")
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found: dict[int, Scores] = {}
    for start, stop in blocks(len(rows), batch):
        chosen = order[start:stop]
        tokens, valid = pad_left([rows[i] for i in chosen])
        T = tokens.shape[1]
        begin = T - max(counts[i] for i in chosen)
        scores = score_tokens(model, tokens, None if valid.all() else valid, begin=begin, alternatives=alternatives)
        for b, i in enumerate(chosen):
            found[i] = Scores(*(x[b, T - begin - counts[i] :] for x in scores))
    return [found[i] for i in range(len(rows))]


class Likelihood(NamedTuple):
    """How likely a continuation is after its prompt."""

    tokens: tuple[int, ...]  # of the continuation
    log_probabilities: np.ndarray  # (tokens,) float64, nats
    greedy: bool  # whether greedy decoding of as many tokens would write it
    n_bytes: int  # of the continuation in UTF-8
    cut: int  # tokens at the prompt's beginning that the context had no room for

    @property
    def total(self) -> float:
        """log p(continuation | prompt), in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def per_token(self) -> float:
        """Its mean over tokens, in nats."""
        return self.total / len(self.tokens)

    @property
    def per_byte(self) -> float:
        """Its mean over bytes, in nats, which does not depend on how the tokenizer cuts."""
        return self.total / self.n_bytes


def continuation_log_likelihood(model: Model, prompt: str, continuation: str) -> Likelihood:
    """How likely a continuation is after a prompt; the empty prompt is the beginning of a document.

    Raises ValueError for a model without a tokenizer, an empty continuation, one longer than the context, and an empty prompt
    where no token begins or ends a document.
    """
    return continuation_log_likelihoods(model, [(prompt, continuation)])[0]


def continuation_log_likelihoods(model: Model, pairs: Iterable[tuple[str, str]], *, batch: int = 8) -> list[Likelihood]:
    """The same for many pairs of a prompt and a continuation, side by side in batches."""
    check_causal(model)
    pairs, room = list(pairs), model.config.max_positions
    split = [split_tokens(tokenizer_of(model), *pair) for pair in pairs]
    for _, after in split:
        if len(after) > room:
            raise ValueError(f"a continuation has {len(after)} tokens; the model's context holds {room}.")
    rows = [[*before, *after][-room - 1 :] for before, after in split]
    found = score_rows(model, rows, [len(after) for _, after in split], batch=batch, alternatives=1)
    return [
        Likelihood(
            tokens=tuple(after),
            log_probabilities=scores.log_probabilities,
            greedy=scores.alternatives[:, 0].tolist() == after,
            n_bytes=len(continuation.encode("utf-8", "replace")),
            cut=len(before) + len(after) - len(row),
        )
        for (before, after), (_, continuation), row, scores in zip(split, pairs, rows, found, strict=True)
    ]


def split_tokens(tokenizer: Tokenizer, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and of its continuation, which are encoded together.

    White space at the prompt's end goes to the continuation, as most tokenizers put it before a word. A token that straddles
    the boundary is the continuation's, so that all of the text is there and each of its tokens is counted once.
    Before the prompt stands the token that begins a document, if there is one; before an empty prompt, else, the one that ends
    the document before.
    Raises ValueError for a continuation that adds no token, and where nothing can stand before it.
    """
    kept = prompt.rstrip()
    whole = tokenizer.encode(prompt + continuation, disallowed_special=())
    before = tokenizer.encode(kept, disallowed_special=())
    shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
    if not continuation or shared == len(whole):
        raise ValueError(f"the continuation {continuation!r} adds no token to the prompt; there is nothing to score.")
    first = tokenizer.bos if tokenizer.bos is not None or shared else tokenizer.eos
    if first is None and not shared:
        raise ValueError("the prompt is empty, and no token begins a document; give the continuation something to follow.")
    return ([] if first is None else [first]) + whole[:shared], whole[shared:]


def check_causal(model: Model) -> None:
    """Raise ValueError for a model that sees what follows, whose logits are no predictions of the next token."""
    if not model.architecture.AUTOREGRESSIVE:
        name = model.architecture.__name__.rpartition(".")[2]
        raise ValueError(f"{name} sees what follows, so it gives no likelihood of a text; its pseudo-log-likelihood is fill's.")


def tokenizer_of(model: Model) -> Tokenizer:
    """The model's tokenizer. Raises ValueError where it has none."""
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so it scores token ids only; give it one with its checkpoint.")
    return model.tokenizer


def _judge(logits, targets, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits: (B, n, V), targets: (B, n) -> the targets' log-probabilities and the k likeliest with theirs, on the host."""
    xp = namespace(logits)
    p = log_softmax(logits)
    chosen = xp.to_numpy(xp.take_along_axis(p, targets[..., None], axis=-1)[..., 0]).astype(np.float64)
    if k == 0:
        return chosen, np.zeros((*chosen.shape, 0), np.int32), np.zeros((*chosen.shape, 0))
    ids, theirs = likeliest(p, k)
    return chosen, xp.to_numpy(ids).astype(np.int32), xp.to_numpy(theirs).astype(np.float64)


def _spans(start: int, stop: int, block: int) -> list[tuple[int, int]]:
    """Consecutive spans of positions, none longer than a block."""
    return [(start + a, start + b) for a, b in blocks(stop - start, max(1, block))]
