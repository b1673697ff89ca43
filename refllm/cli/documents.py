"""Documents from files and from standard input, byte for byte, and the tokenizers that the commands name."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from refllm.tokenizer import Tokenizer

STDIN = "-"
HINT = "reading from the terminal; Ctrl-D ends the text"


def names(files: Sequence[str]) -> Sequence[str]:
    """The files to read: standard input, where none is named."""
    return files or [STDIN]


def opened(name: str) -> BinaryIO:
    """A file, or standard input, to be read as bytes."""
    if name != STDIN:
        return Path(name).open("rb")
    if sys.stdin.isatty():
        print(HINT, file=sys.stderr)
    return sys.stdin.buffer


def called(name: str) -> str:
    """What a file is called in a message."""
    return "standard input" if name == STDIN else name


def read_text(name: str) -> str:
    """The text of a UTF-8 file or of standard input, its ends of lines as they are. Raises ValueError where it is not UTF-8."""
    with opened(name) as file:
        return to_text(file.read(), name)


def read_lines(name: str) -> Iterator[str]:
    """The lines of a UTF-8 file or of standard input as they come, without their newlines. Raises as read_text does."""
    n_read = 0
    with opened(name) as file:
        for line in file:
            yield to_text(line, name, n_read).removesuffix("\n")
            n_read += len(line)


def to_text(data: bytes, name: str, before: int = 0) -> str:
    """The text of bytes that are UTF-8. before: how many bytes of the file come before them"""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = f"{called(name)} is not UTF-8 text (byte {before + error.start})"
        raise ValueError(f"{what}; a tokenizer takes text, convert it first.") from None


def open_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a file, of a folder that holds one, or of a run."""
    return Tokenizer.load(Path(path).expanduser())
