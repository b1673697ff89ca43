"""The samplers, on draws that no rounding can tip: every limit and every uniform falls in the middle of its interval.

Logits are eighths, so that they are equal or clearly apart.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.decoding import cuts, llama2c_random, penalties
from refllm.decoding.memory import remember
from refllm.decoding.mirostat import corrected, surprise_cut
from refllm.decoding.sampler import Mirostat, Sampler
from refllm.decoding.sampling import distribution, greedy, observe, sample
from refllm.decoding.sampling import draw as draw_token

from . import bounded
from .check import Check
from .strategies import integers, normals, seeds

LEAST = 1e-3  # the least probability at whose token something is decided
AIM = Mirostat(tau=1.5, eta=0.25)
READER = Sampler(
    0.7, repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25, no_repeat_ngram=2, logit_bias={0: 1.0}
)


class Decided(NamedTuple):
    """One row of logits with a limit for each cut, and uniforms that decide draws."""

    logits: Any  # (1, V)
    k: int
    p: float  # of top-p and llama2.c's
    share: float  # of min-p
    mass: float  # of typical
    epsilon: float
    eta: float
    mu: Any  # (1,), bits
    uniform: Any  # (1,), of a draw in order of ids
    falling: Any  # (1,), of a draw in llama2.c's order, cut at p


def _softmax(logits):
    weights = np.exp(logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True))
    return weights / np.sum(weights, axis=-1, keepdims=True)


def _eighths(logits):
    return (np.round(logits * 8) / 8).astype(np.float32)


def _middle(p, order, rng):
    """A number in the middle of what one likely token adds to the probabilities summed in an order."""
    places = np.flatnonzero(p[order] > LEAST)
    place = rng.choice(places)
    return float(np.sum(p[order][:place]) + p[order][place] / 2)


def _between(values, rng):
    """A number between two neighbours of distinct positive values, in the middle of their logarithms, or below all."""
    steps = np.unique(values[values > LEAST])
    i = rng.integers(0, len(steps))
    return float(np.sqrt(steps[i] * steps[i - 1]) if i else steps[0] * np.exp(-1 / 16))


@st.composite
def _decided(draw):
    V, rng = draw(st.integers(1, 17)), np.random.default_rng(draw(seeds))
    logits = _eighths(draw(normals((1, V), scale=2.0)))
    p = _softmax(logits)[0]
    surprise = -np.log(p)
    entropy = np.sum(p * surprise)
    distance = np.abs(surprise - entropy)
    _, first = np.unique(logits[0], return_index=True)
    assume(len(first) == 1 or np.min(np.diff(np.sort(distance[first]))) > LEAST)  # equal ones stay so, others keep their order
    by_id, by_distance = np.arange(V), np.lexsort((np.arange(V), np.round(distance, 6)))
    likeliest = np.lexsort((by_id, -logits[0]))
    eta = _between(p, rng)
    epsilon_of_eta = eta if eta <= np.exp(-2 * entropy) else eta**2 * np.exp(2 * entropy)
    assume(epsilon_of_eta < 1)
    top_p = _middle(p, likeliest, rng)
    kept = likeliest[: int(np.searchsorted(np.cumsum(p[likeliest]), top_p)) + 1]
    assume(np.all(np.abs(p / ((1 - top_p) / max(1, V - 1)) - 1) > LEAST))  # llama2.c leaves smaller ones out
    kept = kept[p[kept] >= (1 - top_p) / max(1, V - 1)] if V > 1 else kept
    assume(len(kept) > 0)
    falling = _middle(p, kept, rng) / np.sum(p[kept]) if np.any(p[kept] > LEAST) else 0.0
    return Decided(
        logits,
        draw(st.integers(1, V)),
        top_p,
        _between(p / np.max(p), rng),
        _middle(p, by_distance, rng),
        _between(p, rng),
        float(epsilon_of_eta),
        np.array([-np.log2(_between(p, rng))], np.float32),
        np.array([_middle(p, by_id, rng)], np.float32),
        np.array([falling], np.float32),
    )


def _cuts(backend: Backend, drawn: Decided):
    logits = drawn.logits
    return {
        "greedy": greedy(logits),
        "temperature": cuts.temperature(logits, 0.7),
        "top_k": cuts.top_k(logits, drawn.k),
        "top_p": cuts.top_p(logits, drawn.p),
        "min_p": cuts.min_p(logits, drawn.share),
        "typical": cuts.typical(logits, drawn.mass),
        "epsilon": cuts.epsilon_cut(logits, drawn.epsilon),
        "eta": cuts.eta_cut(logits, drawn.eta),
        "mirostat": surprise_cut(logits, drawn.mu),
        "mirostat's threshold": corrected(drawn.mu, logits, greedy(logits), AIM),
        "draw": draw_token(logits, drawn.uniform),
        "llama2.c": llama2c_random.draw(logits, drawn.uniform, 1.0, None),
        "llama2.c with top_p": llama2c_random.draw(logits, drawn.falling, 1.0, drawn.p),
    }


@st.composite
def _told(draw):
    """logits (B, V), prompts (B, T) ragged at the left, what of them is valid, two tokens of text, and what is allowed."""
    B, V, T = draw(st.integers(1, 3)), draw(st.integers(2, 9)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(seeds))
    prompts, text = rng.integers(0, V, (B, T)).astype(np.int32), rng.integers(0, V, (B, 2)).astype(np.int32)
    valid = np.arange(T)[None, :] >= rng.integers(0, T, (B, 1))
    allowed = rng.random((B, V)) < 0.8
    allowed[:, -1] = True
    return _eighths(draw(normals((B, V), scale=2.0))), prompts, valid, text, allowed


def _penalties(backend: Backend, drawn):
    logits, prompts, valid, text, allowed = drawn
    V = logits.shape[-1]
    memory: Any = remember(READER, prompts, valid, backend.xp, V)
    for column in range(2):
        memory = observe(memory, text[:, column], logits, READER)
    return {
        "seen": memory.seen,
        "counts": memory.counts,
        "history": memory.history,
        "bias": penalties.bias(logits, ((0, 0.5), (V - 1, -backend.xp.inf))),
        "repetition": penalties.repetition(logits, memory.seen, 1.3),
        "presence and frequency": penalties.presence_and_frequency(logits, memory.counts, 0.5, 0.25),
        "no repeated n-gram": penalties.no_repeat_ngram(logits, memory.history, 2),
        "distribution": distribution(logits, READER, memory, allowed),
    }


@st.composite
def _rows(draw):
    """What `_told` draws, and for each row a uniform in the middle of a likely token's interval."""
    told = draw(_told())

    logits, prompts, valid, _, allowed = (bounded.backend.xp.from_numpy(a) for a in told)
    memory = remember(READER, prompts, valid, bounded.backend.xp, logits.shape[-1])
    rng = np.random.default_rng(draw(seeds))
    p = distribution(logits, READER, memory, allowed).value
    uniforms = np.array([_middle(row, np.arange(len(row)), rng) for row in p], np.float32)
    return *told, uniforms


def _draws(backend: Backend, drawn):
    logits, prompts, valid, _, allowed, uniforms = drawn
    memory: Any = remember(READER, prompts, valid, backend.xp, logits.shape[-1])
    tokens, memory = sample(logits, uniforms, READER, memory, allowed)
    return {"tokens": tokens, "history": memory.history, "counts": memory.counts}


def _greedy_ties(backend: Backend, drawn):
    return {"greedy": greedy(drawn[0])}


CHECKS = [
    Check("sampling", "decoding", _decided(), _cuts, halves=False),
    Check("penalties", "decoding", _told(), _penalties, halves=False),
    Check("draws after penalties", "decoding", _rows(), _draws, halves=False),
    Check("greedy among ties", "decoding", integers((5, 9), 0, 3).map(lambda x: (x.astype(np.float32),)), _greedy_ties),
]
