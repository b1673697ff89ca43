"""WordPiece (Schuster & Nakajima 2012; Wu et al. 2016, arXiv:1609.08144), as BERT cuts words (Devlin et al. 2018).

From its left, a word gives the longest piece that the vocabulary has, again and again; pieces behind the first are spelled ##ing.
Where none fits, the whole word is unknown.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import load, namespace, op
from refllm.tokenizer.model import Span
from refllm.tokenizer.remembered import RememberedWords
from refllm.tokenizer.words.bert import (
    UNCASED,
    BertRules,
    bert_words,
    bert_words_with_offsets,
    ordered,
    write_out_points,
    written_table,
)

CHUNK = 1 << 16  # characters, about
SPACE = ord(" ")
NODES = 1 << 32  # a trie's edge from node n by code point c has the key n · NODES + c

# What tokenizers' decoder cleans up in a piece behind a space, in this order.
CLEANED = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


class WordPiece:
    """Pieces of words, and the rules that make words of text.

    pieces: id -> spelling    unknown: the id of a word that no pieces make    rules: of BERT's basic tokenizer
    continuing: what the spelling of a piece behind another begins with    longest_word: characters; longer words are unknown
    cleanup: whether decoding leaves out the space before "." "," "n't" …

    A piece that begins a word decodes with a space before it. What encoding dropped does not come back: case and accents in an
    uncased model, and in any how many spaces there were.
    """

    prefix = " "
    added_are_words = True  # [MASK] is decoded with a space before it

    def __init__(
        self,
        pieces: Mapping[int, str],
        unknown: int,
        rules: BertRules = UNCASED,
        continuing: str = "##",
        longest_word: int = 100,
        cleanup: bool = True,
    ):
        self.pieces = dict(pieces)
        self.unknown = unknown
        self.rules = rules
        self.continuing = continuing
        self.longest_word = longest_word
        self.cleanup = cleanup
        self.vocabulary = {id: self._decoded(piece).encode() for id, piece in pieces.items()}
        self._first = {piece: id for id, piece in pieces.items() if piece}
        self._behind = {
            piece.removeprefix(continuing): id
            for piece, id in self._first.items()
            if piece.startswith(continuing) and piece != continuing
        }
        self._longest_piece = max(map(len, self._first), default=0)
        self._lengths = {id: len(piece) for piece, id in self._first.items()}
        self._word_ids = RememberedWords(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        ids: list[int] = []
        for piece in chunks(text):
            ids.extend(chain.from_iterable(map(self._word_ids.__getitem__, bert_words(piece, self.rules))))
        return ids

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32.

        NumPy's are those of words remembered, which is quicker; on other backends everything but the order of several marks on
        one character is done by arrays.
        """
        if xp is load("numpy").xp:
            return np.fromiter(chain.from_iterable(map(self.encode, chunks(text))), np.int32)
        pieces = [self.encode_points(code_points(ordered(piece, self.rules), xp)) for piece in chunks(text)]
        return xp.concat([xp.zeros(0, dtype=xp.int32), *pieces], axis=0)

    def encode_points(self, points: Any) -> Any:
        """The ids of a text given as code points, in arrays all through: (N,) int32 to (tokens,) int32."""
        xp = namespace(points)
        written = write_out_points(points, *written_table(self.rules, xp))
        return word_pieces(written, Trie(*map(xp.from_numpy, self._trie)), self._longest_piece, self.longest_word, self.unknown)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers: of a word's piece, without marks that were dropped."""
        ids: list[int] = []
        spans: list[Span] = []
        for word, places in bert_words_with_offsets(text, self.rules):
            found = self._word_ids[word]
            ids += found
            start = 0
            for end in self._ends(word, found):
                spans.append((places[start][0], places[end - 1][1]))
                start = end
        return ids, spans

    def _ends(self, word: str, ids: tuple[int, ...]) -> Iterator[int]:
        """Where in a word each of its pieces ends."""
        if ids == (self.unknown,):
            yield len(word)
            return
        end = 0
        for i, id in enumerate(ids):
            end += self._lengths[id] - (len(self.continuing) if i else 0)
            yield end

    def _encode_word(self, word: str) -> Iterable[int]:
        if len(word) > self.longest_word:
            return [self.unknown]
        ids: list[int] = []
        start, table = 0, self._first
        while start < len(word):
            end = min(len(word), start + self._longest_piece)
            while end > start and word[start:end] not in table:
                end -= 1
            if end == start:
                return [self.unknown]
            ids.append(table[word[start:end]])
            start, table = end, self._behind
        return ids

    def _decoded(self, piece: str) -> str:
        """The text of a piece in the middle of a text."""
        text = piece.removeprefix(self.continuing) if piece.startswith(self.continuing) else f" {piece}"
        if self.cleanup:
            for untidy, tidy in CLEANED:
                text = text.replace(untidy, tidy)
        return text

    @functools.cached_property
    def _trie(self) -> "Trie":
        return trie(self._first, self._behind)


