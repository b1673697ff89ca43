"""Text from text: a prompt encoded, its continuation decoded as it comes, whole characters only."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from refllm.decoding.generate import check_continues
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.request import Constraint, Event, Request, Row
from refllm.decoding.sampler import Sampler
from refllm.decoding.serve import serve
from refllm.models.model import Model


class Piece(NamedTuple):
    """What one token adds to the text."""

    token: int | None  # its id; None where a piece is no token's
    text: str  # the characters that it completes, often one word, sometimes none
    seconds: float  # spent on it; the first piece's is the time to the first token, prefill included
    logprob: float | None = None  # nats, by the model itself, whatever the sampler makes of it
    alternatives: tuple[tuple[int, float], ...] = ()  # the likeliest tokens in its place, with theirs
    finish: str | None = None  # of the last piece: "end" (a stop token, or a form fulfilled), "stop" (a string) or "length"


def encode_prompt(model: Model, prompt: str) -> list[int]:
    """The ids of a prompt, special tokens in it read as ordinary text, behind the token that begins a document if there is one.

    Raises ValueError for a model without a tokenizer, and for an empty prompt where no token begins a document.
    """
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so it continues token ids only; give it one with its checkpoint.")
    ids = model.tokenizer.encode(prompt, disallowed_special=())
    if model.tokenizer.bos is not None:
        return [model.tokenizer.bos, *ids]
    if not ids:
        raise ValueError("the prompt is empty; give the model at least one character to continue.")
    return ids


def continue_text(
    model: Model,
    prompt: str,
    n_tokens: int | None,
    sampler: Sampler,
    seed: int,
    *,
    stop_tokens: Collection[int] | None = None,
    stop_strings: Collection[str] = (),
    keep_stop: bool = False,
    logprobs: int | None = None,
    constraint: Constraint | None = None,
    overflow: str = "error",
    prefixes: PrefixCache | None = None,
) -> Iterator[Piece]:
    """Continue a prompt by up to n_tokens (None: as many as the context holds), or until the text ends.

    stop_tokens: ids that end the text, unwritten; None: the one that ends a document, if there is one
    stop_strings: strings that end it, unwritten too but where keep_stop
    logprobs: tell each token's log-probability, and those of so many of the likeliest    constraint: what it is held to
    overflow: what happens to a prompt that is too long, see `fit`    prefixes: what spares the reading of known beginnings
    The pieces joined are the text; no piece holds half a character, nor what may begin a stop string.
    Raises ValueError, at once, for what `generate` and `encode_prompt` refuse; and while it runs, if the logits stop being
    numbers, or the constraint cannot be met.
    """
    check_continues(model)
    ids = encode_prompt(model, prompt)
    tokenizer = model.tokenizer
    if stop_tokens is None:
        stop_tokens = () if tokenizer.eos is None else (tokenizer.eos,)
    request = Request(
        ids,
        n_tokens,
        sampler,
        seed,
        stop_tokens=stop_tokens,
        stop_strings=stop_strings,
        keep_stop=keep_stop,
        logprobs=logprobs,
        constraint=constraint,
        opening=int(tokenizer.bos is not None),
    )
    row = Row(model, 0, request, model.config.max_positions, overflow)
    return _pieces(serve(model, [request], 1, room=len(row.ids) + row.n_tokens, overflow=overflow, prefixes=prefixes))


def _pieces(events: Iterator[Event]) -> Iterator[Piece]:
    for event in events:
        if event.error is not None:
            raise ValueError(event.error)
        yield Piece(event.token, event.text, event.seconds, event.logprob, event.alternatives, event.finish)
