"""Words found by arrays: at every character at once, whether a word starts there, for the patterns that have such a form."""

from collections.abc import Callable
from functools import partial

from refllm.array_api import namespace
from refllm.tokenizer.words.cl100k import cl100k_word_starts, llama3_word_starts
from refllm.tokenizer.words.gpt2 import gpt2_word_starts
from refllm.tokenizer.words.kinds import kind_table
from refllm.tokenizer.words.o200k import o200k_word_starts
from refllm.tokenizer.words.patterns import CL100K, GPT2, GPT2_ENCODER, LLAMA3, O200K, QWEN2

FORMS: dict[str, Callable] = {
    GPT2: gpt2_word_starts,
    GPT2_ENCODER: gpt2_word_starts,
    CL100K: partial(cl100k_word_starts, digits=3),
    LLAMA3: partial(llama3_word_starts, digits=3),
    QWEN2: partial(llama3_word_starts, digits=1),
    O200K: partial(o200k_word_starts, digits=3),
}


def has_array_form(pattern: str | tuple[str, ...]) -> bool:
    """Whether word_starts knows a pattern, or a sequence of patterns."""
    return pattern in FORMS


def word_starts(points, pattern: str | tuple[str, ...]):
    """Whether a word starts at each character of a text: (N,) bool, an array of the points' backend.

    points: (N,) int32 code points, no surrogate among them    pattern: one that has an array form
    Raises ValueError for another.
    """
    if pattern not in FORMS:
        raise ValueError(f"the pattern {pattern!r} has no array form; find its words by words(text, pattern).")
    return FORMS[pattern](points, kind_table(namespace(points)))
