r"""The patterns that cut text into words, as published, and what runs them.

Python's re knows no \p{L}, and its \s is another. So a pattern runs on the shadow of a text: the same text with each character
beyond ASCII replaced by one of a few that stand for their kind. In the pattern \p{L} becomes the letters of that small alphabet.
What it finds lies where tiktoken and Hugging Face's tokenizers find it, no regex package is needed, and it is quick.

A pattern that names characters beyond ASCII, but no kinds, needs no shadow: re runs it on the text itself.
One that needs both, or asks for more than kinds (scripts, \b, \w, flags …), is run by the package regex.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from refllm.tokenizer.words.unicode_categories import CATEGORIES, members, unicode_categories

# tiktoken 0.14, openai_public.py
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
# GPT-2's own encoder.py, where it finds the same
GPT2_ENCODER = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_MINBPE = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # and in minbpe
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
# Llama 3's tokenizer.json
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Qwen 2's: one number a word
QWEN2 = LLAMA3.replace("{1,3}", "")
# cl100k's in minbpe, which finds what Llama 3's does, and nanochat's: two numbers a word
MINBPE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
NANOCHAT = MINBPE.replace("{1,3}", "{1,2}")

# Beyond ASCII the shadow has a character for each category, and one for each character that is more than its category.
SINGLE = {"\x85": "whitespace among controls", "\u017f": "a small s, case aside", "\u212a": "a K, case aside"}
FOLDED = {"s": "\u017f", "k": "\u212a"}
_FIRST = 0x80

_PARTS = re.compile(
    r"""(?P<category>\\[pP](?:\{\^?[A-Z][a-z]?\}|[A-Z])) | (?P<digit>\\[dD]) | (?P<space>\\[sS]) | (?P<escape>\\[rntvf\W])
    | (?P<fold>\(\?i:) | (?P<flags>\(\?[a-zA-Z]) | (?P<unknown>\\[pP]\{[^}]*\}? | \\. | \[\^?\] | &&)
    | (?P<open>\() | (?P<close>\)) | (?P<begin>\[\^?) | (?P<end>\]) | (?P<dollar>\$) | (?P<letter>[A-Za-z]) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


class Unreadable(ValueError):
    """A pattern has a part that neither re nor the shadow can express."""

    def __init__(self, pattern: str, part: str):
        super().__init__(f"the pattern {pattern!r} has {part}, which is not read here.")
        self.part = part


class Runner(NamedTuple):
    """A pattern as it runs."""

    pattern: Any  # compiled by re, or by the package regex
    sees: Callable[[str], str]  # what it runs on, the text or its shadow


def shadow(text: str) -> str:
    """The text with each character beyond ASCII replaced by what stands for its kind: as long as the text, all below U+0100."""
    if text.isascii():
        return text
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return _shadows().take(points).tobytes().decode("latin-1")


@functools.cache
def _shadows() -> np.ndarray:
    """What stands for each code point: (0x110000,) uint8."""
    shadows = unicode_categories() + np.uint8(_FIRST)
    shadows[:_FIRST] = np.arange(_FIRST)
    for i, character in enumerate(SINGLE):
        shadows[ord(character)] = _FIRST + len(CATEGORIES) + i
    return shadows


@functools.cache
def _examples() -> np.ndarray:
    """A code point that each character of the shadow stands for: (characters,) int64."""
    return np.unique(_shadows(), return_index=True)[1]


@functools.lru_cache(maxsize=64)
def runner(pattern: str) -> Runner:
    """What runs a pattern: re on the shadow or on the text, else the package regex.

    Raises ValueError for a pattern that cannot be run, ImportError where it takes the package regex, which is absent.
    """
    try:
        return Runner(_compiled(pattern), shadow if pattern.isascii() else str)
    except Unreadable as error:
        return Runner(_by_regex(pattern, error.part), str)


def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile("".join(_translated(pattern)))
    except (re.error, IndexError) as error:
        if "look-behind" in str(error):
            raise Unreadable(pattern, "a look-behind of no fixed width") from None
        raise ValueError(f"the pattern {pattern!r} is not one that Python's re can run: {error}.") from None


def _by_regex(pattern: str, part: str) -> Any:
    try:
        import regex
    except ImportError:
        raise ImportError(
            f"the pattern {pattern!r} has {part}, which only the package regex runs; pip install 'refllm[regex]'."
        ) from None
    try:
        return regex.compile(pattern, regex.V1 if part in ("[", "[^", "&&") else regex.V0)  # V1 has sets within sets
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is not one that the package regex can run: {error}.") from None


def _translated(pattern: str) -> Iterator[str]:
    folds = [False]  # for this place and each group around it: whether case does not matter
    inside = False  # a character class
    for match in _PARTS.finditer(pattern):
        kind, part = match.lastgroup, match.group()
        if not _is_readable(str(kind), part, inside, folds[-1]):
            raise Unreadable(pattern, part)
        asks_for_kinds = kind in ("category", "digit", "space") or (kind == "fold" and not inside)
        if asks_for_kinds and not pattern.isascii():
            raise Unreadable(pattern, f"{part} beside characters beyond ASCII")
        if kind in ("category", "digit", "space"):
            yield _class(_ranges(part), inside)
        elif kind == "letter" and folds[-1]:
            yield _class(part.lower() + part.upper() + shadow(FOLDED.get(part.lower(), "")), inside)
        elif inside:
            inside = kind != "end"
            yield part
        elif kind == "dollar":
            yield r"\Z"  # re's own $ also matches before a newline at the end
        elif kind == "fold":
            folds.append(True)
            yield "(?:"
        else:
            if kind == "open":
                folds.append(folds[-1])
            elif kind == "close":
                folds.pop()
            inside = kind == "begin"
            yield part


def _is_readable(kind: str, part: str, inside: bool, folds: bool) -> bool:
    """Whether a part of a pattern means here what it means elsewhere. folds: whether case does not matter there"""
    if kind == "category":
        name = _name(part)
        known = any(name in (category, category[0]) for category in CATEGORIES)
        return known and not (folds and name in ("Lu", "Ll", "Lt"))
    if inside:
        return kind not in ("unknown", "begin") and not (folds and part == "-")
    return kind not in ("flags", "unknown") or part == "&&"


def _class(members: str, inside: bool) -> str:
    """A character class of these members, or a part of the class that is open."""
    return members if inside else f"[{members}]"


def _name(part: str) -> str:
    r"""The category that a part names: "Lu" for \p{Lu} and \P{^Lu}, "s" for \s and \S."""
    return {"d": "Nd", "s": "s"}.get(part[1].lower()) or part[2:].strip("{^}")


@functools.cache
def _ranges(part: str) -> str:
    r"""The characters of the shadow that a part such as \p{L}, \P{L}, \d or \S stands for, as ranges of a character class."""
    negative = part[1].isupper() != ("^" in part)
    member = members(_name(part))[_examples()] != negative
    edges = np.flatnonzero(np.diff(member, prepend=False, append=False)).reshape(-1, 2)
    return "".join(f"\\x{first:02x}-\\x{last - 1:02x}" for first, last in edges.tolist())
