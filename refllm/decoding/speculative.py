"""Speculative decoding: somebody cheap drafts a few tokens, the model reads them all at once and keeps those that it would
have written itself (Leviathan 2023, arXiv:2211.17192, algorithm 1; Chen 2023, arXiv:2302.01318, algorithm 2).

    accept xᵢ with probability min(1, pᵢ(xᵢ) / qᵢ(xᵢ))          the first one refused is drawn anew from norm(max(0, pᵢ − qᵢ))

x is drawn from the draft's distributions q, and the text that comes out has exactly the distribution p of the model alone.
Where nothing was drawn, the model's own tokens are sampled, and a draft that guessed them spares their steps.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator, namespace
from refllm.decoding.cache import new_cache
from refllm.decoding.drafts import Draft, Drafted
from refllm.decoding.fit import fit
from refllm.decoding.generate import check_continues
from refllm.decoding.memory import Memory, remember
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import distribution, draw_from, observe, sample, uniforms
from refllm.layers.kv_cache import rewind
from refllm.models.model import Model, check_ids


class Burst(NamedTuple):
    """The tokens that one forward of the model yields: those of the draft that it accepts, and one more."""

    tokens: np.ndarray  # (n,) int32, one at least; a token that ends the text is the last
    drafted: int  # tokens that the model was given to judge
    accepted: int  # of these
    seconds: float  # spent on it; the first one's is the time to the first token, prefill included


class Totals(NamedTuple):
    """What a text took."""

    tokens: int
    drafted: int
    accepted: int
    forwards: int  # of the model that judges
    seconds: float


def totals(bursts: Iterable[Burst]) -> Totals:
    """The sums over the bursts of a text."""
    tokens = drafted = accepted = forwards = 0
    seconds = 0.0
    for burst in bursts:
        tokens, forwards = tokens + len(burst.tokens), forwards + 1
        drafted, accepted, seconds = drafted + burst.drafted, accepted + burst.accepted, seconds + burst.seconds
    return Totals(tokens, drafted, accepted, forwards, seconds)


def speculate(
    model: Model,
    draft: Draft,
    prompt: Sequence[int],
    n_tokens: int,
    sampler: Sampler,
    seed: int,
    stop: Collection[int] = (),
) -> Iterator[Burst]:
    """Continue a prompt by up to n_tokens, several at once where the draft is good: `DraftModel` or `PromptLookup`.

    prompt: token ids    stop: ids that end the text; the id itself is yielded
    At temperature 0, and for every draft that draws nothing, the tokens are those of `generate` at the same seed.
    Raises ValueError, at once, as `generate` does and for a draft that does not fit the model; and while it runs, if the logits
    stop being numbers.
    """
    check_continues(model)
    ids, _ = fit(prompt, n_tokens, model.config.max_positions)
    check_ids(np.asarray(ids), "the prompt", model.config.vocab_size)
    length = len(ids) + n_tokens - 1  # the last token is never read back
    drafter = draft.begin(model, len(ids), length, sampler, seed)
    cache = new_cache(model, 1, length, slack=draft.n)
    return _bursts(model, drafter, draft.n, cache, ids, n_tokens, sampler, seed, frozenset(stop))


def _bursts(model: Model, drafter, n: int, cache, ids: list[int], n_tokens: int, sampler: Sampler, seed: int, stop):
    xp, text, end = model.backend.xp, list(ids), len(ids) + n_tokens
    memory = remember(sampler, np.asarray([ids], dtype=np.int32), None, xp, model.config.vocab_size)
    while len(text) < end:
        began, step = time.perf_counter(), len(text) - len(ids)
        drafted = drafter.propose(text, min(n, end - len(text) - 1), memory)
        k = drafted.tokens.shape[0]
        unread = xp.from_numpy(np.asarray(text[cache.length :], dtype=np.int32))
        tokens = xp.concat([unread, xp.maximum(drafted.tokens, xp.zeros_like(drafted.tokens))], axis=0)[None, :]
        output = model.architecture.forward(model.params, tokens, model.config, cache, last=k + 1)
        logits = output.logits[0, ...]  # (k + 1, V)
        memories = along(logits, drafted.tokens, sampler, memory)
        accepted, token = judge(logits, drafted, sampler, memories, seed, step)
        found = xp.to_numpy(xp.concat([accepted[None], token[None], drafted.tokens], axis=0)).tolist()
        chosen = _checked(found[0], found[1], found[2:], step)
        memory = observe(memories[found[0]], token[None], logits[found[0], :][None, :], sampler)
        text += chosen
        cache = rewind(output.cache, len(text) - 1)
        ends = next((i + 1 for i, id in enumerate(chosen) if id in stop), None)
        yield Burst(np.asarray(chosen[:ends], dtype=np.int32), k, found[0], time.perf_counter() - began)
        if ends is not None:
            return


def _checked(accepted: int, token: int, drafted: list[int], step: int) -> list[int]:
    """The tokens of a burst. Raises ValueError where logits were no numbers."""
    if any(id < 0 for id in drafted[: accepted + 1]):
        raise ValueError("the draft's logits are not finite numbers: its weights or activations overflow.")
    if token < 0:
        number = step + accepted + 1
        raise ValueError(f"the logits of token {number} are not finite numbers: the model's weights or activations overflow.")
    return [*drafted[:accepted], token]


def along(logits, tokens, sampler: Sampler, memory: Memory | None) -> list[Memory | None]:
    """What the sampler remembers before each of k tokens, and after the last.

    logits: (k + 1, V)    tokens: (k,) int32    memory: before the first
    """
    memories = [memory]
    for i in range(tokens.shape[0]):
        memories.append(observe(memories[i], tokens[i : i + 1], logits[i : i + 1, :], sampler))
    return memories


def judge(logits, drafted: Drafted, sampler: Sampler, memories: list[Memory | None], seed: int, step: int) -> tuple[Any, Any]:
    """How many of k tokens drafted for the places from `step` on are accepted, and the token behind them: both () int32.

    logits: (k + 1, V), the model's    memories: before each token, and after the last
    The token is −1 where the logits in its place hold NaN or +∞.
    """
    xp, k = namespace(logits), drafted.tokens.shape[0]
    numbers = np.concatenate([uniforms(seed, step + i, 1, sampler.draws) for i in range(k + 1)])
    rows = [(logits[i : i + 1, :], memory) for i, memory in enumerate(memories)]
    if drafted.q is None:
        u = xp.from_numpy(numbers)
        chosen = [sample(row, u[i : i + 1], sampler, memory)[0] for i, (row, memory) in enumerate(rows)]
        return guessed(xp.concat(chosen, axis=0), drafted.tokens)
    p = xp.concat([distribution(row, sampler, memory) for row, memory in rows], axis=0)
    chances = np.concatenate([generator(seed, "accept", step + i).random(1, dtype=np.float32) for i in range(k)])
    return speculated(p, drafted.q, drafted.tokens, xp.from_numpy(chances), xp.from_numpy(numbers))


def guessed(chosen, drafted) -> tuple[Any, Any]:
    """How many drafted tokens (k,) are those chosen (k + 1,), up to the first that is not, and the one chosen behind them."""
    n = _until(chosen[: drafted.shape[0]] == drafted)
    return n, _at(chosen, n)


def speculated(p, q, drafted, chances, uniforms) -> tuple[Any, Any]:
    """How many drafted tokens are accepted, and the token behind them: both () int32.

    p: (k + 1, V), the model's distributions    q: (k, V), those from which drafted (k,) was drawn
    chances: (k,) and uniforms: (k + 1,) in [0, 1), which decide what is accepted and what is drawn behind it
    The token is −1 where its row of p holds NaN.
    """
    xp, k = namespace(p), drafted.shape[0]
    ids = xp.maximum(drafted, xp.zeros_like(drafted))[:, None]
    likely, drawn = (xp.take_along_axis(x, ids, axis=-1)[:, 0] for x in (p[:k, :], q))
    n = _until(xp.astype(chances, q.dtype) * drawn < likely)
    rest = xp.maximum(p[:k, :] - q, xp.zeros_like(q))
    some = xp.sum(rest, axis=-1, keepdims=True) > 0  # where p = q nothing is refused, but by rounding
    weights = _at(xp.concat([xp.where(some, rest, p[:k, :]), p[k:, :]], axis=0), n)
    token = draw_from(weights, _at(uniforms, n))
    return n, xp.where(xp.isfinite(xp.sum(_at(p, n))), token, xp.full_like(token, -1))


def _until(kept):
    """How many of (k,) hold before the first that does not: () int32."""
    xp = namespace(kept)
    lost = xp.cumulative_sum(xp.astype(~kept, xp.int32), axis=0, dtype=xp.int32)
    return xp.sum(xp.astype(lost == 0, xp.int32), dtype=xp.int32)


def _at(x, n):
    """x[n] for an n () that the host does not know."""
    return namespace(x).take(x, n[None], axis=0)[0, ...]
