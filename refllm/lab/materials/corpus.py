"""Real text without a download: the source of Python's own library, as characters or bytes; or the user's files.

Documents are whole files in an order drawn by the seed, the last of them held out, so that no file is in both parts.
"""

import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refllm.array_api import generator

SKIPPED = ("test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__")
TABLES = ("encodings", "pydoc_data", "msilib")  # generated and repetitive: held-out files would be near-duplicates


class Text(NamedTuple):
    """A text as small integers."""

    train: np.ndarray  # (N,) uint8
    held_out: np.ndarray  # (M,) uint8
    symbols: str | None  # the characters in the order of their ids; None where the ids are bytes
    source: str

    @property
    def vocab_size(self) -> int:
        return 256 if self.symbols is None else len(self.symbols)


def standard_library() -> list[str]:
    """The source files of Python's library that are plain ASCII, in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(p for p in root.rglob("*.py") if not set(p.relative_to(root).parts) & {*SKIPPED, *TABLES})
    contents = [path.read_bytes() for path in paths]
    return [data.decode() for data in contents if data and data.isascii()]


def load(path: Path | str | None = None, *, held_out: float = 0.05, seed: int = 0, as_bytes: bool = False) -> Text:
    """A text for small models, with an id for each character or byte.

    path: a file or a folder of UTF-8 files; None: the standard library
    held_out: the least share of the characters that is held out, in whole documents
    Raises ValueError where there are more than 256 characters and as_bytes is off, or too little text for both parts.
    """
    if path is None:
        return _library(held_out, seed, as_bytes)
    from refllm.training.data import read_texts

    return divided(read_texts(path), str(path), held_out, seed, as_bytes)


@lru_cache(maxsize=1)
def _library(held_out: float, seed: int, as_bytes: bool) -> Text:
    """The standard library, read once in a process that trains many models on it."""
    text = divided(standard_library(), "Python's standard library", held_out, seed, as_bytes)
    for ids in (text.train, text.held_out):
        ids.flags.writeable = False
    return text


def divided(documents: list[str], source: str, held_out: float, seed: int, as_bytes: bool) -> Text:
    """Documents as a text in two parts, drawn by the seed. Raises ValueError as `load` does."""
    if len(documents) == 1:  # one document is cut at lines
        lines = documents[0].splitlines(keepends=True)
        size = max(1, len(lines) // 100)
        documents = ["".join(lines[i : i + size]) for i in range(0, len(lines), size)]
    order = generator(seed, "corpus").permutation(len(documents))
    shuffled = [documents[i] for i in order]
    total, kept, cut = sum(map(len, shuffled)), 0, len(shuffled)
    while cut > 0 and kept < held_out * total:
        cut -= 1
        kept += len(shuffled[cut])
    train, rest = "".join(shuffled[:cut]), "".join(shuffled[cut:])
    if not train or not rest:
        raise ValueError(f"{source} has {total:,} characters, too few for a part to train on and a part held out.")
    if as_bytes:
        return Text(_bytes(train), _bytes(rest), None, source)
    symbols = "".join(sorted(set(train) | set(rest)))
    if len(symbols) > 256:
        raise ValueError(f"{source} has {len(symbols)} different characters, and at most 256 can be ids here; read it as bytes.")
    return Text(_ids(train, symbols), _ids(rest, symbols), symbols, source)


def windows(ids: np.ndarray, begins: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a text: tokens and targets, (B, T) int32 each, from where they begin, (B,)."""
    found = ids[begins[:, None] + np.arange(context + 1)].astype(np.int32)
    return np.ascontiguousarray(found[:, :-1]), np.ascontiguousarray(found[:, 1:])


def batch(ids: np.ndarray, seed: int, step: int, *, batch: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step, as `windows` has it: windows drawn uniformly from the text (N,)."""
    return windows(ids, generator(seed, "batch", step).integers(0, len(ids) - context, size=batch), context)


def evaluation(ids: np.ndarray, *, count: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` windows, the same for every model, spread evenly over the text (N,) without overlap."""
    available = (len(ids) - 1) // context
    chosen = min(count, available)
    return windows(ids, np.arange(chosen) * available // chosen * context, context)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _ids(text: str, symbols: str) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    table = np.frombuffer(symbols.encode("utf-32-le"), dtype="<u4")
    return np.searchsorted(table, points).astype(np.uint8)
