"""Answers written while they come: as text, or as lines of JSON."""

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from rich.console import Console

from refllm.bench import floor
from refllm.cli.answers import InOrder, JsonLines
from refllm.cli.asked import Answer
from refllm.cli.decoding_stats import Times, figures, in_lines, summary, with_floors
from refllm.cli.live import Tally, Ticker, moving, writing
from refllm.cli.ways import events_of
from refllm.decoding.request import Event
from refllm.models.model import Model


def write_text(model: Model, answers: list[Answer], options: Mapping[str, Any], told: Console | None = None) -> None:
    """The texts on stdout as they come, in their order, and behind them how long they took.

    options: by name, None where they were not given    told: where the times go; stderr, if None
    """
    out = Console(highlight=False, soft_wrap=True)
    told = told or Console(stderr=True, highlight=False, soft_wrap=True)
    one = len(answers) == 1 and not options.get("beams")
    ticker: Any = None
    if options.get("stats") and told.is_terminal:
        ticker = Ticker(model, answers[0], bool(options.get("int8_cache"))) if one else Tally(answers)
    if options.get("stats"):
        floor.speeds(model)  # before anything is timed
    began = time.perf_counter()
    read = True  # whether anybody reads the text
    try:
        with writing(out, told, ticker) as write:
            follow(InOrder(answers, write, options.get("echo") is not False), answers, events_of(model, answers, options))
    except BrokenPipeError:
        read = False
        raise
    finally:
        all_times = [answer.times for answer in answers]
        lines = described(model, all_times[0], options) if one else summary(all_times, time.perf_counter() - began)
        if options.get("beams"):
            lines = lines[:1]  # a search has no time for each token
        for line in lines if read else []:
            told.print(f"  {line}", style="dim")


def described(model: Model, times: Times, options: Mapping[str, Any]) -> list[str]:
    """What the only text took; with --stats beside the floors."""
    found = figures(times)
    return in_lines(
        with_floors(found, model, bool(options.get("int8_cache"))) if options.get("stats") and times.seconds else found
    )


def write_json(model: Model, answers: list[Answer], options: Mapping[str, Any]) -> None:
    """A line of JSON on stdout for each answer; with --stats its figures in it, and a line that moves on stderr."""
    told = Console(stderr=True, highlight=False)
    eight = bool(options.get("int8_cache"))
    stats = (lambda answer: with_floors(figures(answer.times), model, eight)) if options.get("stats") else None
    if stats is not None:
        floor.speeds(model)
    writer = JsonLines(answers, stats, lambda token: model.tokenizer.tokens([token])[0].decode("utf-8", "replace"))
    shown = stats is not None and told.is_terminal and not sys.stdout.isatty()  # there, lines of JSON would run through it
    with moving(told, Tally(answers)) if shown else nullcontext():
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
