"""Answers written in the order of their prompts: as text while it comes, or as JSON, an object a line, once it is whole."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from refllm.cli.asked import Answer

LINE_ENDS = {c: f"\\u{c:04x}" for c in (0x85, 0x2028, 0x2029)}  # which JSON lets stand, and some readers of lines do not
INTERRUPTED = "interrupted"  # why a text ended that Ctrl-C cut off


class InOrder:
    """Lets answers out in their order: the first that is not whole yet as it comes, those behind it once it is.

    write(text, style): puts out a part    echo: whether the prompt stands before its text
    """

    def __init__(self, answers: list[Answer], write: Callable[[str, str], None], echo: bool):
        self.answers, self.write, self.echo = answers, write, echo
        self.place, self.written = 0, -1  # the answer that is being written, and how much of its text; −1: nothing yet

    def update(self) -> None:
        """Write what can be written by now."""
        while self.place < len(self.answers):
            answer = self.answers[self.place]
            if not answer.tokens and answer.finish is None:
                return
            self._go_on(answer)
            if answer.finish is None:
                return
            self._end()

    def begin(self) -> None:
        """Write the first prompt before its text comes."""
        if self.echo and self.answers[0].prompt.text:
            self.write(self.answers[0].prompt.text, "dim")
        self.written = 0

    def close(self) -> None:
        """Write what has come of answers that are not whole."""
        for answer in self.answers[self.place :]:
            if answer.tokens or self.written >= 0:
                self._go_on(answer)
                self._end()

    def _go_on(self, answer: Answer) -> None:
        if self.written < 0:
            if self.place > 0:
                self.write("\n", "")
            if self.echo and answer.prompt.text:
                self.write(answer.prompt.text, "dim")
            self.written = 0
        if text := answer.text[self.written :]:
            with unbroken():
                self.write(text, "")
                self.written = len(answer.text)

    def _end(self) -> None:
        with unbroken():
            self.write("\n", "")
            self.place, self.written = self.place + 1, -1


class JsonLines:
    """Writes each answer as a line of JSON, in order, as soon as those before it are whole."""

    def __init__(self, answers: list[Answer], stats: Callable[[Answer], dict[str, Any]] | None, text_of: Callable[[int], str]):
        self.answers, self.stats, self.text_of, self.place = answers, stats, text_of, 0

    def begin(self) -> None:
        """Nothing stands before the first."""

    def update(self) -> None:
        """Write what is whole by now."""
        while self.place < len(self.answers) and self.answers[self.place].finish is not None:
            self._write(self.answers[self.place])

    def close(self) -> None:
        """Write what is there: of texts that were cut off as much as has come."""
        for answer in self.answers[self.place :]:
            if answer.tokens:
                answer.finish = answer.finish or INTERRUPTED
                self._write(answer)

    def _write(self, answer: Answer) -> None:
        found = as_json(answer, self.text_of)
        if self.stats is not None:
            found["stats"] = self.stats(answer)
        with unbroken():
            sys.stdout.write(json.dumps(found, ensure_ascii=False).translate(LINE_ENDS) + "\n")
            sys.stdout.flush()
            self.place += 1


def as_json(answer: Answer, text_of: Callable[[int], str]) -> dict[str, Any]:
    """An answer as JSON has it. text_of: the text of a token"""
    found: dict[str, Any] = {} if answer.prompt.id is None else {"id": answer.prompt.id}
    found |= {"prompt": answer.prompt.text, "sample": answer.sample, "text": answer.text, "tokens": answer.tokens}
    found |= {"finish": answer.finish, "seconds": sum(answer.times.seconds)}
    if answer.request.logprobs is not None:
        found["logprobs"] = [
            {"token": token, "text": text_of(token), "logprob": logprob}
            | {"likeliest": [{"token": t, "text": text_of(t), "logprob": p} for t, p in likeliest]}
            for token, (logprob, likeliest) in zip(answer.tokens, answer.logprobs, strict=False)
        ]
    if answer.error is not None:
        found["error"] = answer.error
    return found


@contextmanager
def unbroken() -> Iterator[None]:
    """Let Ctrl-C wait until what is inside is done, so that all is written once. A second Ctrl-C waits for nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def wait(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
