"""SentencePiece's BPE (Kudo & Richardson 2018, arXiv:1808.06226; bpe_model.cc of sentencepiece 0.2), as in Llama 2 and Mistral.

The text, a space put before it, is a list of characters. While some adjacent pair joins to a piece, the pair whose piece has the
highest score is joined, leftmost first. A character left over that is no piece becomes the pieces of its UTF-8 bytes.

SentencePiece's files write spaces as U+2581; here they are plain. A U+2581 in the text reads as a space, and decodes to one.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refllm.tokenizer.byte_pair import Merge, merge_word
from refllm.tokenizer.model import Span
from refllm.tokenizer.offsets import spans_of_bytes
from refllm.tokenizer.remembered import RememberedWords

ESCAPED_SPACE = "\u2581"
CHARACTERS = 1 << 32  # a character that is no piece has the symbol CHARACTERS + its code point


class SentencePieceBPE:
    """Pieces with the merges that build them.

    pieces: id -> text, spaces plain    byte_ids: the ids of the 256 single bytes, or () where there is no fallback to bytes
    merges: (left symbol, right symbol) -> Merge, a symbol being an id, or CHARACTERS + code point
    user_defined: ids of pieces that are found in the text before all others, the longest first, and never joined
    prefix: what is put before a text, and taken off when it is decoded: " " or ""    unknown: the id of what has no other
    """

    def __init__(
        self,
        pieces: Mapping[int, str],
        merges: dict[tuple[int, int], Merge],
        byte_ids: Sequence[int] = (),
        user_defined: Iterable[int] = (),
        prefix: str = " ",
        unknown: int | None = None,
    ):
        if len(byte_ids) not in (0, 256):
            raise ValueError(f"the vocabulary has pieces for {len(byte_ids)} of the 256 bytes; it needs all or none.")
        if not byte_ids and unknown is None:
            raise ValueError("the vocabulary has neither pieces for bytes nor one for what is unknown; it needs either.")
        if "" in pieces.values():
            raise ValueError("the vocabulary has an empty piece.")
        self.pieces = dict(pieces)
        self.merges = merges
        self.byte_ids = tuple(byte_ids)
        self.user_defined = tuple(user_defined)
        self.prefix = prefix
        self.unknown = unknown
        self.vocabulary = {id: piece.encode() for id, piece in pieces.items()}
        self.vocabulary |= {id: bytes([byte]) for byte, id in enumerate(byte_ids)}
        self._characters = {piece: id for id, piece in pieces.items() if len(piece) == 1}
        self._whole = {pieces[id]: id for id in self.user_defined}
        self._words = _splitter(pieces.values(), self._whole)
        self._word_ids = RememberedWords(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        if not text:
            return []
        word_ids = self._word_ids
        ids = [id for word in self._words(self.prefix + text.replace(ESCAPED_SPACE, " ")) for id in word_ids[word]]
        if self.byte_ids:
            return ids
        return [id for i, id in enumerate(ids) if id != self.unknown or ids[i - 1 : i] != [id]]  # one for a run of the unknown

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""
        return xp.from_numpy(np.array(self.encode(text), np.int32))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
        ids, plain = self.encode(text), text.replace(ESCAPED_SPACE, " ")
        given = (self.prefix + plain).encode()
        lengths: list[int] = []
        position = 0
        for id, following in zip(ids, [*ids[1:], None], strict=True):
            if id in self.vocabulary:
                lengths.append(len(self.vocabulary[id]))
            else:  # a run of what is unknown reaches to the token that follows
                end = len(given) if following is None else given.index(self.vocabulary[following], position + 1)
                lengths.append(end - position)
            position += lengths[-1]
        return ids, spans_of_bytes(plain, lengths, -len(self.prefix))

    def _encode_word(self, word: str) -> Iterator[int]:
        if word in self._whole:
            yield self._whole[word]
            return
        for symbol in merge_word([self._characters.get(c, CHARACTERS + ord(c)) for c in word], self.merges):
            if symbol < CHARACTERS:
                yield symbol
            elif self.byte_ids:
                yield from (self.byte_ids[byte] for byte in chr(symbol - CHARACTERS).encode())
            elif self.unknown is not None:
                yield self.unknown


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


def _splitter(pieces: Iterable[str], whole: Collection[str]) -> Callable[[str], Iterable[str]]:
    """What cuts a text where no piece crosses: around the whole ones and before spaces, if no other has a space behind a word."""
    crossing = any(re.search("[^ ] ", piece) for piece in pieces if piece not in whole)
    words = re.compile("(?s:.+)" if crossing else " *[^ ]+| +").findall
    if not whole:
        return words
    parts = re.compile("(" + "|".join(map(re.escape, sorted(whole, key=len, reverse=True))) + ")").split

    def split(text: str) -> Iterator[str]:
        for i, part in enumerate(parts(text)):
            yield from [part] if i % 2 else words(part)

    return split
