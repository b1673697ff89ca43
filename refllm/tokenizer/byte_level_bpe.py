"""The byte-level BPE model (Radford et al. 2019): words by a pattern, GPT-2's or another, each merged on its own."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refllm.tokenizer.byte_pair import Merge, merge_word
from refllm.tokenizer.model import Span
from refllm.tokenizer.offsets import spans_of_bytes
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.remembered import RememberedWords
from refllm.tokenizer.words.patterns import GPT2, compiled
from refllm.tokenizer.words.pretokenize import chunked, words


class ByteLevelBPE:
    """A vocabulary of byte strings and the merges that build it.

    vocabulary: id -> bytes, all 256 single bytes among them    merges: (left id, right id) -> Merge(rank, id), or by ranks
    pattern: what cuts text into words, in the regular expressions of tiktoken and tokenizers
    whole_words: a word that is a token is that token, whatever the merges say (Hugging Face's ignore_merges)
    """

    prefix = ""

    def __init__(
        self,
        vocabulary: Mapping[int, bytes],
        merges: dict[tuple[int, int], Merge] | RankMerges,
        pattern: str = GPT2,
        whole_words: bool = False,
    ):
        ids = {token: id for id, token in vocabulary.items()}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise ValueError(f"the vocabulary lacks {len(missing)} of the 256 bytes, such as 0x{missing[0]:02x}; it needs all.")
        self.vocabulary = dict(vocabulary)
        self.merges = merges
        self.pattern = pattern
        self.whole_words = whole_words
        compiled(pattern)  # raises where it cannot be
        self._whole = ids if whole_words else {}
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._word_ids = RememberedWords(self._encode_word)

    @classmethod
    def from_merges(
        cls, vocabulary: Mapping[int, bytes], pairs: Iterable[tuple[int, int]], pattern: str = GPT2, whole_words: bool = False
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

    def pairs(self) -> list[tuple[int, int]]:
        """The merges as pairs of ids, in order of rank."""
        if isinstance(self.merges, RankMerges):
            return self.merges.pairs()
        return sorted(self.merges, key=self.merges.__getitem__)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that UTF-8 can carry."""
        word_ids = self._word_ids
        return [id for word in words(text, self.pattern) for id in word_ids[word]]

    def encode_array(self, text: str, xp: Any) -> Any:
        """The same ids as an array of xp's backend: (tokens,) int32."""
        pieces = [np.array(self.encode(piece), np.int32) for piece in chunked(text, self.pattern)]
        return xp.from_numpy(np.concatenate(pieces) if pieces else np.zeros(0, np.int32))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The same ids, and the characters of the text that each covers; one that holds part of a character covers all of it."""
        ids = self.encode(text)
        return ids, spans_of_bytes(text, (len(self.vocabulary[id]) for id in ids))

    def _encode_word(self, word: str) -> list[int]:
        data = word.encode()
        if data in self._whole:
            return [self._whole[data]]
        return merge_word([self._byte_ids[byte] for byte in data], self.merges)
