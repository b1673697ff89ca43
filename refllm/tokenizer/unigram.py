"""SentencePiece's Unigram model (Kudo 2018, arXiv:1804.10959; EncodeOptimized of unigram_model.cc, sentencepiece 0.2).

Each piece has a log-probability, and a text is cut into the pieces whose sum is highest: Viterbi's search, which keeps for every
place the best way to get there. A character that no piece stands for alone may be taken as unknown, for a penalty.

    best[0] = 0        best[end] = max over pieces text[start:end] of  best[start] + score(piece)        the first of equals

The sums are rounded, sentencepiece's to float32 and those of Hugging Face's tokenizers to float64, and where two ways come close
the rounding decides: in the middle of a long text other than at its start. So a word's ids depend on the sum before it. But
between two powers of two all floats have one spacing, and there the roundings depend only on whether that sum is an even number
of spacings. A word is remembered with that, and with how far the sums within it reach.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from refllm.tokenizer.metaspace import Metaspace
from refllm.tokenizer.model import Span
from refllm.tokenizer.remembered import LONGEST_WORD, MOST_WORDS

ESCAPED_SPACE = "\u2581"
UNKNOWN_CHARACTER = -1  # in the place of a piece's id
UNKNOWN_PENALTY = 10.0  # nats below the least probable piece

Arithmetic = Literal["float32", "float64"]
PRECISION = {"float32": 2.0**24, "float64": 2.0**53}
RESET = {"float32": 1e5, "float64": math.inf}  # sentencepiece begins its sums anew when they are further below zero


def float32(number: float) -> float:
    """The float32 nearest to a number."""
    return _FLOAT32.unpack(_FLOAT32.pack(number))[0]


_FLOAT32 = struct.Struct("<f")
ROUNDED: dict[Arithmetic, Callable[[float], float]] = {"float32": float32, "float64": float}


class Path(NamedTuple):
    """The best way through a word."""

    pieces: tuple[int, ...]  # ids, and UNKNOWN_CHARACTER for each
    ids: tuple[int, ...]  # the same in the end: what is unknown as bytes, or once for each run
    start: float  # the sum before the word
    end: float  # the sum behind it
    lowest: float  # no sum within the word is further below the start
    highest: float  # nor further above
    even: bool  # whether they all had the spacing of the start


class Unigram:
    """Pieces with log-probabilities.

    pieces: id -> text, spaces plain    scores: id -> natural logarithm of the probability; a piece without one is never used
    unknown: the id of a character that no piece stands for alone    unknown_score: what it costs
    byte_ids: the ids of the 256 single bytes, which then stand for what is unknown, or ()
    prefix: what the first token loses when it is decoded: " " or ""
    metaspace: what makes words of a text, each a text of its own; None where the text is one
    arithmetic: the type that sums are rounded to
    """

    def __init__(
        self,
        pieces: Mapping[int, str],
        scores: Mapping[int, float],
        unknown: int,
        unknown_score: float,
        byte_ids: Sequence[int] = (),
        prefix: str = " ",
        metaspace: Metaspace | None = None,
        arithmetic: Arithmetic = "float32",
    ):
        if len(byte_ids) not in (0, 256):
            raise ValueError(f"the vocabulary has pieces for {len(byte_ids)} of the 256 bytes; it needs all or none.")
        if "" in pieces.values():
            raise ValueError("the vocabulary has an empty piece.")
        if not all(map(math.isfinite, [*scores.values(), unknown_score])):
            raise ValueError("a score of the vocabulary is not a finite number.")
        self.pieces = dict(pieces)
        self.scores = dict(scores)
        self.unknown = unknown
        self.unknown_score = unknown_score
        self.byte_ids = tuple(byte_ids)
        self.prefix = prefix
        self.metaspace = metaspace
        self.arithmetic: Arithmetic = arithmetic
        self.vocabulary = {id: piece.encode() for id, piece in pieces.items()}
        self.vocabulary |= {id: bytes([byte]) for byte, id in enumerate(byte_ids)}
        self._table = _table({piece: id for id, piece in pieces.items() if id in scores})
        self._steps = [*scores.values(), unknown_score]
        self._least, self._most = min(self._steps), max(0.0, *self._steps)
        self._longest = max(map(len, self._table), default=1)
        self._reset = RESET[arithmetic]
        self._words = _cutter(pieces[id] for id in scores)
        self._remembered: dict[tuple[str, int, int], Path] = {}

    @property
    def after_added(self) -> "Unigram":
        """The model of a stretch of text behind an added token: this one, or where only the first gets a space, one without."""
        if self.metaspace is None or self.metaspace.scheme != "first":
            return self
        other = copy(self)
        other.metaspace, other.prefix = self.metaspace._replace(scheme="never"), ""
        return other

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        ids = [id for _, path in self._paths(text) for id in path.ids]
        if self.metaspace or self.byte_ids or self.unknown not in ids:
            return ids
        return [id for i, id in enumerate(ids) if id != self.unknown or ids[i - 1 : i] != [id]]

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32. Each sum needs the last, so the host works them out."""
        return xp.from_numpy(np.array(self.encode(text), np.int32))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
        sources = self.metaspace.sources(text) if self.metaspace else [(i, i + 1) for i in range(len(text))]
        ids: list[int] = []
        spans: list[Span] = []
        behind, run = 0, False  # run: whether the token before is one for what is unknown, and may grow
        for word, path in self._paths(text):
            first, place = behind, behind
            run = run and not self.metaspace
            for piece in path.pieces:
                place, behind = behind, behind + (1 if piece == UNKNOWN_CHARACTER else len(self.pieces[piece]))
                span = (sources[place][0], sources[behind - 1][1])
                if piece == UNKNOWN_CHARACTER and self.byte_ids:
                    as_bytes = self._as_bytes(word[place - first])
                    ids += as_bytes
                    spans += [span] * len(as_bytes)
                elif self._id(piece) == self.unknown and run:
                    spans[-1] = (spans[-1][0], span[1])
                else:
                    ids.append(self._id(piece))
                    spans.append(span)
                run = self._id(piece) == self.unknown
        return ids, spans

    def _paths(self, text: str) -> Iterator[tuple[str, Path]]:
        """The words of a text with the best way through each, as the sum before it has it."""
        remembered, precision = self._remembered, PRECISION[self.arithmetic]
        total = 0.0
        for word in self.metaspace.words(text) if self.metaspace else self._words(text.replace(ESCAPED_SPACE, " ")):
            mantissa, exponent = math.frexp(total)
            key = (word, exponent, int(mantissa * precision) & 1)
            path = remembered.get(key)
            if path is None or total != path.start and not (path.even and self._even(path, total)):
                path = self._path(word, total)
                if len(word) <= LONGEST_WORD:
                    if len(remembered) >= MOST_WORDS:
                        remembered.clear()
                    remembered[key] = path
            yield word, path
            if self.metaspace is None:
                total = path.end if total == path.start else total + (path.end - path.start)

    def _path(self, word: str, total: float) -> Path:
        """Viterbi's search through a word, given the sum before it."""
        table, scores, n = self._table, self.scores, len(word)
        round_sum = ROUNDED[self.arithmetic]
        best = [total] + [-math.inf] * n
        last = [(0, UNKNOWN_CHARACTER)] * (n + 1)  # for each end, where its last piece starts and which it is
        was_reset = False
        for start in range(n):
            here = best[start]
            if here < -self._reset:
                for place in range(start, min(start + self._longest, n) + 1):
                    best[place] = round_sum(best[place] - here)
                here, was_reset = 0.0, True
            alone = False
            for end in range(start + 1, n + 1):
                id = table.get(word[start:end])
                if id is None:
                    break
                if id >= 0:
                    alone = alone or end == start + 1
                    candidate = round_sum(here + scores[id])
                    if candidate > best[end]:
                        best[end] = candidate
                        last[end] = (start, id)
            if not alone:
                candidate = round_sum(here + self.unknown_score)
                if candidate > best[start + 1]:
                    best[start + 1] = candidate
                    last[start + 1] = (start, UNKNOWN_CHARACTER)
        pieces = []
        end = n
        while end > 0:
            end, id = last[end]
            pieces.append(id)
        pieces.reverse()
        lowest, highest = min(best) - total + self._least, max(best) - total + self._most
        path = Path(tuple(pieces), tuple(self._spelled_out(word, pieces)), total, best[n], lowest, highest, True)
        return path._replace(even=not was_reset and self._even(path, total))

    def _even(self, path: Path, total: float) -> bool:
        """Whether all sums within a word have one spacing, that of the total before it, and none begins anew."""
        limit = 2.0 ** math.frexp(total)[1]
        return total + path.lowest > -min(limit, self._reset) and total + path.highest <= -limit / 2

    def _spelled_out(self, word: str, pieces: Iterable[int]) -> Iterator[int]:
        """The ids of a word's pieces: what is unknown as bytes where there are such, else one for a run of it."""
        place, before = 0, -1
        for piece in pieces:
            id = self._id(piece)
            if piece == UNKNOWN_CHARACTER and self.byte_ids:
                yield from self._as_bytes(word[place])
            elif id != self.unknown or before != id:
                yield id
            place += 1 if piece == UNKNOWN_CHARACTER else len(self.pieces[piece])
            before = id

    def _as_bytes(self, character: str) -> list[int]:
        """The ids of a character's bytes; a space is U+2581 here too."""
        return [self.byte_ids[byte] for byte in character.replace(" ", ESCAPED_SPACE).encode()]

    def _id(self, piece: int) -> int:
        return self.unknown if piece == UNKNOWN_CHARACTER else piece


def _table(ids: Mapping[str, int]) -> dict[str, int]:
    """piece -> id, and -1 for what only begins a piece."""
    table = dict.fromkeys((piece[:end] for piece in ids for end in range(1, len(piece))), -1)
    return table | dict(ids)


def _cutter(pieces: Iterable[str]) -> Callable[[str], Iterable[str]]:
    """What cuts a text where no piece crosses: before its spaces, behind them, or nowhere."""
    before = behind = True
    for piece in pieces:
        for left, right in pairwise(piece):
            before = before and not (left != " " and right == " ")
            behind = behind and not (left == " " and right != " ")
    return re.compile(" *[^ ]+| +" if before else "[^ ]+ *| +" if behind else "(?s:.+)").findall
