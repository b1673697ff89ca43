"""What changes a text before it is cut into words, step by step, each with where its characters come from.

The steps are those of Hugging Face's tokenizers (0.23) that vocabularies of byte-level BPE use.
Normalization forms and lower case are Python's own, Unicode 14's in Python 3.11, 15's in 3.12 and 3.13, 16's in 3.14;
characters that a later version added stay as they are.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from refllm.tokenizer.added_tokens import WHITESPACE
from refllm.tokenizer.model import Span
from refllm.tokenizer.words.patterns import runner

Change = tuple[str, int, int]  # new text, and the characters that it stands for: the first, and the one behind the last


class Step(Protocol):
    """One change of a text."""

    def apply(self, text: str) -> str:
        """The text changed."""

    def changes(self, text: str) -> Iterable[Change]:
        """The changed text in parts, in order, none without text; each with what it comes from."""


class Form(NamedTuple):
    """A normalization form of Unicode (standard annex 15)."""

    form: Literal["NFC", "NFD", "NFKC", "NFKD"]

    def apply(self, text: str) -> str:
        return unicodedata.normalize(self.form, text)

    def changes(self, text: str) -> Iterator[Change]:
        bounds = [i for i, character in enumerate(text) if i == 0 or begins_anew(character)] + [len(text)]
        for start, end in itertools.pairwise(bounds):
            whole, alone = self.apply(text[start:end]), [self.apply(character) for character in text[start:end]]
            if whole == "".join(alone):
                yield from ((part, start + i, start + i + 1) for i, part in enumerate(alone))
            else:
                yield whole, start, end


class Lowercase(NamedTuple):
    """Each character in lower case by itself: a final sigma is no other than the rest."""

    def apply(self, text: str) -> str:
        return text.lower() if "\u03a3" not in text else "".join(map(str.lower, text))

    def changes(self, text: str) -> Iterator[Change]:
        return ((character.lower(), i, i + 1) for i, character in enumerate(text))


class Replace(NamedTuple):
    """Every place where a pattern is found, replaced by one text.

    pattern: the text that is found, or a regular expression    is_regex: which
    """

    pattern: str
    is_regex: bool
    content: str

    def apply(self, text: str) -> str:
        if not self.is_regex:
            return text.replace(self.pattern, self.content)
        return "".join(part for part, _, _ in self.changes(text))

    def changes(self, text: str) -> Iterator[Change]:
        behind = 0
        for start, end in places(self.pattern, self.is_regex, text):
            yield from _unchanged(text, behind, start)
            if self.content:
                yield self.content, start, end
            behind = end
        yield from _unchanged(text, behind, len(text))


class Prepend(NamedTuple):
    """A text put before every text that is not empty; it counts as part of the first character."""

    content: str

    def apply(self, text: str) -> str:
        return self.content + text if text else text

    def changes(self, text: str) -> Iterator[Change]:
        if text:
            yield self.content, 0, 1
        yield from _unchanged(text, 0, len(text))


class Strip(NamedTuple):
    """Whitespace taken off the ends."""

    left: bool
    right: bool

    def apply(self, text: str) -> str:
        return "".join(character for character, _, _ in self.changes(text))

    def changes(self, text: str) -> Iterator[Change]:
        start, end = 0, len(text)
        while self.left and start < end and text[start] in WHITESPACE:
            start += 1
        while self.right and start < end and text[end - 1] in WHITESPACE:
            end -= 1
        return _unchanged(text, start, end)


class Normalizer(NamedTuple):
    """Steps, one after the other."""

    steps: tuple[Step, ...]

    def apply(self, text: str) -> str:
        """The text after every step."""
        for step in self.steps:
            text = step.apply(text)
        return text

    def aligned(self, text: str) -> tuple[str, Sequence[Span]]:
        """The text after every step, and the characters of the text before that each of its characters comes from."""
        spans: Sequence[Span] = [(i, i + 1) for i in range(len(text))]
        for step in self.steps:
            parts, sources = [], []
            for part, start, end in step.changes(text):
                parts.append(part)
                sources += [_joined(spans, start, end)] * len(part)
            text, spans = "".join(parts), sources
        return text, spans


def places(pattern: str, is_regex: bool, text: str) -> Iterator[Span]:
    """Where in a text a pattern is found, empty matches left out."""
    run, sees = runner(pattern) if is_regex else (re.compile(re.escape(pattern)), str)
    return (match.span() for match in run.finditer(sees(text)) if match.group())


def begins_anew(character: str) -> bool:
    """Whether no normalization form ever joins a character to what stands before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.combining(first) == 0 and first not in _joining()


@functools.cache
def _joining() -> frozenset[str]:
    """The characters that stand second in a composition without being combining marks, such as the vowels of Hangul."""
    decompositions = (unicodedata.decomposition(chr(point)) for point in range(0x110000))
    seconds = {chr(int(parts.split()[1], 16)) for parts in decompositions if " " in parts and parts[0] != "<"}
    return frozenset(seconds) | frozenset(map(chr, (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))))


def _unchanged(text: str, start: int, end: int) -> Iterator[Change]:
    return ((text[i], i, i + 1) for i in range(start, end))


def _joined(spans: Sequence[Span], start: int, end: int) -> Span:
    """The characters that those of spans[start:end] come from together; where there are none, the place between."""
    if start < end:
        return spans[start][0], spans[end - 1][1]
    place = spans[start][0] if start < len(spans) else spans[-1][1] if spans else 0
    return place, place
