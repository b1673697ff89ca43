"""What is asked for, put together: prompts and options as requests, and the answers that they get as they grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refllm.cli.decoding_stats import Times
from refllm.cli.generate_options import check_together
from refllm.cli.option_table import with_defaults
from refllm.cli.prompts import Prompt
from refllm.cli.sampling_options import SAMPLING, sampler_of
from refllm.decoding import llama2c_random
from refllm.decoding.fit import fit
from refllm.decoding.request import Event, Request
from refllm.decoding.stops import StopStrings
from refllm.decoding.text import encode_prompt
from refllm.models.model import Model

USUAL = 200  # tokens, where none are asked for


@dataclass
class Answer:
    """One text that a prompt gets, as far as it has come."""

    prompt: Prompt
    sample: int  # its number among those of the prompt
    request: Request
    n_tokens: int  # at most
    times: Times
    text: str = ""
    tokens: list[int] = field(default_factory=list)  # all that were chosen, the one that ended it included
    logprobs: list[tuple[float, tuple[tuple[int, float], ...]]] = field(default_factory=list)
    finish: str | None = None  # "end", "stop", "length" or "error"; None while it goes on
    error: str | None = None

    def take(self, event: Event) -> None:
        """Go on by one event."""
        self.text += event.text
        self.finish, self.error = event.finish, event.error
        if event.token is not None:
            self.tokens.append(event.token)
            self.times.seconds.append(event.seconds)
        if event.logprob is not None:
            self.logprobs.append((event.logprob, event.alternatives))


def answers_to(prompts: Sequence[Prompt], model: Model, given: Mapping[str, Any]) -> list[Answer]:
    """An answer without a text yet for every prompt and sample, in their order.

    given: options by name, None where they were not given. Those of a prompt's own line come before them.
    Raises ValueError for whatever cannot be asked, with the line of the prompt where it has one.
    """
    found = []
    for prompt in prompts:
        try:
            found += _of_prompt(prompt, model, {**given, **{n: v for n, v in prompt.options.items() if v is not None}})
        except ValueError as error:
            raise ValueError(f"{prompt.where}: {error}" if prompt.where else str(error)) from None
    return found


def _of_prompt(prompt: Prompt, model: Model, given: Mapping[str, Any]) -> list[Answer]:
    check_together(given)
    ids, eos = encode_prompt(model, prompt.text), model.tokenizer.eos
    opening = 1 if model.tokenizer.bos is not None else 0
    overflow = (given.get("overflow") or "error").replace("-", "_")
    room, n_tokens = model.config.max_positions, given.get("max_tokens")
    if n_tokens is None:
        n_tokens = max(1, min(USUAL, room - len(ids) if len(ids) < room else room // 2))
    ids, n_tokens = fit(ids, n_tokens, room, overflow, opening=opening)
    n, stops = 1 if given.get("n") is None else given["n"], tuple(given.get("stop") or ())
    if n < 1:
        raise ValueError(f"n={n} asks for no text; it must be at least 1.")
    StopStrings(stops)  # raises for one that is empty
    sampler, seed = sampler_of(given), with_defaults(SAMPLING, given)["seed"]
    ends = {token for token in (eos,) if token is not None}
    if sampler.draws == "llama2.c":
        llama2c_random.number(seed, 0)  # raises for a seed that is none of its own
        ends |= {model.tokenizer.bos} - {None}  # by which run.c knows that a text is over
    form = constraint_of(given, model, ids)
    common = {
        "seed": seed,
        "stop_tokens": tuple(ends),
        "stop_strings": stops,
        "logprobs": given.get("logprobs"),
    }
    found = []
    for sample in range(n):
        own = None if form is None else form.fork()  # a text's constraint goes along with it
        request = Request(ids, n_tokens, sampler, row=sample, constraint=own, opening=opening, **common)
        found.append(Answer(prompt, sample, request, n_tokens, Times(len(ids))))
    return found


def constraint_of(given: Mapping[str, Any], model: Model, ids: Sequence[int]) -> Any:
    """What the text after a prompt is held to, or None. Raises ValueError for a form that is none."""
    from pathlib import Path

    regex, schema, choices = (given.get(name) for name in ("regex", "json_schema", "choices"))
    if regex is None and schema is None and not choices:
        return None
    from refllm.decoding.constrained import by_choices, by_json_schema, by_regex, constrain

    if regex is not None:
        form = by_regex(regex)
    elif choices:
        form = by_choices(choices)
    else:
        assert schema is not None
        form = by_json_schema(Path(schema).read_text(encoding="utf-8") if isinstance(schema, str) else schema)
    return constrain(form, model.tokenizer, context=ids, vocab_size=model.config.vocab_size)
