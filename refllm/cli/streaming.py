"""Answers written while they come: as text, or as lines of JSON."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console

from refllm.bench import floor
from refllm.cli.answers import InOrder, JsonLines
from refllm.cli.asked import Answer
from refllm.cli.decoding_stats import figures, in_lines, summary, with_floors
from refllm.cli.live import Tally, Ticker, moving, writing
from refllm.cli.ways import events_of
from refllm.decoding.request import Event
from refllm.models.model import Model

Options = Mapping[str, Any]  # by name, None where they were not given


def write_text(model: Model, answers: list[Answer], options: Options, told: Console | None = None) -> None:
    """The texts on stdout as they come, in their order, and behind them how long they took.

    told: where the times go; stderr, if None
    """
    out, told = Console(highlight=False, soft_wrap=True), told or _stderr()
    ticker: Any = None
    with times_told(model, answers, options, told):
        if options.get("stats") and told.is_terminal:
            ticker = Ticker(model, answers[0], _in_eight_bits(options)) if len(answers) == 1 else Tally(answers)
        with writing(out, told, ticker) as write:
            follow(InOrder(answers, write, options.get("echo") is not False), answers, events_of(model, answers, options))


def write_json(model: Model, answers: list[Answer], options: Options) -> None:
    """A line of JSON on stdout for each answer; with --stats its figures in it, and a line that moves on stderr."""
    told, stats = _stderr(), bool(options.get("stats"))
    shown = stats and told.is_terminal and not sys.stdout.isatty()  # there, lines of JSON would run through it

    def figures_of(answer: Answer) -> dict[str, Any]:
        return with_floors(figures(answer.times), model, _in_eight_bits(options))

    def text_of(token: int) -> str:
        return model.tokenizer.tokens([token])[0].decode("utf-8", "replace")

    writer = JsonLines(answers, figures_of if stats else None, text_of)
    telling = times_told(model, answers, options, told) if stats else nullcontext()
    with telling, moving(told, Tally(answers)) if shown else nullcontext():
        follow(writer, answers, events_of(model, answers, options))


def follow(writer: InOrder | JsonLines, answers: list[Answer], events: Iterable[Event]) -> None:
    """Let the answers grow by the events, and write them. Ctrl-C, or an error, leaves what there is written, and goes on."""
    try:
        writer.begin()
        for event in events:
            answers[event.request].take(event)
            writer.update()
    finally:
        writer.close()


@contextmanager
def times_told(model: Model, answers: list[Answer], options: Options, told: Console) -> Iterator[None]:
    """Tell how long the answers took that are written inside, also where that is stopped, but not where nobody reads them."""
    if options.get("stats"):
        floor.speeds(model)  # before anything is timed
    read, began = True, time.perf_counter()
    try:
        yield
    except BrokenPipeError:
        read = False
        raise
    finally:
        for line in in_words(model, answers, options, time.perf_counter() - began) if read else ():
            told.print(f"  {line}", style="dim")


def in_words(model: Model, answers: list[Answer], options: Options, seconds: float) -> list[str]:
    """What one text took, with --stats beside the floors, or what many took together."""
    if options.get("beams"):
        return summary([answer.times for answer in answers], seconds)[:1]  # a search has no time for each token
    if len(answers) > 1:
        return summary([answer.times for answer in answers], seconds)
    times = answers[0].times
    found = figures(times)
    return in_lines(with_floors(found, model, _in_eight_bits(options)) if options.get("stats") and times.seconds else found)


def _in_eight_bits(options: Options) -> bool:
    return bool(options.get("int8_cache"))


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)
