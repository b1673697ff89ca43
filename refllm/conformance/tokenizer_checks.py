"""Tokenizers: where words start and which ids they get, equal to the last one on every backend."""

import functools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score
from refllm.tokenizer.train import train_bpe
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words import patterns
from refllm.tokenizer.words.pretokenize import code_points
from refllm.tokenizer.words.starts import word_starts

from .check import Check

# What tokenizers stumble over, in every kind of character that patterns tell apart.
ATOMS = (
    *("a", "the", " the", "THE", "Hello", "ing", "é", "ß", "ǅ", "ʰ", "ª", "中文", "かな", "한글", "д", "א", "ि"),
    *("'s", "'S", "'ll", "'ſ", "'", "''", "a's's", "1", "23", "7890", "½", "٣", ".", "...", "/", "//", "(", "-", "€", "\u0301"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u3000", "\u200d", "\ufeff"),
    *("😀", "👩\u200d👧", "🇩🇪", "\x00", "\u0378", "\U0010ffff", "[UNK]", "\u2581"),
)
TEXT = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=25).map("".join)
LINES = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=25).map("\n".join)  # in which most atoms are whole words
LEARNED = "the cat and the other cat sat on the mat, while the thing that they had seen was there: 1 23 456 7890. " * 3
PATTERNS = {"gpt2": patterns.GPT2, "cl100k": patterns.CL100K, "llama3": patterns.LLAMA3, "o200k": patterns.O200K}


@functools.cache
def byte_level(pattern: str, whole_words: bool) -> ByteLevelBPE:
    """A vocabulary learned from a few words; with whole_words, a few tokens that its merges do not make."""
    model: Any = train_bpe(LEARNED, 330, special_tokens=(), pattern=pattern).model
    vocabulary = dict(model.vocabulary) | ({400: b"Hello", 401: b"...", 402: "中文".encode()} if whole_words else {})
    return ByteLevelBPE(vocabulary, model.merges, pattern, whole_words)


@functools.cache
def sentence_piece() -> SentencePieceBPE:
    """Pieces of a few words, with bytes to fall back on."""
    texts = ["t", "h", "e", " ", "a", "th", "the", " the", " t", "he", "in", "ing", "n", "g", "i", "  ", "l", "ll"]
    pieces = dict(enumerate(texts, 256))
    return SentencePieceBPE(pieces, merges_by_score(pieces, {id: -float(id % 7) for id in pieces}), byte_ids=range(256))


@functools.cache
def word_piece() -> WordPiece:
    """Pieces of a few words."""
    pieces = [
        "[UNK]",
        "the",
        "hello",
        "a",
        "##s",
        "##ing",
        "s",
        "l",
        "##l",
        "中",
        "文",
        "1",
        "##2",
        "##3",
        ".",
        "e",
        "'",
        "(",
        "-",
    ]
    return WordPiece(dict(enumerate(pieces)), unknown=0)


def _starts(pattern: str):
    def compute(backend: Backend, drawn: tuple[np.ndarray]) -> dict[str, Any]:
        return {"starts": word_starts(drawn[0], pattern)}

    points = TEXT.map(lambda text: (code_points(text).astype(np.int32),))
    return Check(f"words: {next(n for n, p in PATTERNS.items() if p == pattern)}", "tokenizer", points, compute, halves=False)


def _ids(name: str, model, text=TEXT):
    def compute(backend: Backend, drawn: tuple[str]) -> dict[str, Any]:
        return {"ids": model().encode_array(drawn[0], backend.xp)}

    return Check(f"ids: {name}", "tokenizer", st.tuples(text), compute, halves=False)


CHECKS = [
    *map(_starts, PATTERNS.values()),
    *(_ids(f"byte-level BPE, {name}", functools.partial(byte_level, pattern, False)) for name, pattern in PATTERNS.items()),
    _ids("byte-level BPE, whole words", functools.partial(byte_level, patterns.CL100K, True), TEXT | LINES),
    _ids("SentencePiece BPE", sentence_piece),
    _ids("WordPiece", word_piece),
]
