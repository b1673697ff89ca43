"""The byte-level BPE model (Radford et al. 2019): words by a pattern, GPT-2's or another, each merged on its own.

A short text is encoded word by word, with words remembered; a long one all at once, by arrays. The ids are the same.
"""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refllm.array_api import load, namespace
from refllm.tokenizer.byte_pair import Merge, merge_word
from refllm.tokenizer.encode_words import encode_words, moved, unmade_tokens, word_vocabulary
from refllm.tokenizer.merge_words import merge_table
from refllm.tokenizer.model import MOST_IDS, Span
from refllm.tokenizer.offsets import spans_of_bytes
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.remembered import RememberedWords
from refllm.tokenizer.words.patterns import GPT2
from refllm.tokenizer.words.pretokenize import Pattern, check, chunked, code_points, words
from refllm.tokenizer.words.starts import has_array_form, word_starts

LONG = 1 << 14  # characters; from here on arrays are quicker than words remembered one by one
PIECE = 1 << 19  # characters whose arrays are held at once


class ByteLevelBPE:
    """A vocabulary of byte strings and the merges that build it.

    vocabulary: id -> bytes, all 256 single bytes among them    merges: (left id, right id) -> Merge(rank, id), or by ranks
    pattern: what cuts text into words, in the regular expressions of tiktoken and tokenizers, or a sequence of such
    whole_words: a word that is a token is that token, whatever the merges say (Hugging Face's ignore_merges)
    """

    prefix = ""

    def __init__(
        self,
        vocabulary: Mapping[int, bytes],
        merges: dict[tuple[int, int], Merge] | RankMerges,
        pattern: Pattern = GPT2,
        whole_words: bool = False,
    ):
        ids = {token: id for id, token in vocabulary.items() if token}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise ValueError(f"the vocabulary lacks {len(missing)} of the 256 bytes, such as 0x{missing[0]:02x}; it needs all.")
        if not 0 <= min(vocabulary) <= max(vocabulary) < MOST_IDS:
            raise ValueError(
                f"the ids go from {min(vocabulary)} to {max(vocabulary)}; they must be from 0 up, below {MOST_IDS:,}."
            )
        self.vocabulary = dict(vocabulary)
        self.merges = merges
        self.pattern = pattern
        self.whole_words = whole_words
        check(pattern)
        byte_ids = np.array([ids[bytes([byte])] for byte in range(256)], np.int32)
        table, unsure = merges_and_unsure(merges, ids)
        unmade = unmade_tokens(unsure, byte_ids, table)
        self._whole = ids if whole_words or not unmade else {token: ids[token] for token in ids if token not in unmade}
        self._byte_ids = byte_ids.tolist()
        self._tables = {"numpy": word_vocabulary(self._whole, byte_ids, table, unmade if whole_words else {})}
        self._ints = np.arange(max(vocabulary) + 1).astype(object)  # the ids as Python's ints, which all lists share
        self._encode_piece(" ", load("numpy").xp)  # and makes the kernels' tables, which the first text need not wait for

    @classmethod
    def from_merges(
        cls, vocabulary: Mapping[int, bytes], pairs: Iterable[tuple[int, int]], pattern: Pattern = GPT2, whole_words: bool = False
    ) -> "ByteLevelBPE":
        """The model whose merges are these pairs of ids, in order of rank. Raises ValueError for a pair that makes no token."""
        ids = {token: id for id, token in vocabulary.items()}
        merges: dict[tuple[int, int], Merge] = {}
        for rank, (left, right) in enumerate(pairs):
            token = vocabulary[left] + vocabulary[right]
            if token not in ids:
                raise ValueError(f"merge {rank} makes {token!r}, which is not in the vocabulary.")
            merges[left, right] = Merge(rank, ids[token])
        return cls(vocabulary, merges, pattern, whole_words)

    @functools.cached_property
    def _word_ids(self) -> RememberedWords:
        """The ids of words, of all that are tokens to begin with."""
        known = {}
        for token, id in self._whole.items():
            try:
                known[token.decode()] = (id,)
            except UnicodeDecodeError:  # a token may be a part of a character, which is no word
                continue
        return RememberedWords(self._encode_word, known)

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        """How many bytes each id stands for: (largest id + 1,) int64, 0 where there is none."""
        lengths = np.zeros(max(self.vocabulary) + 1, np.int64)
        lengths[list(self.vocabulary)] = [len(token) for token in self.vocabulary.values()]
        return lengths

    def pairs(self) -> list[tuple[int, int]]:
        """The merges as pairs of ids, in order of rank."""
        if isinstance(self.merges, RankMerges):
            return self.merges.pairs()
        return sorted(self.merges, key=self.merges.__getitem__)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        if len(text) < LONG:
            word_ids = self._word_ids
            return [id for word in words(text, self.pattern) for id in word_ids[word]]
        xp = load("numpy").xp
        pieces = deque(self._encode_piece(piece, xp) for piece in chunked(text, self.pattern, PIECE))
        ids = [0] * sum(len(piece) for piece in pieces)  # a list that grows is copied, and takes twice the memory
        end = 0
        while pieces:
            piece = pieces.popleft()
            ids[end : end + len(piece)] = self._ints.take(piece).tolist()
            end += len(piece)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. Short texts are encoded side by side, as one long text would be."""
        ids: list[list[int]] = []
        for group in grouped(texts, PIECE):
            if sum(map(len, group)) < LONG or len(group) == 1:
                ids += map(self.encode, group)
            else:
                ids += self._encode_together(group)
        return ids

    def _encode_together(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The ids of each of several texts, none empty, by arrays that hold them all."""
        xp = load("numpy").xp
        data, starts = zip(*(word_bytes(text, self.pattern, xp) for text in texts), strict=True)
        ends = np.cumsum([len(of_text) for of_text in data])
        moved_starts = [of_text + (end - len(d)) for of_text, end, d in zip(starts, ends, data, strict=True)]
        found = encode_words(np.concatenate(data), np.concatenate(moved_starts).astype(np.int32), self._tables["numpy"])
        last = np.searchsorted(np.cumsum(self._lengths[found]), ends) + 1
        first = 0
        for end in last.tolist():
            yield self._ints.take(found[first:end]).tolist()
            first = end

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""
        pieces = [self._encode_piece(piece, xp) for piece in chunked(text, self.pattern, PIECE)]
        return xp.concat(pieces, axis=0) if pieces else xp.zeros(0, dtype=xp.int32)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
        ids = self.encode(text)
        return ids, spans_of_bytes(text, self._lengths[ids].tolist())

    def _encode_word(self, word: str) -> list[int]:
        data = word.encode()
        if data in self._whole:
            return [self._whole[data]]
        return merge_word([self._byte_ids[byte] for byte in data], self.merges)

    def _encode_piece(self, text: str, xp: Any) -> Any:
        """The ids of a text as an array of xp's backend: (tokens,) int32."""
        backend = xp.__name__
        if backend not in self._tables:
            self._tables[backend] = moved(self._tables["numpy"], xp)
        return encode_words(*word_bytes(text, self.pattern, xp), self._tables[backend])


