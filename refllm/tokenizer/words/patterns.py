r"""The patterns that cut text into words, as published, and how Python's re runs them.

Python's re knows no \p{L}, and its \s is another. So a pattern runs on the shadow of a text: the same text with each character
beyond ASCII replaced by one of a few that stand for their kind. In the pattern \p{L} becomes the letters of that small alphabet.
What it finds lies where tiktoken and Hugging Face's tokenizers find it, no regex package is needed, and it is quick.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np

from refllm.tokenizer.words.unicode_categories import CATEGORIES, members, unicode_categories

# tiktoken 0.14, openai_public.py; GPT-2's own encoder.py says the same in more words
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
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
# Qwen 2's, which has one number a word
QWEN2 = LLAMA3.replace("{1,3}", "")

# Beyond ASCII the shadow has a character for each category, and one for each character that is more than its category.
SINGLE = {"\x85": "whitespace among controls", "\u017f": "a small s, case aside", "\u212a": "a K, case aside"}
FOLDED = {"s": "\u017f", "k": "\u212a"}
_FIRST = 0x80

_PARTS = re.compile(
    r"""\\p\{(?P<category>\w\w?)\} | \\p(?P<major>\w) | (?P<space>\\[sS]) | (?P<escape>\\[rntvf\W]) | (?P<fold>\(\?i:)
    | (?P<unknown>\\. | \(\?[a-zA-Z]) | (?P<open>\() | (?P<close>\)) | (?P<begin>\[\^?) | (?P<end>\]) | (?P<dollar>\$)
    | (?P<letter>[A-Za-z]) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


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
def compiled(pattern: str) -> re.Pattern:
    r"""The pattern as it runs on shadows.

    Raises ValueError for what it may not hold: capturing groups, characters beyond ASCII, escapes such as \P, \d, \w, \b or \u.
    """
    if not pattern.isascii():
        raise ValueError(f"the pattern {pattern!r} has characters beyond ASCII, which are not read here.")
    try:
        run = re.compile("".join(_translated(pattern)))
    except (re.error, IndexError) as error:
        raise ValueError(f"the pattern {pattern!r} is not one that Python's re can run: {error}.") from None
    if run.groups:
        raise ValueError(f"the pattern {pattern!r} has capturing groups; write (?: … ) instead of ( … ).")
    return run


def _translated(pattern: str) -> Iterator[str]:
    folds = [False]  # for this place and each group around it: whether case does not matter
    inside = False  # a character class
    for match in _PARTS.finditer(pattern):
        kind, part = match.lastgroup, match.group()
        if kind == "unknown" or (inside and part == r"\S"):
            raise ValueError(f"the pattern {pattern!r} has {part}, which is not read here.")
        if kind in ("category", "major"):
            yield _class(_ranges(match[kind]), inside)
        elif kind == "space":
            yield _class("^" * (part == r"\S") + _ranges("s"), inside)
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


def _class(members: str, inside: bool) -> str:
    """A character class of these members, or a part of the class that is open."""
    return members if inside else f"[{members}]"


def _ranges(name: str) -> str:
    """The members of a category in the shadow, as ranges of a character class."""
    member = members(name)[_examples()]
    edges = np.flatnonzero(np.diff(member, prepend=False, append=False)).reshape(-1, 2)
    return "".join(f"\\x{first:02x}-\\x{last - 1:02x}" for first, last in edges.tolist())
