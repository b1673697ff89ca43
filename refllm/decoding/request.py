"""One text that is asked for, and what happens to it: the tokens as they are chosen, and how it ends."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from refllm.decoding.fit import fit
from refllm.decoding.sampling import Sampler
from refllm.decoding.stops import StopStrings
from refllm.models.model import Model, check_ids
from refllm.tokenizer import StreamDecoder


class Constraint(Protocol):
    """What holds a text to a form. See refllm.decoding.constrained."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete, so that no token may follow."""

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: (V,) bool. Raises ValueError where none may."""

    def advance(self, token: int) -> None:
        """Go past a token that was chosen. Raises ValueError for one that is not allowed."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue, and how.

    Draws are addressed by (seed, step, row), as those of row `row` of `generate` are: several texts of one prompt and seed differ
    by their row.
    """

    prompt: Sequence[int]  # token ids
    max_tokens: int | None  # to write; None: as many as there is room for
    sampler: Sampler
    seed: int = 0
    row: int = 0
    stop_tokens: Collection[int] = ()  # ids that end the text, and are no part of it
    stop_strings: Collection[str] = ()  # strings that end it
    keep_stop: bool = False  # whether the stop string that ends the text is a part of it
    logprobs: int | None = None  # tell each token's log-probability, and those of so many of the likeliest
    constraint: Constraint | None = None  # what its tokens are held to; it goes along, so each request needs its own
    opening: int = 0  # tokens that stay at the beginning of a prompt of which the end is kept


class Event(NamedTuple):
    """What one token adds to one of the texts, or what went wrong with it."""

    request: int  # its number, counted from 0 in the order in which requests were read
    token: int | None  # None where an error is told
    text: str  # what is certain of the text since the last event: whole characters, and none that may begin a stop string
    seconds: float  # since the last event of this text; the first's is the time to the first token, prefill included
    logprob: float | None = None  # nats, by the model itself, whatever the sampler makes of it
    alternatives: tuple[tuple[int, float], ...] = ()  # the likeliest tokens in its place, with theirs
    finish: str | None = None  # of the last event: "end" (a stop token, or a form fulfilled), "stop", "length" or "error"
    error: str | None = None  # a sentence that says what went wrong


class Row:
    """A request that is being answered: the tokens so far are known up to their text."""

    def __init__(self, model: Model, number: int, request: Request, room: int, overflow: str):
        """Raises ValueError, in a sentence for whoever asks, where the request cannot be answered."""
        self.number, self.request, self.began = number, request, time.perf_counter()
        self.ids, self.n_tokens = fit(request.prompt, request.max_tokens, room, overflow, opening=request.opening)
        check_ids(np.asarray(self.ids), "the prompt", model.config.vocab_size)
        if request.logprobs is not None and not 0 <= request.logprobs <= model.config.vocab_size:
            raise ValueError(f"logprobs={request.logprobs} must be 0 … {model.config.vocab_size}, the tokens that there are.")
        if request.row < 0:
            raise ValueError(f"row={request.row} is no row; they are counted from 0.")
        if model.tokenizer is None and request.stop_strings:
            raise ValueError("stop strings end a text, and the model has no tokenizer to write one; use stop tokens.")
        self._stops = StopStrings(request.stop_strings, request.keep_stop)
        self._decoder = None if model.tokenizer is None else StreamDecoder(model.tokenizer, context=self.ids)
        self.memory: Any = None  # what its sampler needs of the past, while no group keeps it
        self.n_chosen = 0  # tokens chosen, of which the last may not have been told yet
        self.n_told = 0
        self.finish: str | None = None
        self.error: str | None = None  # what went wrong while its next token was chosen

    @property
    def leaves(self) -> bool:
        """Whether no token more is wanted."""
        return self.finish is not None or self.n_chosen == self.n_tokens

    def allowed(self) -> np.ndarray | None:
        """Which tokens may come next: (V,) bool; None: all, as where its constraint has failed, which ends it."""
        if self.request.constraint is None:
            return None
        try:
            return self.request.constraint.allowed()
        except ValueError as error:
            self.error = str(error)
            return None

    def tell(self, token: int, logprob: float | None = None, alternatives: tuple[tuple[int, float], ...] = ()) -> Event:
        """The event of its next token; −1: the logits were no numbers."""
        if token < 0 and self.error is None:
            self.error = (
                f"the logits of token {self.n_told + 1} are not finite numbers: the model's weights or activations overflow."
            )
        self.n_told += 1
        try:
            if self.error is None:
                text = self._go_on(token)
                return Event(self.number, token, text, self._elapsed(), logprob, alternatives, self.finish)
        except ValueError as error:  # its constraint does not take the token
            self.error = str(error)
        self.finish = "error"
        return Event(self.number, None, self._rest(), self._elapsed(), finish="error", error=self.error)

    def _go_on(self, token: int) -> str:
        """What a token adds to the text, and whether it ends it."""
        text, constraint = "", self.request.constraint
        if token in self.request.stop_tokens:
            self.finish = "end"
        else:
            if constraint is not None:
                constraint.advance(token)
            text = "" if self._decoder is None else self._stops.push(self._decoder.push(token))
            if constraint is not None and constraint.finished:
                self.finish = "end"
            elif self.n_told == self.n_tokens:
                self.finish = "length"
        if self.finish is not None:
            text += self._rest()
        if self._stops.found is not None:
            self.finish = "stop"
        return text

    def _rest(self) -> str:
        """What was held back of the text: U+FFFD for an unfinished character, and what might have begun a stop string."""
        unfinished = "" if self._decoder is None else self._decoder.finish()
        return self._stops.push(unfinished) + self._stops.finish()

    def _elapsed(self) -> float:
        before, self.began = self.began, time.perf_counter()
        return self.began - before