def grouped(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts in order, in groups of at most size characters; empty and larger ones alone."""
    group: list[str] = []
    room = size
    for text in texts:
        if group and (not text or len(text) > room or not group[-1]):
            yield group
            group, room = [], size
        group.append(text)
        room -= len(text)
    if group:
        yield group


def merges_and_unsure(merges: dict[tuple[int, int], Merge] | RankMerges, ids: Mapping[bytes, int]):
    """The merges as arrays of NumPy, and the tokens that they may not make."""
    if isinstance(merges, RankMerges):
        made = set(merges.canonical.id.tolist())
        unsure = {token: id for token, id in ids.items() if len(token) > 1 and id not in made}
        return merge_table(merges.canonical, load("numpy").xp), unsure
    return merge_table(merges, load("numpy").xp), ids


def word_bytes(text: str, pattern: Pattern, xp: Any) -> tuple[Any, Any]:
    """A text in UTF-8, (N,) uint8, and the bytes where its words start, (W,) int32, as arrays of xp's backend."""
    data, starts, end = [], [], 0
    for chunk in chunked(text, pattern):
        encoded = np.frombuffer(chunk.encode(), np.uint8)
        data.append(xp.from_numpy(encoded))
        starts.append(end + starts_in_bytes(chunk, data[-1], pattern))
        end += encoded.size
    return xp.concat(data, axis=0), xp.concat(starts, axis=0)


def starts_in_bytes(text: str, data: Any, pattern: Pattern) -> Any:
    """The bytes where the words of a text start: (W,) int32. data: (N,) uint8, the text in UTF-8"""
    xp = namespace(data)
    if not has_array_form(pattern):
        lengths = np.array([len(word.encode()) for word in words(text, pattern)], np.int32)
        return xp.from_numpy(np.cumsum(lengths, dtype=np.int32) - lengths)
    starts = word_starts(xp.from_numpy(code_points(text)), pattern)
    characters = xp.arange(data.shape[0], dtype=xp.int32)
    if data.shape != starts.shape:
        characters = xp.compress(characters, (data & 0xC0) != 0x80)  # every byte but a continuation begins a character
    return xp.compress(characters, starts)
