"""Prompts from arguments, files and a pipe: whole texts, lines, or lines of JSON with options of their own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refllm.cli.documents import STDIN, called, read_lines, read_text
from refllm.cli.option_table import Table, checked


class Prompt(NamedTuple):
    """A text to continue."""

    text: str
    options: Mapping[str, Any] = {}  # by name, those that its line of JSON sets
    id: Any = None  # what its line of JSON calls it
    where: str = ""  # of a line: its number and file, for messages


def read_prompts(arguments: Sequence[str], files: Sequence[str], lines: bool, jsonl: bool, table: Table) -> list[Prompt]:
    """All prompts: the arguments, then those of the files; of standard input where there is none of either, or for "-".

    lines: whether files hold a prompt a line    jsonl: whether they hold a JSON object a line, as those named *.jsonl do
    table: the options that such an object may set
    Raises ValueError for a line that is no such object, with its number, for files without a prompt, and for text that is not
    UTF-8.
    """
    found = []
    for text in arguments or ([] if files else [STDIN]):
        found += from_file(STDIN, lines, jsonl, table) if text == STDIN else [Prompt(text)]
    for name in files:
        found += from_file(name, lines, jsonl or (not lines and Path(name).suffix == ".jsonl"), table)
    if not found:
        raise ValueError(f"there is no prompt in {', '.join(map(called, files or [STDIN]))}.")
    return found


def from_file(name: str, lines: bool, jsonl: bool, table: Table) -> list[Prompt]:
    """The prompts of one file, or of standard input."""
    if not lines and not jsonl:
        return [Prompt(read_text(name).removesuffix("\n"))]  # the newline with which editors end a file is not the text's
    found = []
    for i, line in enumerate(read_lines(name), 1):
        if line.strip():
            where = f"line {i} of {called(name)}"
            found.append(of_object(line, table, where) if jsonl else Prompt(line.removesuffix("\r"), where=where))
    return found


def of_object(line: str, table: Table, where: str) -> Prompt:
    """The prompt of a line of JSON. Raises ValueError, with the place of the line, where it is none."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        what = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise ValueError(f"{where} is not JSON: {what} (column {error.colno}).") from None
    if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
        raise ValueError(f'{where} has no prompt; a line is an object such as {{"prompt": "Once upon a time"}}.')
    try:
        options = {name: checked(table, name, value) for name, value in found.items() if name not in ("prompt", "id")}
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Prompt(found["prompt"], options, found.get("id"), where)
