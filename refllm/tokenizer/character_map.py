"""SentencePiece's `precompiled_charsmap`: what becomes of characters before a text is cut (normalizer.cc of sentencepiece 0.2).

    uint32 size of the trie in bytes · the trie · the replacements in UTF-8, a zero byte behind each

The trie is a double array (Aoe 1989; darts-clone): the children of the unit at p lie at p ^ offset ^ byte, each with its byte as
label. A unit with a leaf has it as the child of byte 0: the place of the replacement. The keys are UTF-8; of those that a text
continues with, the longest is replaced.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from refllm.tokenizer.normalizers import Change

MOST_RULES = 1 << 20
LONGEST_KEY = 64  # bytes
LEAF = 1 << 31
NOTHING = "(?!)"  # a pattern that is found nowhere

DAMAGED = "its character map is damaged"


def read_rules(data: bytes) -> dict[str, str]:
    """key -> replacement of a precompiled_charsmap. Raises ValueError where it is damaged."""
    if len(data) < 4:
        raise ValueError(f"{DAMAGED}: it has {len(data)} bytes and needs 4 at least.")
    (size,) = struct.unpack_from("<I", data)
    if size % 4 or size + 4 > len(data):
        raise ValueError(f"{DAMAGED}: its trie should have {size} bytes, and {len(data) - 4} are there.")
    replacements = data[4 + size :]
    rules: dict[str, str] = {}
    for key, place in _keys(struct.unpack_from(f"<{size // 4}I", data, 4)):
        end = replacements.find(b"\0", place)
        if not 0 <= place <= end:
            raise ValueError(f"{DAMAGED}: the replacement of {key!r} is not there.")
        try:
            rules[key.decode("utf-8")] = replacements[place:end].decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{DAMAGED}: the rule for {key!r} is not UTF-8.") from None
    return rules


def _keys(units: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """The keys of a double array with their values. Raises ValueError where it is damaged."""
    children: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, unit in enumerate(units):
        if place and not unit & LEAF:
            children[place ^ (unit & 0xFF)].append((unit & 0xFF, place))
    waiting = [(b"", 0)] if units else []
    for _ in range(MOST_RULES):
        if not waiting:
            return
        key, place = waiting.pop()
        unit = units[place]
        base = place ^ (unit >> 10) << ((unit & 1 << 9) >> 6)
        if unit & 1 << 8:
            if base >= len(units):
                break
            yield key, units[base] & LEAF - 1
        if len(key) == LONGEST_KEY:
            break
        waiting += [(key + bytes([label]), child) for label, child in children[base] if label]
    raise ValueError(f"{DAMAGED}: its trie has a key that does not end, or too many.")


class CharacterMap:
    """Replaces the longest keys, from left to right.

    rules: key -> replacement    kept: what is left as it is, wherever a text goes on with it, and before any rule
    data: the precompiled_charsmap that says the same
    """

    def __init__(self, rules: Mapping[str, str], kept: Iterable[str] = (), data: bytes = b""):
        if "" in rules:
            raise ValueError(f"{DAMAGED}: it has an empty key.")
        self.rules = dict(rules)
        self.kept = tuple(sorted(kept, key=len, reverse=True))
        self.data = data
        self._longest = max(map(len, self.rules), default=1)
        self._kept = re.compile("|".join(map(re.escape, self.kept)) or NOTHING)
        touched = {key for key in rules if len(key) == 1}.union(*(key[1:] for key in rules))
        self._part = re.compile(f"(?s:.?){one_of(touched)}+" if touched else NOTHING)  # where a key may lie
        self._spaces = any("  " in text for text in (*self.rules.values(), *self.kept))
        self._part_replaced = lru_cache(maxsize=1 << 16)(self._replaced)

    @classmethod
    def read(cls, data: bytes, kept: Iterable[str] = ()) -> "CharacterMap":
        """The map of a precompiled_charsmap, which may be empty. Raises ValueError where it is damaged."""
        return cls(read_rules(data) if data else {}, kept, data)

    def __call__(self, text: str) -> str:
        """The text with all keys replaced."""
        if self.kept and self._kept.search(text):
            return self._replaced(text)
        return self._part.sub(lambda match: self._part_replaced(match.group()), text)

    def steps(self, text: str) -> Iterator[Change]:
        """The text from left to right, each key or single character with what becomes of it."""
        position, rules = 0, self.rules
        while position < len(text):
            if kept := self._kept.match(text, position):
                end = kept.end()
                yield kept.group(), position, end
            else:
                ends = range(min(len(text), position + self._longest), position + 1, -1)
                end = next((end for end in ends if text[position:end] in rules), position + 1)
                yield rules.get(text[position:end], text[position:end]), position, end
            position = end

    def may_change(self, text: str) -> bool:
        """Whether the text holds a character that a rule can change."""
        return self._part.search(text) is not None

    def keeps_spaces(self, text: str) -> bool:
        """Whether a part of the text may become several spaces that belong together."""
        return self._spaces and "  " in self(text)

    def _replaced(self, text: str) -> str:
        return "".join(part for part, _, _ in self.steps(text))


def one_of(characters: Iterable[str]) -> str:
    """The regular expression for any of these characters."""
    points = sorted(map(ord, characters))
    starts = [point for i, point in enumerate(points) if i == 0 or points[i - 1] != point - 1]
    ends = [point for i, point in enumerate(points) if i == len(points) - 1 or points[i + 1] != point + 1]
    return "[" + "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True)) + "]"
