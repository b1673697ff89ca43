"""Two steps of normalizers in a tokenizer.json of Unigram kind: Precompiled and StripAccents (tokenizers 0.23)."""

from collections.abc import Iterator
from typing import NamedTuple

from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.grapheme_clusters import clusters
from refllm.tokenizer.normalizers import Change
from refllm.tokenizer.words.unicode_categories import members

SHORT = 6  # bytes: of shorter clusters the first rule that fits their beginning replaces the whole


class Precompiled(NamedTuple):
    """SentencePiece's map of characters in Hugging Face's reading, by grapheme clusters (normalizers/precompiled.rs)."""

    characters: CharacterMap

    def apply(self, text: str) -> str:
        """The text changed."""
        return "".join(part for part, _, _ in self.changes(text)) if self.characters.may_change(text) else text

    def changes(self, text: str) -> Iterator[Change]:
        """The changed text in parts, each with the characters that it comes from."""
        rules, start = self.characters.rules, 0
        for cluster in clusters(text):
            end = start + len(cluster)
            beginnings = (cluster[:size] for size in range(1, len(cluster) + 1)) if len(cluster.encode()) < SHORT else ()
            key = next((beginning for beginning in beginnings if beginning in rules), None)
            if key is not None:
                changes = [(rules[key], start, end)]
            else:
                changes = [(rules.get(text[i], text[i]), i, i + 1) for i in range(start, end)]
            yield from (change for change in changes if change[0])
            start = end


class StripAccents(NamedTuple):
    """Takes away combining marks."""

    def apply(self, text: str) -> str:
        """The text changed."""
        return text if text.isascii() else "".join(part for part, _, _ in self.changes(text))

    def changes(self, text: str) -> Iterator[Change]:
        """What is left of the text, each character with where it stood."""
        marks = members("M")
        return ((character, i, i + 1) for i, character in enumerate(text) if not marks[ord(character)])
