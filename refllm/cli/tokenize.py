"""`refllm tokenize`: texts to token ids, a line for each document."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from refllm.tokenizer import Tokenizer

BLOCK = 1 << 16  # ids written at once
LONG = 1 << 12  # characters; the ids of more come as an array


def tokenize(
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="A tokenizer's file, or a folder that holds one.")],
    files: Annotated[list[str] | None, typer.Argument(help="UTF-8 texts; - or none: standard input.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option("--text", help="This text instead of files.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Every line is a document, without its newline.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Tell how many tokens there are.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the text with its tokens told apart.")] = False,
    offsets: Annotated[bool, typer.Option("--offsets", help="A line for each token: id, characters from and to, text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each document.")] = False,
    bos: Annotated[bool, typer.Option("--bos", help="Begin each document with the token that begins one.")] = False,
    eos: Annotated[bool, typer.Option("--eos", help="End each document with the token that ends one.")] = False,
    special: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-special", help="A special token, or all: where the text spells it, it gets its id.", metavar="TOKEN"
        ),
    ] = None,
) -> None:
    """Turn texts into token ids.

    A file is a document, and a document is a line of ids: `refllm detokenize` gives the same bytes back.
    Special tokens that the text spells are ordinary text, unless --allow-special names them.
    """
    from refllm.cli.documents import open_tokenizer

    if text is not None and files:
        raise ValueError("--text and files were both given; tokenize takes one or the other.")
    if count + show + offsets > 1:
        raise ValueError("--count, --show and --offsets exclude each other; give one of them.")
    if show and as_json:
        raise ValueError("--show is for people and --json for programs; give one of them.")
    opened = open_tokenizer(tokenizer)
    options = {"allowed_special": _allowed(opened, special or ()), "disallowed_special": (), "bos": bos, "eos": eos}
    several = lines or len(files or ()) > 1
    for name, document in _documents(files or (), text, lines):
        if show:
            _show(opened, document, options)
        elif count:
            _count(opened, document, options, name, several, as_json)
        elif offsets:
            _offsets(opened, document, options, as_json)
        else:
            _write_ids(_ids(opened, document, options), as_json)
        if lines:
            sys.stdout.flush()  # whoever sends a line may wait for its answer


def _documents(files: Sequence[str], text: str | None, lines: bool) -> Iterator[tuple[str, str]]:
    """The name and the text of each document."""
    from refllm.cli.documents import names, read_lines, read_text

    if text is not None:
        yield from (("--text", document) for document in (text.split("\n") if lines else [text]))
        return
    for name in names(files):
        for document in read_lines(name) if lines else [read_text(name)]:
            yield name, document


def _allowed(tokenizer: "Tokenizer", special: Sequence[str]) -> Any:
    """What may stand for its id. Raises ValueError for what is no special token of the tokenizer."""
    if "all" in special:
        return "all"
    for name in special:
        if name not in tokenizer.special_tokens:
            there = ", ".join(sorted(tokenizer.special_tokens)) or "none"
            raise ValueError(f"--allow-special {name!r} is no special token of this tokenizer; there are: {there}.")
    return special


def _ids(tokenizer: "Tokenizer", text: str, options: dict[str, Any]) -> list[int]:
    if len(text) < LONG:
        return tokenizer.encode(text, **options)
    return tokenizer.encode_array(text, **options, backend="numpy").tolist()


def _write_ids(ids: list[int], as_json: bool) -> None:
    """One line, in pieces, so that the text of the ids is never whole in memory."""
    between, (first, last) = (", ", "[]") if as_json else (" ", ("", ""))
    sys.stdout.write(first)
    for start in range(0, len(ids), BLOCK):
        sys.stdout.write(between * (start > 0) + between.join(map(str, ids[start : start + BLOCK])))
    sys.stdout.write(f"{last}\n")


def _count(tokenizer: "Tokenizer", text: str, options: dict[str, Any], name: str, several: bool, as_json: bool) -> None:
    n_tokens = len(_ids(tokenizer, text, options))
    if as_json:
        print(json.dumps({"file": name, "tokens": n_tokens, "characters": len(text), "bytes": len(text.encode())}))
    else:
        print(f"{n_tokens} {name}" if several else n_tokens)


def _offsets(tokenizer: "Tokenizer", text: str, options: dict[str, Any], as_json: bool) -> None:
    from refllm.cli.visible import visible_line

    ids, spans = tokenizer.encode_with_offsets(text, **options)
    if as_json:
        print(json.dumps({"ids": ids, "offsets": spans}))
        return
    for id, (start, end) in zip(ids, spans, strict=True):
        print(id, start, end, visible_line(tokenizer.bytes_of(id)), sep="\t")


def _show(tokenizer: "Tokenizer", text: str, options: dict[str, Any]) -> None:
    from rich.console import Console

    from refllm.cli.visible import show

    ids = _ids(tokenizer, text, options)
    show(tokenizer.stretches(ids), Console(highlight=False))
    if sys.stdout.isatty():
        n_bytes = len(text.encode())
        each = f", {n_bytes / len(ids):.2f} bytes each" if ids else ""
        Console(stderr=True, highlight=False).print(f"  {len(ids):,} tokens{each}", style="dim")
