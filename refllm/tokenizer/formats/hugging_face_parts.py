"""What is common to the models inside a tokenizer.json."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refllm.tokenizer.model import MOST_IDS

# What reading a part of the wrong kind raises, such as a list where there should be an object
NOT_BUILT_SO = (KeyError, IndexError, TypeError, AttributeError, RecursionError)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError for a file that holds none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}); it may be truncated. Copy it again.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a JSON {type(document).__name__}; a tokenizer.json holds an object.")
    return document


def require(field: str, value: object, *known: object) -> None:
    """Raise ValueError unless a field has a value that is known."""
    if value not in known:
        raise ValueError(f"{field} is {value!r}; what is read here is {' or '.join(map(repr, known))}.")


def read_vocabulary(model: Mapping[str, Any], added: Iterable[str]) -> dict[str, int]:
    """spelling -> id of the model's own tokens. Raises ValueError where two share an id."""
    vocabulary = {spelling: id for spelling, id in model["vocab"].items() if spelling not in added}
    if not all(type(id) is int and 0 <= id < MOST_IDS for id in vocabulary.values()):
        raise ValueError(f"an id of the vocabulary is not a whole number from 0 up, below {MOST_IDS:,}.")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise ValueError("two tokens of the vocabulary share an id.")
    return vocabulary


def read_merges(model: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The merges as pairs of ids, in order of rank. Raises ValueError for one whose tokens the vocabulary lacks."""
    vocabulary, pairs = model["vocab"], []
    for rank, merge in enumerate(model["merges"]):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2 or not all(part in vocabulary for part in parts):
            raise ValueError(f"merge {rank} is {merge!r}, which is not a pair of tokens of the vocabulary.")
        pairs.append((vocabulary[parts[0]], vocabulary[parts[1]]))
    return pairs


def bpe(vocab: Mapping[str, int], merges: list[str], **others: Any) -> dict[str, Any]:
    """The model part of a BPE tokenizer.json, every field written out."""
    plain = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return plain | others | {"vocab": dict(vocab), "merges": merges}
