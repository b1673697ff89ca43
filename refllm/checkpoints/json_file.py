"""JSON from strangers: config.json, the index of shards, the header of a tensor file."""

import json
from pathlib import Path
from typing import Any

LARGEST = 100_000_000  # bytes, as the safetensors library allows a header


def parse(data: bytes) -> Any:
    """What a JSON text says. Raises ValueError where it is none, is nested too deep, or gives a key twice."""
    try:
        return json.loads(data, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError where it cannot be opened, ValueError that names it where it is none."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, which is no such file: one of more than {LARGEST:,} is not read.")
    try:
        fields = parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds a {type(fields).__name__}; it must be a JSON object.")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # None
        raise ValueError(f"the key {twice!r} stands twice in it")
    return fields
