"""`refllm evaluate`: how well a model predicts texts and solves tasks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.model_file import BACKEND, BATCH, BOS, CONTEXT, DTYPE, JSON, MODEL, STRIDE, TOKENIZER

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.evaluation import Perplexity, Result


def evaluate(
    model: MODEL,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="UTF-8 texts, and tasks, which end in .toml; - or none: standard input.", show_default=False),
    ] = None,
    bos: BOS = None,
    context: CONTEXT = None,
    stride: STRIDE = None,
    batch: BATCH = 8,
    answers: Annotated[bool, typer.Option("--answers", help="Show the answer to each question of a task.")] = False,
    as_json: JSON = False,
    tokenizer: TOKENIZER = None,
    backend: BACKEND = None,
    dtype: DTYPE = None,
) -> None:
    """Measure how well a model predicts texts and solves tasks.

    Of texts it tells perplexity and bits per byte. Those longer than the context are read in windows, each token scored once.
    A task is a TOML file of questions, with choices to score or answers to write: spec/evaluation/tasks.md describes it.
    With --json, a line of JSON for each file.
    """
    import json

    from rich.console import Console

    from refllm.cli.documents import names, read_text
    from refllm.cli.model_file import open_model
    from refllm.evaluation import perplexity, read_task, run_task

    asked = names(files or ())
    tasks = {name: read_task(name) for name in asked if name.endswith(".toml")}  # a mistake shows before a model is read
    opened = open_model(model, backend, dtype, tokenizer)
    texts, results, progress = {}, {}, Console(stderr=True, highlight=False)
    for name in asked:
        with watched(name, progress) as watch:
            if name in tasks:
                results[name] = run_task(opened, tasks[name], batch=batch, watch=watch)
            else:
                text = read_text(name)
                texts[name] = perplexity(opened, text, context=context, stride=stride, bos=bos, batch=batch, watch=watch)
        if as_json:
            told = of_text(texts[name]) if name in texts else of_task(results[name], answers)
            print(json.dumps({"file": name} | told, ensure_ascii=False), flush=True)
    if not as_json:
        show(texts, results, answers, Console(highlight=False))


@contextmanager
def watched(name: str, console: "Console") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while a file is evaluated; nothing where that is no terminal."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(f"  {escape(name)}"), BarColumn(28), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, of: progress.update(bar, completed=done, total=of)


def of_text(found: "Perplexity") -> dict[str, Any]:
    """A text's figures, as JSON has them."""
    return {
        "tokens": found.n_tokens,
        "bytes": found.n_bytes,
        "words": found.n_words,
        "nats": found.nats,
        "nats_per_token": found.nats_per_token,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
        "bits_per_word": found.bits_per_word,
    }


def of_task(found: "Result", answers: bool) -> dict[str, Any]:
    """A task's, as JSON has them."""
    described: dict[str, Any] = {"task": found.task, "metric": found.metric, **found.share._asdict()}
    if found.by_score:
        described["by_score"] = {name: share.value for name, share in found.by_score.items()}
    if answers:
        described["answers"] = [answer._asdict() for answer in found.answers]
    return described


def show(texts: dict[str, "Perplexity"], results: dict[str, "Result"], answers: bool, console: "Console") -> None:
    """Tables of the texts and of the tasks."""
    from rich.table import Table
    from rich.text import Text

    from refllm.cli.documents import called

    def table(*headings: str) -> Table:
        made = Table(box=None, padding=(0, 1), header_style="dim")
        for i, heading in enumerate(headings):
            made.add_column(heading, justify="right" if i else "left", overflow="fold")
        return made

    if texts:
        grid = table("text", "tokens", "nats/token", "perplexity", "bits/byte", "bits/word")
        rows = [(called(name), found) for name, found in texts.items()]
        if len(rows) > 1:
            first, *others = texts.values()
            rows.append(("all", sum(others, start=first)))
        for name, found in rows:
            figures = f"{found.nats_per_token:.4f}", f"{found.perplexity:.3f}", f"{found.bits_per_byte:.4f}"
            grid.add_row(Text(name), f"{found.n_tokens:,}", *figures, f"{found.bits_per_word:.3f}")
        console.print(grid)
    if results:
        grid = table("task", "questions", "metric", "", "95 % interval")
        for result in results.values():
            value, low, high = (f"{100 * share:.1f}" for share in result.share[:3])
            grid.add_row(Text(result.task), f"{result.share.n:,}", result.metric, f"{value} %", f"{low} – {high} %")
        console.print(grid)
    for result in results.values():
        if result.by_score:
            told = ", ".join(f"{name} {100 * share.value:.1f} %" for name, share in result.by_score.items())
            console.print(Text(f"  {result.task} by score: {told}", style="dim"), soft_wrap=True)
        for i, answer in enumerate(result.answers if answers else (), 1):
            line = Text(f"  {i}. ").append(answer.answer, "green" if answer.score == 1 else "yellow")
            console.print(line if answer.score == 1 else line.append(f"   right: {' or '.join(answer.right)}"), soft_wrap=True)
