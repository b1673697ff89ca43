"""Text on a terminal as it comes, with a line below it that tells how fast: prefill and decode apart."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from rich.cells import chop_cells
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from refllm.bench import floor
from refllm.cli.asked import Answer
from refllm.cli.figures import count, span
from refllm.models.model import Model

REFRESHES = 10  # a second
CONTROLS = {i: None for i in (*range(32), *range(127, 160)) if chr(i) not in "\n\t"}

Write = Callable[[str, str], None]  # a text, and the style that it has on a terminal


class Ticker:
    """The line that moves: how long the prefill takes, then how fast the tokens come."""

    def __init__(self, model: Model, answer: Answer, quantised: bool):
        self.model, self.times, self.n_tokens, self.quantised = model, answer.times, answer.n_tokens, quantised
        self.least = floor.prefill_floor(model, answer.times.n_prompt, quantised).seconds
        self.began = time.perf_counter()

    def __rich__(self) -> Text:
        times = self.times
        if not times.seconds:
            return _line(f"prefill {times.n_prompt:,} tokens, {span(time.perf_counter() - self.began)} …")
        line = f"prefill {span(times.first)} ({self.least / times.first:.0%} of floor)"
        if not times.later:
            return _line(line)
        least = floor.token_floor(self.model, times.n_prompt + len(times.later), quantised=self.quantised).seconds
        if times.proposed:
            line += f" │ {times.accepted / times.proposed:.0%} of drafts"
        speed = f"{span(times.each)} each ({least / times.each:.0%}), {count(1 / times.each)}/s"
        return _line(f"{line} │ decode {len(times.seconds):,} of {self.n_tokens:,}, {speed}")


class Tally:
    """The line that moves while many texts are written: how many are whole, and how fast tokens come in all."""

    def __init__(self, answers: Sequence[Answer]):
        self.answers, self.began = answers, time.perf_counter()

    def __rich__(self) -> Text:
        whole = sum(answer.finish is not None for answer in self.answers)
        n_tokens = sum(len(answer.tokens) for answer in self.answers)
        speed = count(n_tokens / (time.perf_counter() - self.began))
        return _line(f"{whole:,} of {len(self.answers):,} texts, {n_tokens:,} tokens, {speed} tokens/s")


def _line(said: str) -> Text:
    return Text(f"  {said}", style="cyan", no_wrap=True, overflow="ellipsis")


@contextmanager
def moving(console: Console, line: RenderableType) -> Iterator[None]:
    """Draw a line anew while what is inside goes on; then it goes away."""
    with drawing(console, lambda: line):
        yield


def drawing(console: Console, line: Callable[[], RenderableType]) -> Live:
    """What draws lines anew some times a second, and leaves alone what others write to stdout and stderr."""
    options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
    return Live(console=console, refresh_per_second=REFRESHES, get_renderable=line, **options)


@contextmanager
def writing(out: Console, told: Console, ticker: RenderableType | None) -> Iterator[Write]:
    """A function that writes text to `out`, with a ticker below it while it is inside, if there is one.

    told: where the ticker is drawn if `out` is no terminal
    """
    if ticker is None:
        yield lambda text, style: _put(out, text, style)
    elif not out.is_terminal:
        with moving(told, ticker):
            yield lambda text, style: _put(out, text, style)
    else:
        text = LastRow(out, ticker)
        with drawing(out, text.drawn):
            yield text.write
            text.catch_up()
        out.print(text.row, end="", soft_wrap=True)


def _put(out: Console, text: str, style: str) -> None:
    """Write a text at once: to a terminal without what could move its cursor, to anything else as it is."""
    if style and out.is_terminal:
        out.print(Text(harmless(text), style=style), end="", soft_wrap=True)
    else:
        out.file.write(harmless(text) if out.is_terminal else text)
    out.file.flush()


def harmless(text: str) -> str:
    """The text without control characters, which a terminal would obey; newlines and tabs stay."""
    return text.translate(CONTROLS)


class LastRow:
    """A text whose full rows go out for good; the last one, unfinished, is drawn together with the ticker.

    What comes is drawn some times a second and not at once, so that drawing takes no time from decoding.
    """

    def __init__(self, out: Console, ticker: RenderableType):
        self.out, self.ticker = out, ticker
        self.row, self.waiting = Text(), Text()  # on the screen, and what comes behind it
        self.put = 0.0  # when the row was last brought up to date

    def write(self, text: str, style: str) -> None:
        """Add text behind what there is."""
        self.waiting.append(harmless(text), style or None)
        if time.perf_counter() - self.put >= 1 / REFRESHES:
            self.catch_up()

    def catch_up(self) -> None:
        """Put out the rows that are full by now."""
        text, self.waiting, self.put = self.row + self.waiting, Text(), time.perf_counter()
        rows: list[Text] = []
        for line in text.split("\n", allow_blank=True):
            line.expand_tabs(8)
            ends = list(accumulate(map(len, chop_cells(line.plain, self.out.width))))
            rows += line.divide(ends[:-1])
        if len(rows) > 1:
            self.out.print(Text("\n").join(rows[:-1]), soft_wrap=True)
        self.row = rows[-1]

    def drawn(self) -> RenderableType:
        return Group(self.row, self.ticker)
