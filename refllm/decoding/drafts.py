"""Who drafts for speculative decoding: a smaller model, or the text itself, in which the same words often follow again
(Yang 2023, arXiv:2304.04487)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from refllm.array_api import generator
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import check_continues, prefill
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import distribution, draw_from, observe, sample
from refllm.layers.kv_cache import rewind
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer


class Drafted(NamedTuple):
    """Tokens for the model to judge, and how they came about."""

    tokens: Any  # (k,) int32 on the device, read by nobody yet; −1 where the draft's logits were no numbers
    q: Any = None  # (k, V), the distributions that they were drawn from; None where nothing was drawn


class Drafter(Protocol):
    """Drafts for one text, from its prompt to its end."""

    def propose(self, text: Sequence[int], most: int, memory: Any) -> Drafted:
        """Up to `most` tokens, perhaps none, that may follow the text.

        text: it begins as that of the call before did, up to the tokens drafted then    memory: what the sampler needs of it
        """


class Draft(Protocol):
    """A way to draft."""

    n: int  # tokens at once, at most

    def begin(self, model: Model, T: int, length: int, sampler: Sampler, seed: int) -> Drafter:
        """Begin to draft for a model, behind a prompt of T tokens, a text of `length` tokens at most.

        Raises ValueError where the draft does not fit the model.
        """


@dataclass(frozen=True)
class DraftModel:
    """The continuation by another model, smaller than the one that judges and of the same vocabulary."""

    model: Model
    n: int  # tokens at once, at most

    def __post_init__(self) -> None:
        _check_n(self.n)
        check_continues(self.model)

    def begin(self, model: Model, T: int, length: int, sampler: Sampler, seed: int) -> "ModelDrafter":
        check_shared(model, self.model)
        return ModelDrafter(self, T, length, sampler, seed)


@dataclass(frozen=True)
class PromptLookup:
    """What followed the last tokens of the text where they stood before."""

    longest: int  # so many of the last tokens are looked for, or else as many as are found
    n: int  # tokens at once, at most

    def __post_init__(self) -> None:
        _check_n(self.n)
        if self.longest < 1:
            raise ValueError(f"longest={self.longest} looks for no token; it must be at least 1.")

    def begin(self, model: Model, T: int, length: int, sampler: Sampler, seed: int) -> "LookupDrafter":
        return LookupDrafter(self.longest, model.backend.xp)


class ModelDrafter:
    """A model that reads along. It waits for no token, neither its own nor those of the model that judges."""

    def __init__(self, draft: DraftModel, T: int, length: int, sampler: Sampler, seed: int):
        self.model, self.T, self.sampler, self.seed = draft.model, T, sampler, seed
        self.room = min(length, self.model.config.max_positions)  # a text beyond it goes on without drafts
        self.cache = new_cache(self.model, 1, self.room, slack=draft.n)

    def propose(self, text: Sequence[int], most: int, memory: Any) -> Drafted:
        xp, start = self.model.backend.xp, len(text) - self.T
        n = min(most, self.room - len(text) + 1)  # the last token drafted is not read
        if n < 1:
            return Drafted(xp.zeros((0,), dtype=xp.int32))
        cache = rewind(self.cache, min(self.cache.length, len(text) - 1))  # what was refused is forgotten
        unread, drafted = xp.from_numpy(np.asarray([text[cache.length :]], dtype=np.int32)), []
        for step in range(start, start + n):
            logits, cache = prefill(self.model, unread, cache)
            token, q = self._choose(logits, step, memory)
            memory = observe(memory, token, logits, self.sampler)
            drafted.append((token, q))
            unread = xp.maximum(token, xp.zeros_like(token))[:, None]  # −1 is no token
        self.cache = cache
        tokens, q = zip(*drafted, strict=True)
        return Drafted(xp.concat(tokens, axis=0), None if self.sampler.temperature == 0 else xp.concat(q, axis=0))

    def _choose(self, logits, step: int, memory: Any) -> tuple[Any, Any]:
        """The token (1,) to draft in the place of a step, and the distribution (1, V) that it was drawn from."""
        xp = self.model.backend.xp
        if self.sampler.temperature == 0:
            return sample(logits, None, self.sampler, memory)[0], None
        q = distribution(logits, self.sampler, memory)
        token = draw_from(q, xp.from_numpy(generator(self.seed, "draft", step).random(1, dtype=np.float32)))
        return xp.where(xp.isfinite(xp.sum(q, axis=-1)), token, xp.full_like(token, -1)), q


class LookupDrafter:
    """An index of the text: where each run of tokens stood last, and so what followed it."""

    def __init__(self, longest: int, xp: Any):
        self.longest, self.xp = longest, xp
        self.ends: dict[tuple[int, ...], int] = {}  # of each run of up to `longest` tokens, the last place that something follows
        self.indexed = 1  # no run ends before the first token

    def propose(self, text: Sequence[int], most: int, memory: Any) -> Drafted:
        for end in range(self.indexed, len(text)):
            for length in range(1, min(self.longest, end) + 1):
                self.ends[tuple(text[end - length : end])] = end
        self.indexed = len(text)
        lengths = range(min(self.longest, len(text)), 0, -1)
        starts = (self.ends.get(tuple(text[len(text) - length :])) for length in lengths)
        start = next((start for start in starts if start is not None), None)
        copied = [] if start is None else text[start : start + most]
        tokens = [copied[i % len(copied)] for i in range(most)] if copied else []  # a text that repeats itself goes on so
        return Drafted(self.xp.from_numpy(np.asarray(tokens, dtype=np.int32)))


def check_shared(model: Model, draft: Model) -> None:
    """Raise ValueError unless both models mean the same tokens by the same ids, and compute in one place."""
    V, other = model.config.vocab_size, draft.config.vocab_size
    if other != V:
        raise ValueError(f"the draft has {other} tokens and the model {V}; they must share one vocabulary.")
    if model.tokenizer is not None and draft.tokenizer is not None:
        ours, theirs = vocabulary(model.tokenizer), vocabulary(draft.tokenizer)
        if ours != theirs:
            id = min(id for id in ours.keys() | theirs.keys() if ours.get(id) != theirs.get(id))
            raise ValueError(
                f"token {id} is {theirs.get(id)!r} to the draft and {ours.get(id)!r} to the model; they must share one "
                "vocabulary."
            )
    if model.backend is not draft.backend:
        raise ValueError(
            f"the draft lies on {draft.backend.name} and the model on {model.backend.name}; load both on the same backend."
        )


def vocabulary(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of every token by its id."""
    return dict(tokenizer.model.vocabulary) | {token.id: token.content.encode() for token in tokenizer.added}


def _check_n(n: int) -> None:
    if n < 1:
        raise ValueError(f"n={n} drafts no token; it must be at least 1.")
