"""The decisions of a text, judged by the float64 oracle: which token its logits choose, and how near another is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import load
from refllm.decoding.margin import certainty, margin, sampling_slack
from refllm.decoding.memory import Memory, remember
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import adjusted, observe, sample, uniforms

from .bounded import Bounded


class Choice(NamedTuple):
    """What the float64 logits choose at one step."""

    step: int
    token: int
    uniform: float  # that decides the draw
    logits: np.ndarray  # (1, V)
    memory: Memory | None  # of the sampler, before it chose


class Decision(NamedTuple):
    """A choice, and how near another is."""

    step: int
    token: int
    uniform: float
    margin: float  # nats by which all logits may move with the same token chosen
    certain: float  # the same, the sampler's own rounding in float32 allowed for
    bound: float  # nats by which a right backend's logits may differ from the oracle's

    @property
    def is_near(self) -> bool:
        """Whether a right backend may choose another token."""
        return self.certain <= self.bound


def choices(logits: Any, prompt: Sequence[int], text: Sequence[int], sampler: Sampler, seed: int) -> Iterator[Choice]:
    """What is chosen at every step, given the tokens of the text before it.

    logits: (n, V) float64, of which row s decides on token s
    """
    V = logits.shape[1]
    memory = remember(sampler, np.asarray([prompt], dtype=np.int32), None, load("numpy").xp, V)
    for step, row in enumerate(logits[:, None, :]):
        u = uniforms(seed, step, 1, sampler.draws)
        yield Choice(step, int(sample(row, u, sampler, memory)[0][0]), float(u[0]), row, memory)
        if step < len(text):
            memory = observe(memory, np.asarray([text[step]], dtype=np.int32), row, sampler)


def judged(choice: Choice, logits: Bounded, sampler: Sampler) -> Decision:
    """How near another token is. logits: (n, V), the oracle's, with their bounds"""
    step, token, uniform, row, memory = choice
    scores = adjusted(row, sampler, memory)[0]
    rounding = 4 * logits.dtype.eps * float(np.max(np.abs(scores[np.isfinite(scores)])))  # of penalties and the temperature
    bound = float(np.max(logits.error[step])) + rounding
    plain = margin(row[0], uniform, sampler, memory)
    certain = margin(row[0], uniform, sampler, memory, slack=sampling_slack(scores, sampler))
    return Decision(step, token, uniform, plain, certain, bound)


def nearest(found: Iterable[Choice], logits: Bounded, sampler: Sampler) -> Decision:
    """The decision with the smallest margin. Only where it falls is it measured."""
    least = None
    for choice in found:
        if least is None or not certainty(choice.logits[0], choice.uniform, sampler, choice.memory)(least.margin):
            decision = judged(choice, logits, sampler)
            least = decision if least is None or decision.margin < least.margin else least
    if least is None:
        raise ValueError("there is no decision to judge.")
    return least
