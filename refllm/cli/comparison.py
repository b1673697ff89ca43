"""The tables of `refllm tokenizer compare`."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from refllm.cli.documents import names, open_tokenizer, read_text
from refllm.tokenizer.compare import SCRIPTS, Measured, measured, total

TOTAL = "all"
USUAL = ("tokenizer.json", "tokenizer.model", "tokenizer.bin", "vocab.json", "vocab.txt")  # names that say nothing


class Row(NamedTuple):
    """A text by a tokenizer."""

    text: str
    tokenizer: str
    vocab_size: int
    measured: Measured


def compared(tokenizers: Sequence[str], files: Sequence[str]) -> list[Row]:
    """Each text by each tokenizer, and, where there are several texts, all together.

    Raises ValueError for a tokenizer given twice.
    """
    if len(set(tokenizers)) < len(tokenizers):
        raise ValueError("a tokenizer is given twice; compare each with another.")
    opened = {name: open_tokenizer(name) for name in tokenizers}
    rows = []
    for file in names(files):
        text = read_text(file)
        rows += [Row(file, name, len(tokenizer), measured(tokenizer, text)) for name, tokenizer in opened.items()]
    if len(files) > 1:
        for name, tokenizer in opened.items():
            rows.append(Row(TOTAL, name, len(tokenizer), total([row.measured for row in rows if row.tokenizer == name])))
    return rows


def print_json(rows: Sequence[Row]) -> None:
    """A line for each row, its scripts as {name: {bytes, tokens}}."""
    for row in rows:
        scripts = {name: {"bytes": n_bytes, "tokens": n_tokens} for name, (n_bytes, n_tokens) in row.measured.scripts.items()}
        print(json.dumps(_figures(row) | {"scripts": scripts}))


def print_csv(rows: Sequence[Row]) -> None:
    """A header, and a line for each row."""
    out = csv.DictWriter(sys.stdout, list(_figures(rows[0])), lineterminator="\n")
    out.writeheader()
    out.writerows(map(_figures, rows))


def print_tables(rows: Sequence[Row], scripts: bool) -> None:
    """The table of texts, and that of scripts where it is wanted."""
    console, short = Console(highlight=False), _short({row.tokenizer for row in rows})
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("text", overflow="fold", min_width=10)
    table.add_column("tokenizer", overflow="fold", min_width=10)
    for heading in ("bytes/token", "chars/token", "tokens", "vocabulary", "unknown"):
        table.add_column(heading, justify="right", no_wrap=True)
    for text in dict.fromkeys(row.text for row in rows):
        group = [row for row in rows if row.text == text]
        best = max(row.measured.bytes_per_token for row in group)
        for i, row in enumerate(group):
            found = row.measured
            style = "bold green" if found.bytes_per_token == best and len(group) > 1 else ""
            table.add_row(
                Text("" if i else text),
                Text(short[row.tokenizer]),
                Text(f"{found.bytes_per_token:.3f}", style=style),
                f"{found.characters_per_token:.3f}",
                f"{found.n_tokens:,}",
                f"{row.vocab_size:,}",
                f"{found.n_unknown:,}",
                end_section=i == len(group) - 1,
            )
    console.print(table)
    if scripts:
        console.print()
        console.print(_script_table(rows, short))


def _script_table(rows: Sequence[Row], short: dict[str, str]) -> Table:
    """Bytes per token of each script that occurs, over all texts; – where a tokenizer does not keep the text as it is."""
    last = {row.tokenizer: row.measured for row in rows}  # the total stands last
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("bytes/token of", no_wrap=True)
    table.add_column("share of bytes", justify="right", no_wrap=True)
    for name in last:
        table.add_column(short[name], justify="right", overflow="fold")
    for script in SCRIPTS:
        found = [of.scripts.get(script) for of in last.values()]
        n_bytes = next((share.n_bytes for share in found if share), 0)
        if n_bytes:
            each = [f"{share.n_bytes / share.n_tokens:.3f}" if share else "–" for share in found]
            of_all = next(iter(last.values())).n_bytes
            table.add_row(script, f"{n_bytes / of_all:.1%}", *each)
    return table


def _figures(row: Row) -> dict[str, str | int | float]:
    found = row.measured
    return {
        "text": row.text,
        "tokenizer": row.tokenizer,
        "bytes_per_token": round(found.bytes_per_token, 6),
        "characters_per_token": round(found.characters_per_token, 6),
        "tokens": found.n_tokens,
        "bytes": found.n_bytes,
        "characters": found.n_characters,
        "vocabulary": row.vocab_size,
        "unknown": found.n_unknown,
    }


def _short(paths: set[str]) -> dict[str, str]:
    """What each tokenizer is called in a table: the name of its file, or of its folder where the file's says nothing."""
    called = {}
    for path in paths:
        resolved = Path(os.path.abspath(Path(path).expanduser()))  # a link keeps its own name
        called[path] = resolved.parent.name if resolved.name in USUAL else resolved.name
    unique = len(set(called.values())) == len(called)
    return called if unique else {path: path for path in paths}
