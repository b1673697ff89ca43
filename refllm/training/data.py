"""Text on disk as one file of tokens, mapped into memory: its end held out, its beginning cut into batches by (seed, step).

A folder holds the tokens.bin (16- or 32-bit little-endian integers, the training part and then the held-out part) and, written
last, a tokens.json that says how many of each there are and which tokenizer made them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.atomic import replacing, write_atomically


@dataclass(frozen=True)
class Corpus:
    """The tokens of a text, in its order, and how many bytes of text each stands for."""

    train: np.ndarray  # (N,) uint16 or uint32, on disk
    held_out: np.ndarray  # (M,) of the same
    token_bytes: np.ndarray  # (V,) int32: bytes of text per token, 0 for the separator of documents


def read_texts(path: Path | str) -> list[str]:
    """The text of a file, or of every file in a folder and below in the order of their names, those with a dot left out.

    Raises FileNotFoundError for nothing there, ValueError for an empty text or one that is not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; data.path must be a UTF-8 text file or a folder of them.")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
    texts = [_read_text(file) for file in files]
    if not any(texts):
        what = "is empty" if path.is_file() else f"holds no text in its {len(files)} files"
        raise ValueError(f"{path} {what}; training needs at least two contexts of text.")
    return [text for text in texts if text]


def split(texts: Sequence[str], held_out: float) -> tuple[list[str], list[str]]:
    """The training texts and the held-out ones: of all characters, about the last share, from the beginning of a line on."""
    cut = round(sum(map(len, texts)) * (1 - held_out))
    train: list[str] = []
    for i, text in enumerate(texts):
        if cut < len(text):
            line = text.find("\n", max(0, cut - 1)) + 1
            if 0 < line <= cut + (len(text) - cut) // 2:  # no line so long that it takes half of what is held out
                cut = line
            return [*train, *filter(None, [text[:cut]])], [text[cut:], *texts[i + 1 :]]
        train.append(text)
        cut -= len(text)
    return train, []


def prepare(texts: Sequence[str], held_out: float, tokenizer: Any, tokenizer_hash: str, folder: Path) -> None:
    """Write the tokens of the texts to the folder; documents are separated by the end-of-text token, if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    counts = []
    with replacing(folder / "tokens.bin") as file:
        for part in split(texts, held_out):
            counts.append(0)
            for i, text in enumerate(part):
                separator = [tokenizer.eos] if i and tokenizer.eos is not None else []
                # a text may spell its separators itself
                ids = tokenizer.encode_array(text, allowed_special="all", backend="numpy")
                tokens = np.concatenate([np.asarray(separator, dtype), ids.astype(dtype)])
                file.write(tokens.tobytes())
                counts[-1] += len(tokens)
    about = {"dtype": dtype.str, "train": counts[0], "held_out": counts[1], "tokenizer": tokenizer_hash}
    write_atomically(folder / "tokens.json", json.dumps(about, indent=2).encode() + b"\n")


def load(folder: Path, tokenizer: Any, tokenizer_hash: str) -> Corpus:
    """The corpus in a folder. Raises ValueError where its files do not belong to each other or to the tokenizer."""
    about = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    if about["tokenizer"] != tokenizer_hash:
        raise ValueError(f"{folder}/tokens.bin was made with another tokenizer than tokenizer.json; remove it to make it again.")
    tokens = np.memmap(folder / "tokens.bin", dtype=about["dtype"], mode="r")
    if len(tokens) != about["train"] + about["held_out"]:
        need = about["train"] + about["held_out"]
        raise ValueError(
            f"{folder}/tokens.bin has {len(tokens)} tokens, tokens.json says {need}; remove both to make them again."
        )
    return Corpus(tokens[: about["train"]], tokens[about["train"] :], byte_counts(tokenizer))


def byte_counts(tokenizer: Any) -> np.ndarray:
    """How many bytes of text each token stands for: (V,) int32; none for the separator and for ids without a token."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int32)
    for i in range(tokenizer.vocab_size):
        if i != tokenizer.eos:
            with suppress(ValueError):
                counts[i] = len(tokenizer.bytes_of(i))
    return counts


def check(corpus: Corpus, context: int) -> None:
    """Raise ValueError unless both parts hold one window: a context of tokens and the target of its last."""
    for name, tokens in (("training", corpus.train), ("held-out", corpus.held_out)):
        if len(tokens) <= context:
            raise ValueError(
                f"the {name} text has {len(tokens)} tokens; training.context={context} needs at least {context + 1}. "
                "Give more text, a shorter context" + (" or a larger data.held_out." if name == "held-out" else ".")
            )


def batch(corpus: Corpus, seed: int, step: int, index: int, *, context: int, batch: int, accumulation: int) -> tuple[Any, Any]:
    """Micro-batch `index` of a step: tokens and targets, (B, T) int32 NumPy arrays each.

    The windows of a whole step are drawn at once, so k micro-batches of B windows are the same windows as one batch of k·B.
    """
    begins = generator(seed, "batch", step).integers(0, len(corpus.train) - context, size=(accumulation, batch))
    return _windows(corpus.train, begins[index], context)


def evaluation_begins(corpus: Corpus, *, context: int, windows: int) -> np.ndarray:
    """Where the windows of an evaluation begin in the held-out text: the same every time, without overlap, spread evenly.

    windows: how many; 0 for all there are. Then every token but the first, and an end shorter than a window, is a target once.
    """
    available = (len(corpus.held_out) - 1) // context
    chosen = min(windows, available) if windows else available
    return np.arange(chosen) * available // chosen * context


def evaluation_batches(corpus: Corpus, *, context: int, batch: int, windows: int) -> Iterator[tuple[Any, Any]]:
    """Those windows, some at a time: (B, T) tokens and targets."""
    begins = evaluation_begins(corpus, context=context, windows=windows)
    for first in range(0, len(begins), batch):
        yield _windows(corpus.held_out, begins[first : first + batch], context)


def _windows(tokens: np.ndarray, begins: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    windows = tokens[begins[:, None] + np.arange(context + 1)].astype(np.int32)  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start}); convert it, or take it out of the data.") from error
