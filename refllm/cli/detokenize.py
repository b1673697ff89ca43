"""`refllm detokenize`: token ids to the bytes that they stand for."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

import typer

BEYOND = bytes(byte for byte in range(256) if byte not in b"0123456789 \t\r\n\v\f")  # what no line of ids holds
DIGITS = 18  # of the largest number that may be an id


def detokenize(
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="A tokenizer's file, or a folder that holds one.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of ids; - or none: standard input.", show_default=False)
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="End each document with a newline.")] = False,
    skip_special: Annotated[bool, typer.Option("--skip-special", help="Leave special tokens out.")] = False,
) -> None:
    """Turn token ids into text, as `refllm tokenize` writes them.

    A line of ids, separated by spaces, is a document, and so is a list of JSON. The texts follow one another byte for byte,
    with nothing between.
    """
    from refllm.cli.documents import called, names, open_tokenizer, opened

    decoder = open_tokenizer(tokenizer)
    out = sys.stdout.buffer
    for name in names(files or ()):
        with opened(name) as file:
            for number, ids in documents(file, called(name)):
                try:
                    out.write(decoder.decode_bytes(ids, skip_special))
                except ValueError as error:
                    raise ValueError(f"{called(name)}, line {number}: {error}") from None
                if lines:
                    out.write(b"\n")
                out.flush()


def documents(file: BinaryIO, name: str) -> Iterator[tuple[int, list[int]]]:
    """The ids of each document and the number of the line where it begins, as the lines come.

    Raises ValueError for what is neither ids nor JSON of them.
    """
    for number, line in enumerate(file, 1):
        if line.lstrip()[:1] in (b"[", b"{"):
            yield from _from_json(line, file, f"{name}, line {number}", number)
            continue
        words = line.split()
        if line.translate(None, BEYOND) != line or len(max(words, key=len, default=b"")) > DIGITS:
            bad = next(word for word in words if word.translate(None, BEYOND) != word or len(word) > DIGITS)
            told = bad[:40].decode("utf-8", "replace")
            raise ValueError(f"{name}, line {number}: {told!r} is no token id; ids are whole numbers.")
        yield number, [int(word) for word in words]


def _from_json(line: bytes, rest: BinaryIO, place: str, number: int) -> Iterator[tuple[int, list[int]]]:
    """The documents of a JSON value that begins with this line, and goes on in the rest where the line is not whole."""
    try:
        value = json.loads(line)
    except ValueError:
        try:
            value = json.loads(line + rest.read())
        except ValueError as error:
            raise ValueError(f"{place}: this is not JSON ({error}).") from None
    if isinstance(value, dict):
        value = value.get("ids")
    several = isinstance(value, list) and value and all(isinstance(ids, list) for ids in value)
    for ids in value if several else [value]:
        yield number, _checked(ids, place)


def _checked(ids: Any, place: str) -> list[int]:
    if not isinstance(ids, list):
        raise ValueError(f"{place}: the JSON holds no list of token ids.")
    for id in ids:
        if type(id) is not int:
            raise ValueError(f"{place}: {str(id)[:40]!r} is no token id; ids are whole numbers.")
    return ids
