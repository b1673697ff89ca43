"""The part normalizer of a tokenizer.json, for byte-level and Unigram models, and the rules by which a pre_tokenizer cuts."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.formats.hugging_face_parts import require
from refllm.tokenizer.normalizers import Form, Lowercase, Normalizer, Prepend, Replace, Step, Strip
from refllm.tokenizer.precompiled import Precompiled, StripAccents
from refllm.tokenizer.words.patterns import runner

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def read_normalizer(part: Mapping[str, Any] | None) -> Normalizer | None:
    """The normalizer that a part describes. Raises ValueError for one that is not known."""
    steps = tuple(map(_read_step, _flat(part))) if part else ()
    return Normalizer(steps) if steps else None


def describe_normalizer(normalizer: Normalizer | None) -> dict[str, Any] | None:
    """The part that describes a normalizer."""
    if normalizer is None:
        return None
    steps = list(map(_describe_step, normalizer.steps))
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps}


def read_search(part: Mapping[str, Any], field: str) -> tuple[str, bool]:
    """What a part looks for, and whether that is a regular expression. Raises ValueError for what cannot be looked for."""
    kinds = part["pattern"]
    require(f"{field}.pattern", sorted(kinds), ["Regex"], ["String"])
    is_regex = "Regex" in kinds
    pattern = kinds["Regex" if is_regex else "String"]
    if not isinstance(pattern, str) or not pattern or (is_regex and runner(pattern).pattern.match("")):
        raise ValueError(f"{field}.pattern is {pattern!r}; what is read here is a pattern that finds at least one character.")
    return pattern, is_regex


def describe_search(pattern: str, is_regex: bool) -> dict[str, str]:
    """What a part looks for."""
    return {"Regex" if is_regex else "String": pattern}


def _flat(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of a part, those of sequences within it one after the other."""
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part["normalizers"] for step in _flat(inner)]


def _read_step(part: Mapping[str, Any]) -> Step:
    require("normalizer.type", part["type"], *FORMS, *_READERS)
    return Form(part["type"]) if part["type"] in FORMS else _READERS[part["type"]](part)


_READERS: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "Lowercase": lambda part: Lowercase(),
    "Precompiled": lambda part: Precompiled(CharacterMap.read(base64.b64decode(part["precompiled_charsmap"], validate=True))),
    "Prepend": lambda part: Prepend(_text(part, "prepend")),
    "Replace": lambda part: Replace(*read_search(part, "normalizer"), _text(part, "content")),
    "Strip": lambda part: Strip(bool(part["strip_left"]), bool(part["strip_right"])),
    "StripAccents": lambda part: StripAccents(),
}


def _text(part: Mapping[str, Any], field: str) -> str:
    if not isinstance(part[field], str):
        raise ValueError(f"normalizer.{field} is {part[field]!r}; a text is needed.")
    return part[field]


def _describe_step(step: Step) -> dict[str, Any]:
    match step:
        case Form(form):
            return {"type": form}
        case Precompiled(characters):
            return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(characters.data).decode()}
        case Prepend(content):
            return {"type": "Prepend", "prepend": content}
        case Replace(pattern, is_regex, content):
            return {"type": "Replace", "pattern": describe_search(pattern, is_regex), "content": content}
        case Strip(left, right):
            return {"type": "Strip", "strip_left": left, "strip_right": right}
        case _:
            return {"type": type(step).__name__}
