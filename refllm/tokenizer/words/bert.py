"""BERT's basic tokenizer (Devlin et al. 2018, arXiv:1810.04805; BertNormalizer and BertPreTokenizer of tokenizers 0.23).

Every character is written out on its own: as nothing, as a space, as itself in lower case and without its accents, or, where it
is punctuation or a Chinese character, between spaces. The words are what stands between spaces then.

Only the order of several marks on one character is more than one character's affair: it is made canonical before.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import namespace, op
from refllm.tokenizer.model import Span
from refllm.tokenizer.words.bert_characters import (
    DECOMPOSED,
    DROPPED,
    IDEOGRAPHS,
    MARK,
    ORDERED,
    PUNCTUATION,
    flags,
    is_ideograph,
    lower_case,
)
from refllm.tokenizer.words.unicode_categories import N_CODE_POINTS, members


class BertRules(NamedTuple):
    """What is done to text before it is cut, by the names of BertNormalizer.

    clean_text: controls are dropped    handle_chinese_chars: an ideograph is a word    lowercase: everything is lower case
    strip_accents: nonspacing marks are dropped; None for what lowercase is
    """

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True

    @property
    def strips(self) -> bool:
        """Whether nonspacing marks are dropped."""
        return self.lowercase if self.strip_accents is None else self.strip_accents


UNCASED = BertRules()
CASED = BertRules(lowercase=False)


def bert_words(text: str, rules: BertRules) -> list[str]:
    """The words of a text, as they are looked up."""
    return [word for word in ordered(text, rules).translate(written_out(rules)).split(" ") if word]


def bert_words_with_offsets(text: str, rules: BertRules) -> Iterator[tuple[str, list[Span]]]:
    """Each word with the span in the text of every character of it."""
    table = written_out(rules)
    characters: list[str] = []
    spans: list[Span] = []
    for character, place in _placed(text, rules):
        written = table[ord(character)]
        characters.append(written)
        spans += [(place, place + 1)] * len(written)
    for match in re.finditer("[^ ]+", "".join(characters)):
        yield match.group(), spans[match.start() : match.end()]


class _WrittenOut(dict[int, str]):
    """code point -> what it is written out as, for str.translate; worked out when it first comes."""

    def __init__(self, rules: BertRules):
        super().__init__()
        self.rules = rules

    def __missing__(self, point: int) -> str:
        self[point] = written = write_out(point, self.rules)
        return written


@functools.lru_cache(maxsize=16)
def written_out(rules: BertRules) -> _WrittenOut:
    """The table of what every character is written out as."""
    return _WrittenOut(rules)


def write_out(point: int, rules: BertRules) -> str:
    """What a character is written out as: nothing, or characters of words with spaces before, between and behind."""
    kinds, white = flags(), members("s")
    text = normalized(point, rules)
    return "".join(" " if white[ord(c)] else f" {c} " if kinds[ord(c)] & PUNCTUATION else c for c in text)


def normalized(point: int, rules: BertRules) -> str:
    """What BertNormalizer makes of a character: the same, but for the spaces around punctuation, which come later."""
    kinds, text = flags(), chr(point)
    if rules.clean_text and kinds[point] & DROPPED:
        return ""
    if rules.clean_text and members("s")[point]:
        return " "
    if rules.strips:
        text = "".join(c for c in _decomposed(text) if not kinds[ord(c)] & MARK)
    if rules.lowercase:
        text = "".join(lower_case().get(ord(c), c) for c in text)
    return f" {text} " if rules.handle_chinese_chars and is_ideograph(point) else text


class NormalizedByBert(NamedTuple):
    """BertNormalizer as a step of a normalizer, for added tokens that are looked for in normalized text."""

    rules: BertRules

    def apply(self, text: str) -> str:
        """The text normalized."""
        return "".join(part for part, _, _ in self.changes(text))

    def changes(self, text: str) -> Iterator[tuple[str, int, int]]:
        """What each character becomes, where it becomes anything, and the characters that it stands for."""
        for character, place in _placed(text, self.rules):
            if part := normalized(ord(character), self.rules):
                yield part, place, place + 1


def _decomposed(character: str) -> str:
    return unicodedata.normalize("NFD", character) if flags()[ord(character)] & DECOMPOSED else character


def ordered(text: str, rules: BertRules) -> str:
    """The text itself, or decomposed with marks in canonical order, where accents are stripped and some marks may stay."""
    if not rules.strips or text.isascii():
        return text
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    if not _lasting_marks().take(points).any():
        return text
    return "".join(character for character, _ in _reordered(text, rules))


def _placed(text: str, rules: BertRules) -> Iterator[tuple[str, int]]:
    """The characters of `ordered`, each with the place in the text that it comes from."""
    return zip(text, range(len(text)), strict=True) if ordered(text, rules) is text else _reordered(text, rules)


def _reordered(text: str, rules: BertRules) -> Iterator[tuple[str, int]]:
    """Canonical order (Unicode 3.11, D108), as tokenizers tells its places: the first part of a character goes one place on."""
    kinds = flags()
    kept = [place for place, c in enumerate(text) if not (rules.clean_text and kinds[ord(c)] & DROPPED)]
    parts = [(c, i == 0) for place in kept for i, c in enumerate(_decomposed(text[place]))]
    run: list[tuple[str, bool]] = []  # marks that await their order
    sorted_parts: list[tuple[str, bool]] = []
    for part in [*parts, ("", True)]:
        if part[0] and kinds[ord(part[0])] & ORDERED:
            run.append(part)
            continue
        sorted_parts += [*sorted(run, key=lambda marked: unicodedata.combining(marked[0])), part]
        run = []
    index = -1
    for c, first in sorted_parts[:-1]:
        index += first
        yield c, kept[max(index, 0)]


@functools.cache
def _lasting_marks() -> np.ndarray:
    """The characters with a combining class that are not stripped, and so may stand in another order: (0x110000,) bool."""
    return flags() & (ORDERED | MARK) == ORDERED


class WrittenOut(NamedTuple):
    """What every code point is written out as, in arrays of one backend.

    places: (0x110001,) int32, where its characters begin; they end where those of the next begin    characters: (M,) int32
    """

    places: Any
    characters: Any


def written_table(rules: BertRules, xp: Any) -> WrittenOut:
    """The table as arrays."""
    places, characters = _written_table(rules)
    return WrittenOut(xp.from_numpy(places), xp.from_numpy(characters))


@functools.lru_cache(maxsize=4)
def _written_table(rules: BertRules) -> tuple[np.ndarray, np.ndarray]:
    kinds, ideographs = flags(), np.zeros(N_CODE_POINTS, bool)
    for first, last in IDEOGRAPHS:
        ideographs[first : last + 1] = rules.handle_chinese_chars
    special = (kinds & (PUNCTUATION | MARK | DECOMPOSED) > 0) | members("s")
    special[list(lower_case())] = True
    dropped = (kinds & DROPPED > 0) & rules.clean_text
    written = {point: write_out(point, rules) for point in np.flatnonzero(special & ~dropped).tolist()}
    lengths = np.where(dropped, 0, np.where(ideographs, 3, 1)).astype(np.int32)
    lengths[list(written)] = list(map(len, written.values()))
    places = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    characters = np.full(places[-1], ord(" "), np.int32)
    plain = np.flatnonzero(lengths > 0)
    characters[places[plain] + (lengths[plain] == 3)] = plain  # an ideograph stands between two spaces
    changed = np.repeat(places[list(written)], lengths[list(written)])
    within = np.arange(changed.size) - np.repeat(
        np.cumsum(lengths[list(written)]) - lengths[list(written)], lengths[list(written)]
    )
    characters[changed + within] = [ord(c) for text in written.values() for c in text]
    return places, characters


@op
def write_out_points(points, places, characters):
    """Every character of a text replaced by what it is written out as.

    points: (N,) int32 code points    places, characters: as in WrittenOut
    Returns (M,) int32: characters of words, and spaces between.
    """
    xp = namespace(points)
    first = xp.take(places, points, axis=0)
    lengths = xp.take(places, points + 1, axis=0) - first
    ends = xp.cumulative_sum(lengths, axis=0, dtype=xp.int32)
    total = int(xp.sum(lengths))
    written = xp.arange(total, dtype=xp.int32)
    source = xp.searchsorted(ends, written, side="right")  # the character that each written one comes from
    behind = xp.take(ends, source, axis=0) - written  # how many of its characters stand from here on
    return xp.take(characters, xp.take(first + lengths, source, axis=0) - behind, axis=0)
