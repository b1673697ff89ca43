"""Tokens added beside a model's vocabulary, found in the text before any word (added_vocabulary.rs of tokenizers 0.23)."""

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from refllm.tokenizer.words.unicode_categories import members

# The 25 characters that are whitespace to Unicode; Python's str.isspace takes four controls more.
WHITESPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))


class AddedToken(NamedTuple):
    """A token found in the text as it stands, before any word. A special one, such as <|endoftext|>, only where it is allowed.

    lstrip, rstrip: whether it takes the whitespace before it, and behind it, along
    single_word: whether it is found only where no letter, mark, digit or underscore touches it
    normalized: whether it is looked for in the normalized text, itself normalized, once the others are out of it
    """

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


class Stretch(NamedTuple):
    """A part of a text: from one character to before another, and the added token that it is, if it is one."""

    start: int
    end: int
    token: AddedToken | None


class Finder:
    """Finds added tokens in a text, the longest where several begin at one character.

    spelled: (how the text spells a token, the token); of two that are spelled alike the first counts
    """

    def __init__(self, spelled: Iterable[tuple[str, AddedToken]]):
        self.tokens: dict[str, AddedToken] = {}
        for content, token in spelled:
            self.tokens.setdefault(content, token)
        longest_first = sorted(self.tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def cut(self, text: str) -> Iterator[Stretch]:
        """The text as added tokens and the stretches between them.

        A token that begins with whitespace which the one before has taken along counts it too, as in tokenizers.
        """
        behind = 0
        for match in self.pattern.finditer(text) if self.pattern else ():
            token = self.tokens[match.group()]
            start, end = match.span()
            if token.single_word and (is_word(text[start - 1 : start]) or is_word(text[end : end + 1])):
                continue
            if token.lstrip:
                while start > behind and text[start - 1] in WHITESPACE:
                    start -= 1
                start = max(start, behind)  # the one before may have taken along what this begins with
            if token.rstrip:
                while end < len(text) and text[end] in WHITESPACE:
                    end += 1
            if start >= end:
                continue
            if behind < start:
                yield Stretch(behind, start, None)
            yield Stretch(start, end, token)
            behind = end
        if behind < len(text):
            yield Stretch(behind, len(text), None)


def is_word(character: str) -> bool:
    r"""Whether a character is one of a word, \w in Unicode's technical standard 18; there may be none."""
    return bool(character) and bool(word_characters()[ord(character)])


@functools.cache
def word_characters() -> np.ndarray:
    r"""The characters of \w: letters and what counts as alphabetic, marks, digits, connectors, joiners: (0x110000,) bool."""
    found = members("L") | members("M") | members("Nd") | members("Nl") | members("Pc")
    found[[0x200C, 0x200D]] = True
    for first, last in ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)):
        found[first : last + 1] = True  # circled and squared letters: symbols, but alphabetic
    return found
