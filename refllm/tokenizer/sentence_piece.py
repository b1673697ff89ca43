"""SentencePiece's BPE (Kudo & Richardson 2018, arXiv:1808.06226; bpe_model.cc of sentencepiece 0.2), as in Llama 2 and Mistral.

The text, a space put before it, is a list of characters. While some adjacent pair joins to a piece, the pair whose piece has the
highest score is joined, leftmost first. A character left over that is no piece becomes the pieces of its UTF-8 bytes.

SentencePiece's files write spaces as U+2581; here they are plain. A U+2581 in the text reads as a space, and decodes to one.
"""

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np

from refllm.array_api import load
from refllm.tokenizer.byte_pair import Merge, merge_word
from refllm.tokenizer.model import Span
from refllm.tokenizer.offsets import spans_of_bytes
from refllm.tokenizer.remembered import MOST_WORDS, RememberedWords
from refllm.tokenizer.sentence_piece_arrays import (
    CHARACTERS,
    UNICODE,
    PieceTables,
    code_points,
    encode_points,
    encode_segments,
    piece_tables,
    slots,
)

ESCAPED_SPACE = "\u2581"
LONG = 1 << 13  # characters; from here on arrays are faster
CHUNK = 1 << 17  # characters cut at a time, so that what is in work stays small
LONGEST_SEGMENT = 64  # characters of one that is joined beside others, a round for each; a longer one costs n·log n by itself
MANY = 64  # segments not met before; fewer are sooner done one by one

Scheme = Literal["every", "unspaced", "first"]


