"""Choosing the next token: what the sampler forbids and penalises, tempered, cut, and drawn by one explicit uniform.

    p = softmax(logits / temperature)          token = the first i with p₀ + … + pᵢ > u,   u uniform in [0, 1)

Every function works on the device and never waits for it: a token that is chosen can be fed to the next step unread.
A token of probability zero is never drawn.
"""

import numpy as np

from refllm.array_api import generator, namespace
from refllm.decoding import cuts, llama2c_random, penalties
from refllm.decoding.cuts import weights
from refllm.decoding.memory import Memory, follow
from refllm.decoding.mirostat import surprise_cut
from refllm.decoding.sampler import Sampler

CUTS = {
    "top_k": cuts.top_k,
    "top_p": cuts.top_p,
    "min_p": cuts.min_p,
    "typical_p": cuts.typical,
    "epsilon": cuts.epsilon_cut,
    "eta": cuts.eta_cut,
}  # in their order


def sample(logits, uniforms, sampler: Sampler, memory: Memory | None = None, allowed=None):
    """Choose one token per row.

    logits: (B, V)    uniforms: (B,) in [0, 1), which decide the draw, or None for temperature 0, which draws nothing
    memory: of `remember`, where the sampler needs one
    allowed: (B, V) bool, which tokens may come at all, or None
    Returns (B,) int32, and the memory with them. A token is −1 where a row's logits hold NaN or +∞, or where no token is left
    that is allowed, which a caller sees when it reads the token.
    Raises ValueError for a sampler without the memory that it needs, and for a bias on a token outside the vocabulary.
    """
    xp = namespace(logits)
    scores = adjusted(logits, sampler, memory, allowed)
    tempered = None
    if sampler.temperature == 0:
        token = greedy(scores)
    elif sampler.draws == "llama2.c":
        token = llama2c_random.draw(scores, uniforms, sampler.temperature, sampler.top_p)
    else:
        tempered = cuts.temperature(scores, sampler.temperature)
        token = draw(_cut(tempered, sampler, memory), uniforms)
    token = xp.where(_sound(logits, scores), token, xp.full_like(token, -1))
    return token, follow(memory, token, tempered, sampler)


def observe(memory: Memory | None, tokens, logits, sampler: Sampler, allowed=None) -> Memory | None:
    """The memory after tokens (B,) int32 followed where the logits (B, V) stood, whoever chose them; −1 changes nothing."""
    if memory is None or memory.mu is None:
        return follow(memory, tokens, None, sampler)
    return follow(memory, tokens, cuts.temperature(adjusted(logits, sampler, memory, allowed), sampler.temperature), sampler)


def distribution(logits, sampler: Sampler, memory: Memory | None = None, allowed=None):
    """What `sample` draws from: (B, V), in float32 at least; NaN in a row for which it gives −1."""
    xp = namespace(logits)
    scores = adjusted(logits, sampler, memory, allowed)
    if sampler.temperature == 0:
        ids = xp.arange(logits.shape[-1], dtype=xp.int32)
        p = xp.astype(ids == greedy(scores)[:, None], xp.result_type(logits.dtype, xp.float32))
    elif sampler.draws == "llama2.c":
        p = llama2c_random.distribution(scores, sampler.temperature, sampler.top_p)
    else:
        p = cuts.probabilities(_cut(cuts.temperature(scores, sampler.temperature), sampler, memory))
    return xp.where(_sound(logits, scores)[:, None], p, xp.full_like(p, float("nan")))


def adjusted(logits, sampler: Sampler, memory: Memory | None = None, allowed=None):
    """The logits (B, V) after bias, allowed tokens and penalties: what a greedy sampler takes the largest of."""
    if sampler.needs_memory and memory is None:
        raise ValueError("the sampler asks what the text says so far; give it the memory that remember(…) makes of the prompts.")
    if sampler.logit_bias:
        logits = penalties.bias(logits, sampler.biases)
    if allowed is not None:
        logits = penalties.allow(logits, allowed)
    if memory is None:
        return logits
    if memory.seen is not None:
        logits = penalties.repetition(logits, memory.seen, sampler.repetition_penalty)
    if memory.counts is not None:
        logits = penalties.presence_and_frequency(logits, memory.counts, sampler.presence_penalty, sampler.frequency_penalty)
    if memory.history is not None and sampler.no_repeat_ngram is not None:
        logits = penalties.no_repeat_ngram(logits, memory.history, sampler.no_repeat_ngram)
    return logits


def greedy(logits):
    """The most likely token, the lowest id among equals. logits: (..., V) -> (...) int32"""
    xp = namespace(logits)
    return xp.astype(xp.argmax(logits, axis=-1), xp.int32)


def draw(logits, uniforms):
    """Draw from softmax(logits) by the inverse of its distribution function, in order of ids.

    logits: (..., V)    uniforms: (...) in [0, 1)    Returns (...) int32
    """
    return draw_from(weights(logits), uniforms)


def draw_from(weights, uniforms):
    """Draw with probabilities in proportion to weights (..., V), by uniforms (...) in [0, 1). Returns (...) int32"""
    xp = namespace(weights)
    reached = xp.cumulative_sum(weights, axis=-1)
    reached = xp.where(weights > 0, reached, xp.zeros_like(reached))  # so that none of weight zero is ever the first
    total = xp.max(reached, axis=-1, keepdims=True)
    threshold = xp.expand_dims(xp.astype(uniforms, total.dtype), axis=-1) * total
    passed = (reached > threshold) | (reached >= total)  # a uniform that rounds to 1 draws the last
    return xp.astype(xp.argmax(xp.astype(passed, xp.int32), axis=-1), xp.int32)


def uniforms(seed: int, step: int, B: int, draws: str = "philox") -> np.ndarray:
    """The (B,) float32 numbers in [0, 1) that decide one step's draws; a row's number is the same in any batch.

    draws: the generator's name, as in Sampler
    """
    if draws == "llama2.c":
        return np.asarray([llama2c_random.number(seed + row, step) for row in range(B)], dtype=np.float32)
    return generator(seed, "sample", step).random(B, dtype=np.float32)


def _cut(tempered, sampler: Sampler, memory: Memory | None):
    if memory is not None and memory.mu is not None:
        return surprise_cut(tempered, memory.mu)
    for name, cut in CUTS.items():
        limit = getattr(sampler, name)
        tempered = tempered if limit is None else cut(tempered, limit)
    return tempered


def _sound(logits, scores):
    """Whether each row's logits are numbers and leave a token to choose: (B,) bool."""
    xp = namespace(logits)
    sound = xp.isfinite(xp.max(logits, axis=-1))
    return sound if scores is logits else sound & (xp.max(scores, axis=-1) > -xp.inf)
