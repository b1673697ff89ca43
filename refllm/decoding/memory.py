"""What samplers remember of the text so far: a value that the caller owns, rows first, so that rows can be taken and joined."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from refllm.array_api import namespace
from refllm.decoding.mirostat import corrected
from refllm.decoding.penalties import count_tokens
from refllm.decoding.sampler import Mirostat, Sampler


class Memory(NamedTuple):
    """None stands for what the sampler does not ask."""

    seen: Any = None  # (B, V) bool: tokens of the prompt and the text
    counts: Any = None  # (B, V) int32: how often each token stands in the text
    history: Any = None  # (B, S) int32: the prompt and the text, −1 where there is no token
    mu: Any = None  # (B,) float32: the largest surprise that mirostat allows, in bits


def remember(sampler: Sampler, prompts, valid, xp, vocab_size: int) -> Memory | None:
    """What a sampler needs to know of its prompts; None where it needs nothing.

    prompts: (B, T) int32    valid: (B, T) bool, False for padding, or None; both of xp's backend or of NumPy
    """
    if not sampler.needs_memory:
        return None
    prompts = prompts if namespace(prompts) is xp else xp.from_numpy(prompts)
    tokens = xp.astype(prompts, xp.int32, copy=False)
    if valid is not None:
        valid = valid if namespace(valid) is xp else xp.from_numpy(valid)
        tokens = xp.where(valid, tokens, xp.full_like(tokens, -1))
    B = tokens.shape[0]
    return Memory(
        seen=count_tokens(tokens, vocab_size) > 0 if sampler.counts_prompt else None,
        counts=xp.zeros((B, vocab_size), dtype=xp.int32) if sampler.counts_text else None,
        history=tokens if sampler.no_repeat_ngram is not None else None,
        mu=None if sampler.mirostat is None else xp.full((B,), 2 * Mirostat(*sampler.mirostat).tau, dtype=xp.float32),
    )


def follow(memory: Memory | None, tokens, tempered, sampler: Sampler) -> Memory | None:
    """The memory after tokens (B,) int32 were chosen from tempered logits (B, V); −1 is no token and changes nothing."""
    if memory is None:
        return None
    xp = namespace(tokens)
    if memory.seen is not None:
        memory = memory._replace(seen=memory.seen | _is(tokens, memory.seen.shape[1]))
    if memory.counts is not None:
        memory = memory._replace(counts=memory.counts + xp.astype(_is(tokens, memory.counts.shape[1]), xp.int32))
    if memory.history is not None:
        memory = memory._replace(history=xp.concat([memory.history, tokens[:, None]], axis=1))
    if memory.mu is not None and sampler.mirostat is not None:
        memory = memory._replace(mu=corrected(memory.mu, tempered, tokens, Mirostat(*sampler.mirostat)))
    return memory


def take_memory(memory: Memory | None, rows, longest: int | None = None) -> Memory | None:
    """The memory of some rows, each as often as it is named.

    rows: (B',) int32 of the same backend, or a list    longest: if known, the most tokens that one of these rows has; what a
    joined history keeps beyond is then let go
    """
    if memory is None:
        return None
    xp = _namespace(memory)
    rows = xp.asarray(list(rows), dtype=xp.int32) if isinstance(rows, Sequence) else rows
    taken = Memory(*(None if x is None else xp.take(x, rows, axis=0) for x in memory))
    if taken.history is None or longest is None:
        return taken
    return taken._replace(history=taken.history[:, max(0, taken.history.shape[1] - longest) :])


def join_memory(memories: Sequence[Memory | None]) -> Memory | None:
    """The rows of several memories of one sampler, in order."""
    kept = [m for m in memories if m is not None]
    if not kept:
        return None
    if len(kept) < len(memories):
        raise ValueError("memories of different samplers cannot be joined: some are None, and some are not.")
    xp = _namespace(kept[0])
    histories = [m.history for m in kept if m.history is not None]
    S = max((h.shape[1] for h in histories), default=0)
    joined = [
        None if x[0] is None else xp.concat([_padded(h, S) for h in x] if name == "history" else x, axis=0)
        for name, x in zip(Memory._fields, zip(*kept, strict=True), strict=True)
    ]
    return Memory(*joined)


def _is(tokens, V: int):
    """Whether each row's token is the v-th: (B, V) bool."""
    xp = namespace(tokens)
    return xp.arange(V, dtype=xp.int32)[None, :] == tokens[:, None]


def _padded(history, S: int):
    """A history with −1 at the left, so that it is (B, S)."""
    xp = namespace(history)
    none = xp.full((history.shape[0], S - history.shape[1]), -1, dtype=xp.int32)
    return xp.concat([none, history], axis=1)


def _namespace(memory: Memory):
    return namespace(next(x for x in memory if x is not None))
