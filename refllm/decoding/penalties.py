"""What changes logits before the temperature: a bias, tokens allowed, and penalties for what the text has said.

The repetition penalty is CTRL's (Keskar 2019, arXiv:1909.05858, section 4.1) and reads prompt and text, as in transformers;
presence and frequency penalties read the text alone, as in the OpenAI API and vLLM; no n-gram of prompt and text comes twice
(Paulus 2017, arXiv:1705.04304, section 2.5).
"""

from functools import lru_cache
from typing import Any

from refllm.array_api import namespace
from refllm.decoding.cuts import keep


def bias(logits, biases: tuple[tuple[int, float], ...]):
    """Add to the logits (..., V) of some tokens, given as pairs of id and number; −∞ forbids.

    Raises ValueError for an id outside the vocabulary.
    """
    V = logits.shape[-1]
    if outside := [token for token, _ in biases if token >= V]:
        raise ValueError(f"logit_bias names token {outside[0]}, but the vocabulary has the ids 0 to {V - 1}.")
    return logits + _dense(biases, V, logits.dtype, namespace(logits))


@lru_cache(maxsize=8)
def _dense(biases: tuple[tuple[int, float], ...], V: int, dtype: Any, xp: Any) -> Any:
    """The biases of all tokens, (V,), kept on the device from step to step."""
    by_token = dict(biases)
    return xp.asarray([by_token.get(token, 0.0) for token in range(V)], dtype=dtype)


def allow(logits, allowed):
    """Keep only tokens that are allowed. logits and allowed: (B, V). A row that allows none is all −∞."""
    return keep(logits, allowed)


def repetition(logits, seen, penalty: float):
    """Divide positive logits of tokens seen by the penalty and multiply negative ones by it. logits and seen: (B, V)"""
    xp = namespace(logits)
    return xp.where(seen, xp.where(logits < 0, logits * penalty, logits / penalty), logits)


def presence_and_frequency(logits, counts, presence: float, frequency: float):
    """Take presence from the logits of tokens counted, and frequency times their count. logits and counts: (B, V)"""
    xp = namespace(logits)
    return logits - presence * xp.astype(counts > 0, logits.dtype) - frequency * xp.astype(counts, logits.dtype)


def no_repeat_ngram(logits, history, n: int):
    """Forbid every token that would complete a run of n tokens for the second time.

    logits: (B, V)    history: (B, S) int32, prompt and text so far; −1 is no token
    A row of which nothing would be left stays as it is.
    """
    xp = namespace(logits)
    S, V = history.shape[1], logits.shape[-1]
    if n > S:
        return logits
    begins = S - n + 1  # of the runs in the history, and of the n−1 last tokens
    repeated = history[:, n - 1 :] >= 0  # (B, begins): whether the run's first n−1 tokens are the last n−1
    for j in range(n - 1):
        there, last = history[:, j : j + begins], history[:, begins + j : begins + j + 1]
        repeated = repeated & (there == last) & (there >= 0)
    completing = xp.where(repeated, history[:, n - 1 :], xp.full_like(history[:, n - 1 :], -1))
    kept = (count_tokens(completing, V) == 0) & (logits > -xp.inf)
    some = xp.any(kept, axis=-1, keepdims=True)
    return keep(logits, kept | ~some)


def count_tokens(tokens, V: int):
    """How often each of V tokens stands in each row of tokens (B, S) int32, where −1 is no token: (B, V) int32."""
    xp = namespace(tokens)
    B, S = tokens.shape
    rows = xp.arange(B, dtype=xp.int32)[:, None] * V
    places = xp.where(tokens >= 0, rows + tokens, xp.full_like(tokens, B * V))  # the last place is for those that are none
    counts = xp.zeros((B * V + 1,), dtype=xp.int32)
    counts = xp.scatter_add(counts, xp.reshape(places, (B * S,)), xp.ones((B * S,), dtype=xp.int32))
    return xp.reshape(counts[: B * V], (B, V))
