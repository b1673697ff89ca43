"""Training a byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1, over the bytes of GPT-2's words).

Again and again the most frequent adjacent pair of ids becomes a new id.
Ties go to the smallest (left id, right id), the bytes numbered in GPT-2's order: the rule of Hugging Face's BpeTrainer,
whose merges this reproduces. A run such as "aaa" holds the pair (a, a) twice but is merged once, from the left.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from refllm.tokenizer.byte_level import BYTE_ORDER
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.text import repaired
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.words.pretokenize import words

Progress = Callable[[int, int], None]  # (merges done, merges to do)


def train_bpe(
    text: str | Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = ("<|endoftext|>",),
    progress: Progress | None = None,
) -> Tokenizer:
    """A tokenizer of at most vocab_size tokens, learned from text: 256 bytes, then the merges, then the special tokens.

    text: the training text, or an iterable of documents    progress: called as (merges done, merges to do)
    The vocabulary stays smaller where the text has no pair left to merge.
    Raises TypeError for text that is not str, ValueError for a vocab_size with no room for the bytes and the special tokens.
    """
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small; 256 bytes and {len(special_tokens)} special tokens need at least {smallest}."
        )
    for i, content in enumerate(special_tokens):
        if not content:
            raise ValueError("a special token is empty; it needs a text of its own.")
        if content in special_tokens[:i]:
            raise ValueError(f"special token {content!r} is given twice.")
    merges = learn_merges(count_words(text), vocab_size - smallest, progress)
    vocabulary = [bytes([byte]) for byte in BYTE_ORDER]
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    for content in special_tokens:
        if content.encode() in vocabulary:
            raise ValueError(f"special token {content!r} is also learned from the text; choose one that is no part of a word.")
    added = [AddedToken(len(vocabulary) + i, content, special=True) for i, content in enumerate(special_tokens)]
    return Tokenizer(ByteLevelBPE.from_merges(dict(enumerate(vocabulary)), merges), added)


def count_words(text: str | Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    if isinstance(text, bytes):
        raise TypeError("text is bytes; train_bpe needs str or an iterable of str. Decode bytes first.")
    counts: Counter[str] = Counter()
    for document in (text,) if isinstance(text, str) else text:
        if not isinstance(document, str):
            raise TypeError(f"text holds {type(document).__name__}; train_bpe needs str or an iterable of str.")
        counts.update(words(repaired(document)))
    return counts


def learn_merges(counts: Counter[str], n_merges: int, progress: Progress | None = None) -> list[tuple[int, int]]:
    """The first n_merges merges of words that occur so often, in order, as pairs of ids; merge i makes id 256 + i."""
    byte_ids = {byte: i for i, byte in enumerate(BYTE_ORDER)}
    sequences = [[byte_ids[byte] for byte in word.encode()] for word in counts]
    weights = list(counts.values())
    pair_counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # the words that hold a pair, or once held it
    for index, (ids, weight) in enumerate(zip(sequences, weights, strict=True)):
        for pair in zip(ids, ids[1:], strict=False):
            pair_counts[pair] += weight
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(queue)
    merges: list[tuple[int, int]] = []
    while queue and len(merges) < n_merges:
        negative, best = heapq.heappop(queue)
        if -negative != pair_counts[best]:
            if pair_counts[best] > 0:
                heapq.heappush(queue, (-pair_counts[best], best))  # it has become rarer since it was queued
            continue
        new = 256 + len(merges)
        merges.append(best)
        grown = set()
        for index in where.pop(best):
            weight = weights[index]
            gone, come = merge_pair(sequences[index], best, new)
            for pair in gone:
                pair_counts[pair] -= weight
            for pair in come:
                pair_counts[pair] += weight
                where[pair].add(index)
            grown.update(come)
        for pair in grown:
            if pair_counts[pair] > 0:
                heapq.heappush(queue, (-pair_counts[pair], pair))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


def merge_pair(ids: list[int], pair: tuple[int, int], new: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Replace every occurrence of pair in ids by new, from the left and in place.

    Returns the neighbouring pairs that are gone and those that came, each as often as it did. One that came may be gone again:
    in aaaa the first (a, a) makes (new, a), and the last unmakes it.
    """
    left, right = pair
    gone, come = [], []
    i = 0
    while left in ids[i:-1]:
        i = ids.index(left, i)
        if ids[i + 1] == right:
            if i > 0:
                gone.append((ids[i - 1], left))
                come.append((ids[i - 1], new))
            if i + 2 < len(ids):
                gone.append((right, ids[i + 2]))
                come.append((new, ids[i + 2]))
            ids[i : i + 2] = [new]
        i += 1
    return gone, come
