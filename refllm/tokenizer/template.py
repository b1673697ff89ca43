"""What a vocabulary's makers put around a text: such as <s> before it, or [CLS] and [SEP] around it."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Template(NamedTuple):
    """The ids that stand around a text.

    before, behind: their ids    description: the part post_processor of the tokenizer.json that says so, where one does; it may
    also say what stands around a pair of texts
    """

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    description: Mapping[str, Any] | None = None