def chunks(text: str) -> Iterator[str]:
    """The text in pieces of CHUNK characters or a little more, cut before spaces."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + CHUNK)
        yield text[start : end if end > 0 else len(text)]
        start = end if end > 0 else len(text)


def code_points(text: str, xp: Any) -> Any:
    """The code points of a text: (characters,) int32."""
    return xp.from_numpy(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4").astype(np.int32))


class Trie(NamedTuple):
    """The spellings of pieces, a node for each beginning of one: node 0 for words' beginnings, node 1 for what continues.

    keys: (E,) int64, increasing, an edge's node · NODES + code point    nodes: (E,) int32, where it leads
    ids: (nodes,) int32, the id of the piece that a node spells, or -1
    """

    keys: Any
    nodes: Any
    ids: Any


def trie(first: Mapping[str, int], behind: Mapping[str, int]) -> Trie:
    """The trie of pieces by spelling: those that begin a word, and those behind another, in NumPy's arrays."""
    edges: dict[int, int] = {}
    ids = [-1, -1]
    for root, table in enumerate((first, behind)):
        for piece, id in table.items():
            node = root
            for character in piece:
                node = edges.setdefault(node * NODES + ord(character), len(ids))
                if node == len(ids):
                    ids.append(-1)
            ids[node] = id
    edges = edges or {
        0: 0
    }  # so that there is one to compare with; node 0 has no edge by U+0000 but to itself, which spells nothing
    keys = np.array(sorted(edges), np.int64)
    return Trie(keys, np.array([edges[key] for key in keys.tolist()], np.int32), np.array(ids, np.int32))


@op
def word_pieces(points, trie, longest_piece, longest_word, unknown):
    """The ids of the pieces of words.

    points: (N,) int32 code points, words between spaces    trie: of the pieces    longest_piece, longest_word: in characters
    Returns (tokens,) int32; a word that is longer than longest_word, or that no pieces make, has the one id unknown.
    """
    xp = namespace(points)
    points = xp.concat([points, xp.asarray([SPACE], dtype=xp.int32)], axis=0)  # (N + 1,)
    ids, lengths = longest_pieces(points, trie, longest_piece)
    inside = points != SPACE
    beside = xp.asarray([False], dtype=xp.bool)
    places = xp.arange(points.shape[0], dtype=xp.int32)
    place = xp.compress(places, inside & ~xp.concat([beside, inside[:-1]], axis=0))  # (W,) where each word begins
    ends = xp.compress(places, ~inside & xp.concat([beside, inside[:-1]], axis=0))  # and ends
    fails = ends - place > longest_word
    place = xp.where(fails, ends, place)
    columns = [xp.full_like(place, -1)]
    while int(xp.count_nonzero(place < ends)) > 0:  # one piece of every word a round
        piece = xp.where(place < ends, xp.take(ids, place, axis=0), -1)
        fails = fails | ((place < ends) & (piece < 0))
        place = xp.where(fails, ends, xp.where(place < ends, place + xp.take(lengths, place, axis=0), ends))
        columns.append(piece)
    whole = xp.where(fails, xp.full_like(place, unknown), -1)
    pieces = xp.where(fails[:, None], -1, xp.stack(columns, axis=1))  # (W, rounds), -1 where a word has no more
    found = xp.reshape(xp.concat([whole[:, None], pieces], axis=1), (-1,))
    return xp.compress(found, found >= 0)


def longest_pieces(points, trie, longest_piece):
    """The longest piece that begins at each character: its id or -1, and its length. (N,) int32 each, of points (N,) int32."""
    xp = namespace(points)
    n, last = points.shape[0], trie.keys.shape[0] - 1
    begins = xp.concat([xp.asarray([True], dtype=xp.bool), points[:-1] == SPACE], axis=0)
    node = xp.astype(xp.where(begins, xp.zeros_like(points), xp.ones_like(points)), xp.int64)
    ids, lengths = xp.full_like(points, -1), xp.zeros_like(points)
    ahead = xp.concat([xp.astype(points, xp.int64), xp.full((longest_piece,), SPACE, dtype=xp.int64)], axis=0)
    for length in range(1, longest_piece + 1):
        key = node * NODES + ahead[length - 1 : length - 1 + n]
        edge = xp.clip(xp.searchsorted(trie.keys, key), max=last)
        known = xp.take(trie.keys, edge, axis=0) == key
        node = xp.where(known, xp.astype(xp.take(trie.nodes, edge, axis=0), xp.int64), -1)
        id = xp.where(known, xp.take(trie.ids, xp.clip(node, min=0), axis=0), -1)
        lengths = xp.where(id >= 0, length, lengths)
        ids = xp.where(id >= 0, id, ids)
    return ids, lengths
