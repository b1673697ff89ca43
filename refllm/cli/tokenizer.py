"""`refllm tokenizer`: train one, look into one, compare several."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.tokenizer.learn_merges import Progress as Merging
    from refllm.tokenizer.train import Counting

EVERY = 64  # merges between two movements of the bar

app = typer.Typer(help="Train a tokenizer, look into one, compare several.", no_args_is_help=True)


@app.command()
def train(
    files: Annotated[
        list[str], typer.Argument(help="UTF-8 texts, folders of them, or - for standard input.", show_default=False)
    ],
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tokens in all: 256 bytes, merges and special tokens.")],
    out: Annotated[Path, typer.Option("--out", help="The tokenizer.json to write, or a folder to write it in.")],
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", help="What cuts text into words: gpt2, cl100k, o200k, llama3, qwen2, none, or a regular expression."
        ),
    ] = "gpt2",
    ties: Annotated[
        str,
        typer.Option(
            "--ties", help="Which of equally frequent pairs comes first: smallest, smallest_by_value or first in the text."
        ),
    ] = "smallest",
    special: Annotated[
        list[str] | None, typer.Option("--special", help="A special token; <|endoftext|> if none is given.", metavar="TOKEN")
    ] = None,
) -> None:
    """Train a byte-level BPE on text files and write it as a tokenizer.json.

    Other libraries read the file too. The rules for ties are those of Hugging Face's trainer (smallest), of rustbpe
    (smallest_by_value) and of minbpe (first).
    """
    import time

    from rich.console import Console

    from refllm.cli.figures import duration, size
    from refllm.tokenizer.formats.hugging_face import to_document
    from refllm.tokenizer.train import count_words, learn, room, tokenizer_of

    started = time.perf_counter()
    special_tokens = special or ["<|endoftext|>"]
    n_merges = room(vocab_size, special_tokens)
    to_document(tokenizer_of([], special_tokens, pattern, ties))  # what could not be written is refused before the work
    if not out.is_dir() and not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} is not there; make it first.")
    paths = text_files(files)
    console = Console(highlight=False)
    with training_bars(console, sum(path.stat().st_size for path in paths), n_merges) as (counting, merging):
        counts = count_words(paths, pattern, counting)
        if not counts:
            raise ValueError("the texts are empty; a tokenizer is learned from words that repeat.")
        learned = learn(counts, n_merges, ties, merging)
    tokenizer = tokenizer_of(learned.merges, special_tokens, pattern, ties)
    tokenizer.save(out)
    n_bytes = sum(len(word.encode()) * count for word, count in counts.items())
    facts = [
        ("vocabulary", f"{tokenizer.vocab_size:,}: 256 bytes, {len(learned.merges):,} merges, {len(special_tokens)} special"),
        ("text", f"{size(n_bytes)}, {len(counts):,} words; {n_bytes / learned.n_tokens:.2f} bytes per token of this text"),
        ("time", duration(time.perf_counter() - started)),
        ("written to", str(out / "tokenizer.json" if out.is_dir() else out)),
    ]
    tell(console, facts)
    if tokenizer.vocab_size < vocab_size:
        console.print(f"  The text has no pair left to merge, so the vocabulary is smaller than {vocab_size:,}.", style="dim")


@app.command()
def info(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer's file, or a folder that holds one.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Tell what a tokenizer is: its model, its vocabulary, its special tokens and how it cuts text into words."""
    import json
    import time

    from rich.console import Console

    from refllm.cli.documents import open_tokenizer
    from refllm.cli.figures import span
    from refllm.cli.visible import visible_line

    started = time.perf_counter()
    opened = open_tokenizer(tokenizer)
    seconds = time.perf_counter() - started
    special = sorted((token.id, token.content) for token in opened.added if token.special)
    longest = max(opened.model.vocabulary.values(), key=len, default=b"")
    pattern = getattr(opened.model, "pattern", None)
    if as_json:
        about = {
            "model": type(opened.model).__name__,
            "vocab_size": opened.vocab_size,
            "n_tokens": len(opened),
            "special_tokens": {content: id for id, content in special},
            "bos": opened.bos,
            "eos": opened.eos,
            "pattern": pattern,
            "longest_token": {"text": longest.decode("utf-8", "replace"), "bytes": len(longest)},
            "load_seconds": round(seconds, 6),
        }
        print(json.dumps(about))
        return
    ends = ", ".join(
        f"{name} {visible_line(opened.bytes_of(id))} ({id})"
        for name, id in (("bos", opened.bos), ("eos", opened.eos))
        if id is not None
    )
    facts = [
        ("model", type(opened.model).__name__),
        ("vocabulary", f"{len(opened):,} tokens, the largest id {opened.vocab_size - 1:,}"),
        ("special", ", ".join(f"{content} ({id})" for id, content in special) or "none"),
        ("begin and end", ends or "none"),
        ("longest token", f"{visible_line(longest)} ({len(longest)} bytes)"),
        ("loaded in", span(seconds)),
    ]
    if pattern is not None:
        facts.insert(4, ("words by", pattern if isinstance(pattern, str) else "\n".join(pattern)))
    tell(Console(highlight=False), facts)


@app.command()
def compare(
    tokenizers: Annotated[list[str], typer.Option("--tokenizer", "-t", help="A tokenizer; again for each to compare.")],
    files: Annotated[list[str] | None, typer.Argument(help="UTF-8 texts; - or none: standard input.", show_default=False)] = None,
    scripts: Annotated[bool, typer.Option("--scripts", help="Tell bytes per token for each script too: Latin, Han, …")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text and tokenizer.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
) -> None:
    """Compare tokenizers on the same texts: bytes and characters per token, tokens, vocabulary.

    With a text in each of several languages this tells what a language costs. The more bytes a token holds, the fewer are needed.
    """
    from refllm.cli.comparison import compared, print_csv, print_json, print_tables

    if as_json and as_csv:
        raise ValueError("--json and --csv exclude each other; give one of them.")
    rows = compared(tokenizers, files or ())
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    else:
        print_tables(rows, scripts)


def text_files(names: list[str]) -> list[Path]:
    """The files of these names, those in folders too, in the order of their names; those with a dot are left out.

    Raises FileNotFoundError for a file that is not there, ValueError for a folder without any.
    """
    paths = []
    for name in names:
        path = Path("/dev/stdin" if name == "-" else name)
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; train needs UTF-8 text files, or folders of them.")
        if not path.is_dir():
            paths.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
        found = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not found:
            raise ValueError(f"the folder {path} holds no files; train needs UTF-8 texts.")
        paths += found
    return paths


@contextmanager
def training_bars(console: "Console", n_bytes: int, n_merges: int) -> Iterator[tuple["Counting", "Merging"]]:
    """What moves the two bars of a training; they go when it is done, and are not drawn where the output is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("  {task.description}"), BarColumn(28), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        words = bars.add_task("counting words", total=n_bytes or None)
        merges = bars.add_task("learning merges", total=n_merges, start=False)

        def merging(done: int, to_do: int) -> None:
            if done == 1:
                bars.start_task(merges)
            if done % EVERY == 0 or done == to_do:
                bars.update(merges, completed=done)

        yield lambda counted: bars.update(words, completed=counted), merging


def tell(console: "Console", facts: list[tuple[str, str]]) -> None:
    """Facts under one another, the name of each in front."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(f"  {name}", Text(fact))
    console.print(table)
