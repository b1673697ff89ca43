"""How tokens are chosen: the options of every sampler, checked, and the order in which they apply.

    logit_bias, allowed tokens, repetition_penalty, presence_penalty and frequency_penalty, no_repeat_ngram;
    temperature, top_k, top_p, min_p, typical_p, epsilon, eta (or mirostat in place of these cuts);
    the draw.

It is the order in which transformers' generate applies its processors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import NamedTuple


class Mirostat(NamedTuple):
    """Which surprise mirostat steers for, and how fast."""

    tau: float  # bits per token
    eta: float  # bits that the largest surprise allowed moves, per bit of error


@dataclass(frozen=True)
class Sampler:
    """The options by name. What is left out is off, and plain sampling from the softmax remains.

    It can be compared and hashed. Raises ValueError for a setting that means nothing.
    """

    temperature: float = 1.0  # 0: always the most likely token
    top_k: int | None = None  # keep so many tokens
    top_p: float | None = None  # keep the fewest tokens whose probabilities reach it
    min_p: float | None = None  # keep tokens at least so likely as this share of the most likely
    typical_p: float | None = None  # keep the fewest tokens nearest to the expected surprise whose probabilities reach it
    epsilon: float | None = None  # keep tokens at least so likely
    eta: float | None = None  # likewise, but less where the distribution is flat
    repetition_penalty: float = 1.0  # above 1: tokens of the prompt and the text become less likely
    presence_penalty: float = 0.0  # taken from the logit of every token of the text; below 0 it is added
    frequency_penalty: float = 0.0  # likewise, once for every time that the token stands there
    no_repeat_ngram: int | None = None  # no run of so many tokens stands twice in prompt and text
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = ()  # by token id; −∞ forbids. Kept as sorted pairs
    mirostat: Mirostat | tuple[float, float] | None = None
    draws: str = "philox"  # where uniforms come from and how they decide: "philox", or "llama2.c" as run.c has it

    def __post_init__(self) -> None:
        biases = self.logit_bias.items() if isinstance(self.logit_bias, Mapping) else self.logit_bias
        object.__setattr__(self, "logit_bias", tuple(sorted((int(i), float(b)) for i, b in biases)))
        if self.mirostat is not None:
            object.__setattr__(self, "mirostat", Mirostat(*self.mirostat))
        self._check_cuts()
        self._check_penalties()
        self._check_together()

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """logit_bias as sorted pairs."""
        return tuple(dict(self.logit_bias).items())

    @property
    def needs_memory(self) -> bool:
        """Whether it must know the text so far, as `remember` keeps it."""
        return self.counts_prompt or self.counts_text or self.no_repeat_ngram is not None or self.mirostat is not None

    @property
    def counts_prompt(self) -> bool:
        """Whether it asks which tokens stand in the prompt and the text."""
        return self.repetition_penalty != 1

    @property
    def counts_text(self) -> bool:
        """Whether it asks how often each token stands in the text."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0

    def _check_cuts(self) -> None:
        if not 0 <= self.temperature < inf:
            raise ValueError(f"temperature={self.temperature} cannot be; it is 0 (the most likely token) or a positive number.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} would keep no token; it must be at least 1.")
        for name in ("top_p", "typical_p"):
            p = getattr(self, name)
            if p is not None and not 0 < p <= 1:
                raise ValueError(f"{name}={p} is not a probability to reach; it must be above 0 and at most 1.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p} is no share of the largest probability; it must be from 0 to 1.")
        for name in ("epsilon", "eta"):
            p = getattr(self, name)
            if p is not None and not 0 < p < 1:
                raise ValueError(f"{name}={p} is not a probability to cut at; it must be above 0 and below 1.")

    def _check_penalties(self) -> None:
        if not 0 < self.repetition_penalty < inf:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty} cannot be; it is a positive number, above 1 to repeat less."
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is not a number to take from a logit; it must be finite.")
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
            raise ValueError(f"no_repeat_ngram={self.no_repeat_ngram} is no length of a run of tokens; it must be at least 1.")
        for token, bias in self.biases:
            if token < 0:
                raise ValueError(f"logit_bias names token {token}; ids begin at 0.")
            if not bias < inf:
                raise ValueError(f"logit_bias adds {bias} to token {token}; it must be a finite number, or −∞ to forbid it.")

    def _check_together(self) -> None:
        if self.mirostat is not None:
            tau, eta = self.mirostat
            if not (0 < tau < inf and 0 < eta < inf):
                raise ValueError(f"mirostat=({tau}, {eta}) cannot be; its target, in bits, and its rate are positive numbers.")
            self._alone("mirostat makes the cut itself", "top_k", "top_p", "min_p", "typical_p", "epsilon", "eta")
            if self.temperature == 0:
                raise ValueError("mirostat steers draws, and temperature=0 draws nothing; leave one of them out.")
        if self.draws not in ("philox", "llama2.c"):
            raise ValueError(f"draws={self.draws!r} names no generator; choose philox or llama2.c.")
        if self.draws == "llama2.c":
            others = [name for name in _OFF if name not in ("temperature", "top_p", "draws")]
            self._alone("draws='llama2.c' samples as run.c does, which has a temperature and a top_p only", *others)

    def _alone(self, because: str, *others: str) -> None:
        if set_too := [f"{name}={getattr(self, name)}" for name in others if getattr(self, name) != _OFF[name]]:
            raise ValueError(f"{because}; leave out {', '.join(set_too)}.")


_OFF = {name: field.default for name, field in Sampler.__dataclass_fields__.items()}
