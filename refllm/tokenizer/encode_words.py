"""Byte-level BPE of a whole text's words at once, over any backend's arrays.

Every word is merged by `merge_words` from the ids of its bytes. Where a word that is a token is that token whatever the merges
say, only tokens that the merges do not make need a second look: such a token, merged, is a sequence of ids that no other bytes
have, so a word is that token iff its ids are that sequence. The sequences stand in a tree, which all words walk down together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import namespace, op
from refllm.tokenizer.merge_words import MergeTable, look_up, merge_words


class Spellings(NamedTuple):
    """The tokens that no merge makes, as the sequences of ids that merging leaves of them: a tree of states, 0 its root."""

    keys: Any  # (E,) int64 increasing: state << 32 | the id that leads on from it
    states: Any  # (E,) int32, where it leads
    tokens: Any  # (S,) int32, the token that each state is the end of; −1 where it is none
    longest: int  # ids of the longest sequence


@dataclass(frozen=True, eq=False)
class WordVocabulary:
    """What gives words their ids, as arrays of one backend."""

    byte_ids: Any  # (256,) int32
    merges: MergeTable
    spellings: Spellings | None  # None where there are none
    whole: Any  # (T,) int32, the tokens that a word of the same bytes becomes
    whole_bytes: Any  # (B,) uint8, their bytes one after another
    whole_starts: Any  # (T,) int32, where each begins


@op
def encode_words(data, starts, vocabulary):
    """The ids of a text's words.

    data: (N,) uint8, the text in UTF-8    starts: (W,) int32 increasing from 0, where each word begins
    vocabulary: a WordVocabulary on the same backend
    Returns the ids: (tokens,) int32.
    """
    xp = namespace(data)
    symbols = xp.take(vocabulary.byte_ids, xp.astype(data, xp.int32), axis=0)
    ids, begins = merge_words(symbols, starts, vocabulary.merges)
    return ids if vocabulary.spellings is None else whole_words(ids, begins, vocabulary.spellings)[0]


@op
def whole_words(ids, starts, spellings):
    """Put one token for each word whose ids spell it.

    ids: (M,) int32, all words one after another    starts: (W,) where each begins
    Returns the ids: (L,) int32, and where each word's begin: (W,).
    """
    xp = namespace(ids)
    token = spelled(ids, starts, spellings)
    n = ids.shape[0]
    places = xp.arange(n, dtype=starts.dtype)
    word = xp.searchsorted(starts, places, side="right") - 1
    token = xp.take(token, word, axis=0)
    keep = (token < 0) | (places == xp.take(starts, word, axis=0))
    kept = xp.cumulative_sum(xp.astype(keep, starts.dtype), axis=0) - 1
    return xp.compress(xp.where(token < 0, ids, token), keep), xp.take(kept, starts, axis=0)


def spelled(ids, starts, spellings):
    """The token that each word's ids spell: (W,) int32, −1 where they spell none."""
    xp = namespace(ids)
    n = ids.shape[0]
    ends = xp.concat([starts[1:], xp.asarray([n], dtype=starts.dtype)], axis=0)
    state = xp.astype(xp.zeros_like(starts), xp.int32)
    for place in range(spellings.longest + 1):
        here = starts + place
        keys = xp.astype(state, xp.int64) << 32 | xp.astype(xp.take(ids, xp.clip(here, 0, n - 1), axis=0), xp.int64)
        edge, found = look_up(spellings.keys, keys)  # none leads on from state −1
        onward = xp.where(found, xp.take(spellings.states, edge, axis=0), xp.full_like(state, -1))
        state = xp.where(here < ends, onward, state)
    token = xp.take(spellings.tokens, xp.clip(state, 0, None), axis=0)
    return xp.where(state < 0, xp.full_like(token, -1), token)


def spellings_of(sequences: Mapping[int, tuple[int, ...]]) -> Spellings | None:
    """The tree of these sequences of ids, token -> sequence, in NumPy's arrays; None where there are none."""
    if not sequences:
        return None
    edges: dict[int, int] = {}
    ends: dict[int, int] = {}
    for token, ids in sequences.items():
        state = 0
        for id in ids:
            state = edges.setdefault(state << 32 | id, len(edges) + 1)
        ends[state] = token
    keys = np.sort(np.fromiter(edges, np.int64, len(edges)))
    return Spellings(
        keys,
        np.array([edges[key] for key in keys.tolist()], np.int32),
        np.array([ends.get(state, -1) for state in range(len(edges) + 1)], np.int32),
        max(map(len, sequences.values())),
    )


def unmade_tokens(ids: Mapping[bytes, int], byte_ids: np.ndarray, merges: MergeTable) -> dict[bytes, tuple[int, ...]]:
    """What merging leaves of each of these tokens that it does not make.

    ids: token -> id    byte_ids: (256,) int32    merges: in NumPy's arrays
    """
    if not ids:
        return {}
    tokens = list(ids)
    data, starts = joined(tokens)
    symbols, begins = merge_words(byte_ids.take(data), starts, merges)
    counts = np.diff(begins, append=symbols.size)
    made = symbols[begins] == np.fromiter(ids.values(), np.int32, len(ids))  # its first symbol is all of it
    return {tokens[i]: tuple(symbols[begins[i] : begins[i] + counts[i]].tolist()) for i in np.flatnonzero(~made).tolist()}


def word_vocabulary(
    ids: Mapping[bytes, int], byte_ids: np.ndarray, merges: MergeTable, unmade: Mapping[bytes, tuple[int, ...]]
) -> WordVocabulary:
    """The vocabulary in NumPy's arrays.

    ids: token -> id of the tokens that a word of the same bytes becomes    byte_ids: (256,) int32    merges: in NumPy's arrays
    unmade: what merging leaves of those that it does not make
    """
    spellings = spellings_of({ids[token]: sequence for token, sequence in unmade.items()})
    return WordVocabulary(byte_ids, merges, spellings, np.fromiter(ids.values(), np.int32, len(ids)), *joined(list(ids)))


def joined(tokens: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all tokens, one after another, (B,) uint8, and where each begins, (T,) int32."""
    lengths = np.fromiter(map(len, tokens), np.int32, len(tokens))
    return np.frombuffer(b"".join(tokens), np.uint8), np.cumsum(lengths, dtype=np.int32) - lengths


def moved(value: Any, xp: Any) -> Any:
    """A WordVocabulary, or another bundle of NumPy's arrays, as one of xp's backend."""
    if isinstance(value, np.ndarray):
        return xp.from_numpy(value)
    if isinstance(value, WordVocabulary):
        return WordVocabulary(*(moved(getattr(value, field.name), xp) for field in fields(value)))
    return type(value)(*(moved(part, xp) for part in value)) if isinstance(value, tuple) else value
