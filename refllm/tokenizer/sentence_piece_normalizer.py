"""SentencePiece's normaliser: what a text becomes before it is cut (normalizer.cc of sentencepiece 0.2)."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.normalizers import Change

ESCAPED_SPACE = "\u2581"


class SentencePieceNormalizer(NamedTuple):
    """Replaces characters, takes away spaces and puts one before the text, or behind it. U+2581 stays, and stands for a space.

    characters: what becomes of each    single_spaces: whether of several spaces one is left, and none at the start and the end
    before, behind: what is put around the text: " " or ""
    """

    characters: CharacterMap
    single_spaces: bool
    before: str
    behind: str

    def apply(self, text: str) -> str:
        """The text changed."""
        if not text:
            return ""
        changed = self.characters(text)
        if not self.single_spaces:
            return self.before + changed + self.behind
        inner = changed.strip(" ")
        if not inner or inner[-1] == ESCAPED_SPACE or self.characters.keeps_spaces(text):
            return "".join(part for part, _, _ in self.changes(text))
        return self.before + re.sub("  +", " ", inner) + self.behind

    def changes(self, text: str) -> Iterator[Change]:
        """The changed text in parts, each with the characters that it comes from."""
        steps = list(self.characters.steps(text))
        if self.single_spaces:
            n_spaces = next((i for i, step in enumerate(steps) if step[0] != " "), len(steps))
            steps = steps[n_spaces:]
        if not steps:
            return
        place = steps[0][1]
        parts = [(self.before, place, place), *(_without_extra_spaces(steps) if self.single_spaces else steps)]
        while self.single_spaces and parts:
            part, start, end = parts.pop()
            if left := part.rstrip(" " + ESCAPED_SPACE):
                parts.append((left, start, end))
                break
        if parts:
            place = parts[-1][2]
        yield from (part for part in [*parts, (self.behind, place, place)] if part[0])


def _without_extra_spaces(steps: list[Change]) -> Iterator[Change]:
    """The parts without the spaces at their starts where the part before ends with one, or where there is none before."""
    after_space = True
    for part, start, end in steps:
        if left := part.lstrip(" ") if after_space else part:
            yield left, start, end
            after_space = left.endswith(" ")