class SentencePieceBPE:
    """Pieces with the merges that build them.

    pieces: id -> text, spaces plain    byte_ids: the ids of the 256 single bytes, or () where there is no fallback to bytes
    merges: (left symbol, right symbol) -> Merge, a symbol being an id, or CHARACTERS + code point
    user_defined: ids of pieces that are found in the text before all others, the longest first, and never joined
    prefix: what is put before a text, and taken off when it is decoded: " " or ""    unknown: the id of what has no other
    scheme: which stretches of a text between added tokens the prefix is put before: "every" one, those "unspaced", which begin
    with no space of their own, or of those only the "first" of a text
    """

    def __init__(
        self,
        pieces: Mapping[int, str],
        merges: Mapping[tuple[int, int], Merge],
        byte_ids: Sequence[int] = (),
        user_defined: Iterable[int] = (),
        prefix: str = " ",
        unknown: int | None = None,
        scheme: Scheme = "every",
    ):
        if len(byte_ids) not in (0, 256):
            raise ValueError(f"the vocabulary has pieces for {len(byte_ids)} of the 256 bytes; it needs all or none.")
        if not byte_ids and unknown is None:
            raise ValueError("the vocabulary has neither pieces for bytes nor one for what is unknown; it needs either.")
        if "" in pieces.values():
            raise ValueError("the vocabulary has an empty piece.")
        if (largest := max([0, *pieces, *byte_ids, unknown or 0])) >= CHARACTERS:
            raise ValueError(f"the vocabulary has the id {largest}; ids here are below {CHARACTERS}.")
        self.pieces = dict(pieces)
        self.byte_ids = tuple(byte_ids)
        self.user_defined = tuple(user_defined)
        whole = frozenset(self.user_defined)
        self.merges = {pair: merge for pair, merge in merges.items() if whole.isdisjoint((*pair, merge.id))} if whole else merges
        self.prefix = prefix
        self.scheme = scheme
        self.unknown = unknown
        self.vocabulary = {id: piece.encode() for id, piece in pieces.items()}
        self.vocabulary |= {id: bytes([byte]) for byte, id in enumerate(byte_ids)}
        self._characters = {piece: id for id, piece in pieces.items() if len(piece) == 1}
        self._whole = {pieces[id]: id for id in self.user_defined}
        self._parts = _around(self._whole)
        self._words = _words(piece for id, piece in pieces.items() if id not in whole)
        self._word_ids = RememberedWords(self._encode_word)
        self._tables_of: dict[Any, PieceTables] = {}  # by the array API of their backend

    @property
    def after_added(self) -> "SentencePieceBPE":
        """The model of a stretch of text behind an added token: this one, or where only the first has a prefix, one without."""
        if self.scheme != "first" or not self.prefix:
            return self
        other = copy.copy(self)  # with the same tables and the same remembered words
        other.prefix = ""
        return other

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        word_ids = self._word_ids
        ids: list[int] = []
        for part, is_whole in self._parts(self._prefixed(text)):
            if is_whole:
                ids.append(self._whole[part])
            elif len(part) < LONG:
                ids.extend(chain.from_iterable(map(word_ids.__getitem__, self._words(part))))
            else:
                ids.extend(chain.from_iterable(self._encode_segments(part, bounds) for bounds in self._bounds(part)))
        if self.byte_ids:
            return ids
        return [id for i, id in enumerate(ids) if id != self.unknown or ids[i - 1 : i] != [id]]  # one for a run of the unknown

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""
        if not text:
            return xp.zeros(0, dtype=xp.int32)
        if xp is load("numpy").xp:  # where segments that were met before need no work
            return np.array(self.encode(text), np.int32)
        place = {piece: UNICODE + n for n, piece in enumerate(self._whole)}
        parts = [
            np.array([place[part]], np.int32) if is_whole else code_points(part)
            for part, is_whole in self._parts(self._prefixed(text))
        ]
        return encode_points(xp.from_numpy(np.concatenate(parts)), self._tables(xp))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it.

        What is put before the text belongs to the first token, whose span begins at 0 all the same.
        """
        ids, plain, given = self.encode(text), text.replace(ESCAPED_SPACE, " "), self._prefixed(text)
        data = given.encode()
        lengths: list[int] = []
        position = 0
        for id, following in zip(ids, [*ids[1:], None], strict=True):
            if id in self.vocabulary:
                lengths.append(len(self.vocabulary[id]))
            else:  # a run of what is unknown reaches to the token that follows
                end = len(data) if following is None else data.index(self.vocabulary[following], position + 1)
                lengths.append(end - position)
            position += lengths[-1]
        return ids, spans_of_bytes(plain, lengths, len(plain) - len(given))

    def _prefixed(self, text: str) -> str:
        """The text, spaces plain, with the prefix before it where it gets one."""
        text = text.replace(ESCAPED_SPACE, " ")
        return text if not text or (self.scheme != "every" and text[0] == " ") else self.prefix + text

    def _encode_word(self, word: str) -> Iterator[int]:
        for symbol in merge_word([self._characters.get(c, CHARACTERS + ord(c)) for c in word], self.merges):
            if symbol < CHARACTERS:
                yield symbol
            elif self.byte_ids:
                yield from (self.byte_ids[byte] for byte in chr(symbol - CHARACTERS).encode())
            elif self.unknown is not None:
                yield self.unknown

    def _bounds(self, text: str) -> Iterator[np.ndarray]:
        """Where to cut a text: between all characters that stand side by side in no piece, about CHUNK characters at a time.

        Each array begins where the one before ends: (segments + 1,) int64.
        """
        may_join = self._tables(load("numpy").xp).may_join
        start = 0
        for low in range(0, len(text), CHUNK):
            points = code_points(text[low : low + CHUNK + 1])
            cuts = np.flatnonzero(~may_join[slots(points[:-1], points[1:])]) + (low + 1)
            end = [len(text)] if low + CHUNK >= len(text) else []
            bounds = np.concatenate([[start], cuts, end]).astype(np.int64)
            yield bounds
            start = bounds[-1]

    def _encode_segments(self, text: str, bounds: np.ndarray) -> Iterable[int]:
        """The ids of text[bounds[0]:bounds[-1]], cut at all bounds."""
        if 2 * bounds.size > bounds[-1] - bounds[0] and np.max(np.diff(bounds), initial=0) <= LONGEST_SEGMENT:
            # segments so short that to look one up costs more than to encode it again
            points, starts = code_points(text[bounds[0] : bounds[-1]]), (bounds[:-1] - bounds[0]).astype(np.int32)
            return self._shared.take(encode_segments(points, starts, self._tables(load("numpy").xp))[0]).tolist()
        word_ids = self._word_ids
        segments = [text[a:b] for a, b in pairwise(bounds.tolist())]
        self._remember([segment for segment in set(segments) if segment not in word_ids])
        return chain.from_iterable(map(word_ids.__getitem__, segments))

    def _remember(self, segments: list[str]) -> None:
        """Work out the ids of segments not met before, all at once; long ones, and a few, are left to be asked for one by one."""
        segments = [segment for segment in segments if len(segment) <= LONGEST_SEGMENT]
        if len(segments) < MANY:
            return
        if len(self._word_ids) + len(segments) > MOST_WORDS:
            self._word_ids.clear()
        starts = np.cumsum([0, *map(len, segments[:-1])], dtype=np.int32)
        ids, starts = encode_segments(code_points("".join(segments)), starts, self._tables(load("numpy").xp))
        flat, bounds = ids.tolist(), [*starts.tolist(), ids.size]
        self._word_ids.update((segment, tuple(flat[a:b])) for segment, (a, b) in zip(segments, pairwise(bounds), strict=True))

    @cached_property
    def _shared(self) -> np.ndarray:
        """One int for each id, so that a list of ids costs no more than its pointers."""
        return np.array(range(max([*self.vocabulary, self.unknown or 0]) + 1), object)

    def _tables(self, xp: Any) -> PieceTables:
        if xp not in self._tables_of:
            self._tables_of[xp] = piece_tables(self.pieces, self.merges, self.byte_ids, self.user_defined, self.unknown, xp)
        return self._tables_of[xp]


def merges_by_score(pieces: Mapping[int, str], scores: Mapping[int, float]) -> dict[tuple[int, int], Merge]:
    """Every pair of symbols that joins to a piece, higher scores first."""
    ranks = {score: rank for rank, score in enumerate(sorted({scores[id] for id in pieces}, reverse=True))}
    symbols = {chr(point): CHARACTERS + point for piece in pieces.values() for point in map(ord, piece)}
    symbols |= {piece: id for id, piece in pieces.items()}
    merges: dict[tuple[int, int], Merge] = {}
    for id, piece in pieces.items():
        for i in range(1, len(piece)):
            if piece[:i] in symbols and piece[i:] in symbols:
                merges[symbols[piece[:i]], symbols[piece[i:]]] = Merge(ranks[scores[id]], id)
    return merges


def _words(pieces: Iterable[str]) -> Callable[[str], list[str]]:
    """What cuts a text where no piece crosses: before spaces, if no piece has a space behind a word."""
    crossing = any(re.search("[^ ] ", piece) for piece in pieces)
    return re.compile("(?s:.+)" if crossing else " *[^ ]+| +").findall


def _around(whole: Collection[str]) -> Callable[[str], Iterable[tuple[str, bool]]]:
    """What cuts a text around the pieces that are found before all others, the longest first: parts, and whether each is one."""
    if not whole:
        return lambda text: [(text, False)] if text else []
    parts = re.compile("(" + "|".join(map(re.escape, sorted(whole, key=len, reverse=True))) + ")").split
    return lambda text: ((part, i % 2 == 1) for i, part in enumerate(parts(text)) if part)
