"""Training a byte-level BPE: the words of texts counted, merges learned from them, and a tokenizer made of the merges.

A vocabulary is the 256 bytes, then the merges, then the special tokens. How bytes are numbered, and which of several equally
frequent pairs is merged first, differs between trainers; TIES names the three rules in use.
Documents are counted one by one and files piece by piece, so that what is held in memory grows with the distinct words only.
"""

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from refllm.tokenizer.byte_level import BYTE_ORDER
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.learn_merges import Learned, Pair, Progress, learn_merges
from refllm.tokenizer.text import repaired
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K, QWEN2
from refllm.tokenizer.words.pretokenize import CUTS, Pattern, chunked, words

Texts = str | Path | Iterable[str | Path]  # a document, a file, or any number of them
Counting = Callable[[int], None]  # bytes of text counted so far

UNSPLIT = r"(?!)"  # finds nothing: a document is one word
PATTERNS: dict[Pattern, str] = {
    "gpt2": GPT2,
    "cl100k": CL100K,
    "o200k": O200K,
    "llama3": LLAMA3,
    "qwen2": QWEN2,
    "none": UNSPLIT,
}
BLOCK = 1 << 20  # bytes read at once


class Rule(NamedTuple):
    """How a trainer numbers the bytes, and what it does where pairs are equally frequent."""

    byte_order: Sequence[int]  # the bytes in the order of their ids
    ties: Literal["smallest", "first"]


TIES = {
    "smallest": Rule(BYTE_ORDER, "smallest"),  # Hugging Face's BpeTrainer: the bytes in the order of GPT-2's characters
    "smallest_by_value": Rule(range(256), "smallest"),  # rustbpe
    "first": Rule(range(256), "first"),  # minbpe, and tiktoken's educational trainer
}


def train_bpe(
    text: Texts,
    vocab_size: int,
    special_tokens: Sequence[str] = ("<|endoftext|>",),
    progress: Progress | None = None,
    *,
    pattern: Pattern = GPT2,
    ties: str = "smallest",
    counting: Counting | None = None,
) -> Tokenizer:
    """A tokenizer of at most vocab_size tokens, learned from text: 256 bytes, then the merges, then the special tokens.

    text: a document, the Path of a UTF-8 file, or an iterable of either
    pattern: what cuts text into words, or a name in PATTERNS; of several patterns each cuts what the one before leaves
    special_tokens: no part of what is learned; where the text spells one, that is ordinary text
    ties: a name in TIES    counting: called with the bytes counted so far    progress: called as (merges done, merges to do)
    The vocabulary stays smaller where the text has no pair left to merge.
    Raises TypeError for text that is not str, ValueError for a vocab_size with no room for the bytes and the special tokens, for
    special tokens that are empty, given twice or learned from the text too, for a pattern or ties not known, and for a file that
    is not UTF-8.
    """
    n_merges = room(vocab_size, special_tokens)
    learned = learn(count_words(text, pattern, counting), n_merges, ties, progress)
    return tokenizer_of(learned.merges, special_tokens, pattern, ties)


def room(vocab_size: int, special_tokens: Sequence[str]) -> int:
    """How many merges a vocabulary has room for. Raises ValueError for one with no room for the bytes and the special tokens."""
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
    return vocab_size - smallest


def learn(counts: Counter[str], n_merges: int, ties: str = "smallest", progress: Progress | None = None) -> Learned:
    """At most n_merges merges, by the rule of that name."""
    rule = rule_of(ties)
    byte_ids = [0] * 256
    for id, byte in enumerate(rule.byte_order):
        byte_ids[byte] = id
    return learn_merges(counts, n_merges, byte_ids, rule.ties, progress)


def tokenizer_of(merges: Iterable[Pair], special_tokens: Sequence[str], pattern: Pattern, ties: str) -> Tokenizer:
    """The tokenizer of merges that were learned with this pattern and rule."""
    vocabulary = [bytes([byte]) for byte in rule_of(ties).byte_order]
    merges = list(merges)
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    tokens = set(vocabulary)
    for content in special_tokens:
        if content.encode() in tokens:
            raise ValueError(f"special token {content!r} is also learned from the text; choose one that is no part of a word.")
    added = [AddedToken(len(vocabulary) + i, content, special=True) for i, content in enumerate(special_tokens)]
    model = ByteLevelBPE.from_merges(dict(enumerate(vocabulary)), merges, PATTERNS.get(pattern, pattern))
    return Tokenizer(model, added)


def rule_of(ties: str) -> Rule:
    """The rule of a name. Raises ValueError for one that is not in TIES."""
    if ties not in TIES:
        raise ValueError(f"ties={ties!r} is not known; choose one of {', '.join(TIES)}.")
    return TIES[ties]


def count_words(text: Texts, pattern: Pattern = GPT2, counting: Counting | None = None) -> Counter[str]:
    """How often each word occurs, in the order in which they first do."""
    pattern = PATTERNS.get(pattern, pattern)
    counts: Counter[str] = Counter()
    n_bytes = 0
    for document in documents(text):
        for piece in file_pieces(document, pattern) if isinstance(document, Path) else chunked(repaired(document), pattern):
            counts.update(words(piece, pattern))
            if counting is not None:
                n_bytes += len(piece.encode())
                counting(n_bytes)
    return counts


def documents(text: Texts) -> Iterator[str | Path]:
    """The documents and files, one by one. Raises TypeError for what is neither."""
    if isinstance(text, bytes):
        raise TypeError("text is bytes; train_bpe needs str or an iterable of str. Decode bytes first.")
    for document in (text,) if isinstance(text, str | Path) else text:
        if not isinstance(document, str | Path):
            raise TypeError(f"text holds {type(document).__name__}; train_bpe needs str or an iterable of str.")
        yield document


def file_pieces(path: Path, pattern: Pattern) -> Iterator[str]:
    """The text of a UTF-8 file in pieces, cut where that changes no word, its ends of lines as they are.

    A file whose pattern has no known cut is one piece. Raises ValueError where it is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    held, n_read = "", 0
    with path.open("rb") as file:
        while data := file.read(max(BLOCK, len(held)) if pattern in CUTS else -1):  # as much again where no cut was found yet
            held += decoded(decoder, data, n_read, path)
            n_read += len(data)
            pieces = list(chunked(held, pattern))
            held = pieces.pop() if pieces else ""  # its last word may go on
            yield from pieces
        if held := held + decoded(decoder, b"", n_read, path):
            yield held


def decoded(decoder: codecs.IncrementalDecoder, data: bytes, n_read: int, path: Path) -> str:
    """The characters that these bytes complete; no bytes are the end. n_read: bytes before these"""
    n_read -= len(decoder.getstate()[0])
    try:
        return decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {n_read + error.start}); convert it, or leave it out.") from None
