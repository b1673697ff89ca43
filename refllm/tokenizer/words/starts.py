"""Words found by arrays: at every character at once, whether a word starts there, for the patterns that have such a form."""

from collections.abc import Callable
from functools import partial

from refllm.array_api import namespace
from refllm.tokenizer.words.cl100k import cl100k_word_starts, llama3_word_starts
from refllm.tokenizer.words.gpt2 import gpt2_word_starts
from refllm.tokenizer.words.kinds import kind_table
from refllm.tokenizer.words.o200k import o200k_word_starts
from refllm.tokenizer.words.patterns import CL100K, GPT2, GPT2_ENCODER, GPT2_MINBPE, LLAMA3, MINBPE, NANOCHAT, O200K, QWEN2

FORMS: dict[str, Callable] = {
    **dict.fromkeys((GPT2, GPT2_ENCODER, GPT2_MINBPE), gpt2_word_starts),
    CL100K: partial(cl100k_word_starts, digits=3),
    **dict.fromkeys((LLAMA3, MINBPE), partial(llama3_word_starts, digits=3)),
    NANOCHAT: partial(llama3_word_starts, digits=2),
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
