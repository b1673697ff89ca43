"""The part post_processor of a tokenizer.json: what stands around a text."""

from collections.abc import Callable, Mapping
from typing import Any

from refllm.tokenizer.formats.hugging_face_parts import require
from refllm.tokenizer.template import Template

Spelled = Callable[[int], str]


def read_post_processor(part: Mapping[str, Any] | None) -> Template | None:
    """What a part puts around one text. Raises ValueError for one that is not known, or that puts the text in more than once."""
    if part is None:
        return None
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    for step in _flat(part):
        first, last = _around(step)
        before, behind = first + before, behind + last
    return Template(before, behind, part)


def describe_post_processor(template: Template | None, spelled: Spelled) -> Mapping[str, Any] | None:
    """The part that says what stands around a text: as it was read, or a new one. spelled: the text of an id"""
    if template is None or template.description is not None:
        return template.description if template else None
    before, behind = (
        [{"SpecialToken": {"id": spelled(id), "type_id": 0}} for id in ids] for ids in (template.before, template.behind)
    )
    texts = [{"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB")]
    names = {spelled(id): id for id in (*template.before, *template.behind)}
    return {
        "type": "TemplateProcessing",
        "single": [*before, texts[0], *behind],
        "pair": [*before, texts[0], *behind, texts[1], *behind],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in names.items()},
    }


def _flat(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part["processors"] for step in _flat(inner)]


def _around(step: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and behind a text that one step puts there."""
    kind = step["type"]
    require("post_processor.type", kind, "ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing")
    if kind == "ByteLevel":  # changes offsets only
        return (), ()
    if kind != "TemplateProcessing":
        return (_id(step["cls"][1]),), (_id(step["sep"][1]),)
    sides: list[list[int]] = [[]]
    for piece in step["single"]:
        if "Sequence" in piece:
            sides.append([])
        else:
            sides[-1] += map(_id, step["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
    require("the number of texts in post_processor.single", len(sides) - 1, 1)
    return tuple(sides[0]), tuple(sides[1])


def _id(id: Any) -> int:
    if type(id) is not int or id < 0:
        raise ValueError(f"post_processor has the id {id!r}; an id is a whole number from 0 up.")
    return id
