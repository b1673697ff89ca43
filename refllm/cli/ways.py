"""The ways to write a text: token by token, with drafts, by a search. Each gives the same events."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from refllm.cli.asked import Answer
from refllm.cli.generate_options import OUTPUT, SEARCH, SPECULATION, is_given
from refllm.cli.option_table import with_defaults
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.request import Event, Row
from refllm.decoding.serve import serve
from refllm.models.model import Model

SHARED = 2**30  # bytes of keys and values kept of prompts that several samples have in common


def events_of(model: Model, answers: Sequence[Answer], given: Mapping[str, Any]) -> Iterator[Event]:
    """The events of answers, which they are numbered by.

    given: options by name, None where they were not given
    """
    if is_given(given, "draft") or is_given(given, "lookup"):
        return with_drafts(model, answers, draft_of(model, with_defaults(SPECULATION, given)))
    if is_given(given, "beams"):
        return by_beams(model, answers, beams_of(with_defaults(SEARCH, given)))
    if is_given(given, "contrastive_k"):
        return by_contrast(model, answers, contrast_of(with_defaults(SEARCH, given)))
    requests = [answer.request for answer in answers]
    rows = min(len(answers), with_defaults(OUTPUT, given)["rows"])  # a text alone needs no cache but its own
    room = max(len(answer.request.prompt) + answer.n_tokens for answer in answers)
    shared = PrefixCache(model, SHARED) if any(answer.sample for answer in answers) else None
    return serve(model, requests, rows, room=room, prefixes=shared, quantised=bool(given.get("int8_cache")))


def row_of(model: Model, answers: Sequence[Answer], number: int) -> Row:
    """What keeps the text of one answer while its tokens come."""
    return Row(model, number, answers[number].request, model.config.max_positions, "error")


def draft_of(model: Model, options: Mapping[str, Any]) -> Any:
    """Who drafts. Raises ValueError for a draft that does not fit the model."""
    from refllm import checkpoints
    from refllm.decoding.drafts import DraftModel, PromptLookup, check_shared

    if options["lookup"] is not None:
        return PromptLookup(options["lookup"], options["proposals"])
    dtype = str(model.params["embedding"].dtype).rpartition(".")[2]
    draft = checkpoints.load(os.path.expanduser(options["draft"]), model.backend, dtype)
    check_shared(model, draft)
    return DraftModel(draft, options["proposals"])


def with_drafts(model: Model, answers: Sequence[Answer], draft: Any) -> Iterator[Event]:
    """One text after another, several tokens at a time."""
    from refllm.decoding.speculative import speculate

    for number, answer in enumerate(answers):
        request, row = answer.request, row_of(model, answers, number)
        asked = request.prompt, answer.n_tokens, request.sampler, request.seed, request.stop_tokens
        for burst in speculate(model, draft, *asked):
            answer.times.proposed += burst.drafted
            answer.times.accepted += burst.accepted
            yield from told(row, burst.tokens.tolist())
            if row.finish is not None:
                break


def told(row: Row, tokens: Iterable[int]) -> list[Event]:
    """The events of tokens that came at once, until they end the text.

    Their time is shared out among them; that of the first ones, the prefill, is the first one's.
    """
    events, begins = [], row.n_told == 0
    for token in tokens:
        events.append(row.tell(token, None, ()))
        if row.finish is not None:
            break
    seconds, n = sum(event.seconds for event in events), len(events)
    shares = [seconds] + [0.0] * (n - 1) if begins else [seconds / n] * n
    return [event._replace(seconds=share) for event, share in zip(events, shares, strict=True)]


def beams_of(options: Mapping[str, Any]) -> Any:
    """The beams that are asked for. Raises ValueError for some that cannot be."""
    from refllm.decoding.beam_search import Beams

    groups = 1 if options["groups"] is None else options["groups"]
    return Beams(options["beams"], options["length_penalty"], groups=groups, diversity=options["diversity"] or 0.0)


def by_beams(model: Model, answers: Sequence[Answer], beams: Any) -> Iterator[Event]:
    """The best texts of each prompt, as many as samples were asked for, once they are found.

    Raises ValueError, at once, where there are fewer beams than samples.
    """
    together = [list(group) for _, group in groupby(range(len(answers)), key=lambda i: i - answers[i].sample)]
    return _searched(model, answers, [(numbers, replace(beams, n_best=len(numbers))) for numbers in together])


def _searched(model: Model, answers: Sequence[Answer], searches: list[tuple[list[int], Any]]) -> Iterator[Event]:
    from refllm.decoding.beam_search import beam_search

    for numbers, beams in searches:
        request, began = answers[numbers[0]].request, time.perf_counter()
        found = beam_search(model, request.prompt, answers[numbers[0]].n_tokens, beams, request.stop_tokens)
        for number, text in zip(numbers, found, strict=False):
            row = row_of(model, answers, number)
            row.began = began
            yield from told(row, text.tokens)


def contrast_of(options: Mapping[str, Any]) -> Any:
    """How contrastive search weighs. Raises ValueError for weights that cannot be."""
    from refllm.decoding.contrastive_search import Contrast

    return Contrast(options["contrastive_k"], options["alpha"])


def by_contrast(model: Model, answers: Sequence[Answer], contrast: Any) -> Iterator[Event]:
    """One text after another, whose tokens are likely and yet unlike the text before."""
    from refllm.decoding.contrastive_search import contrastive_search

    for number, answer in enumerate(answers):
        request, row = answer.request, row_of(model, answers, number)
        for choice in contrastive_search(model, request.prompt, answer.n_tokens, contrast, request.stop_tokens):
            yield from told(row, [choice.token])
            if row.finish is not None:
                break
