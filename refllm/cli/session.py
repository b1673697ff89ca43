"""What quickstart, train and resume do alike: show the run, train it watched, and tell what came of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from refllm.cli import plot
from refllm.cli.figures import count, duration, size
from refllm.cli.watch import Best, best_evaluation, comparison, folder_size, trigram, watch
from refllm.training.run import Run

MergesTold = Callable[[int, int], None]


@contextmanager
def tokenizer_progress(console: Console) -> Iterator[MergesTold]:
    """A bar for the tokenizer's training; it goes when that is done, and is not drawn where the output is no terminal."""
    with Progress(
        TextColumn("  learning the tokenizer"),
        BarColumn(28),
        TextColumn("{task.completed} of {task.total} merges"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_run(console: Console, run: Run) -> None:
    """What is trained, on what, where."""
    t, corpus = run.training, run.corpus
    n_train, n_held_out = (int(corpus.token_bytes[part].sum()) for part in (corpus.train, corpus.held_out))
    tokens = t.context * t.batch * t.accumulation
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("  text", f"{size(n_train)} to learn, {size(n_held_out)} held out")
    per_token = f"{n_train / len(corpus.train):.2f} bytes of text each"
    table.add_row("  tokens", f"{len(corpus.train):,} to learn, {per_token}; vocabulary {run.tokenizer.vocab_size:,}")
    table.add_row("  model", describe_model(run))
    if run.config.source:
        table.add_row("  from", f"{escape(run.config.source)}, its weights in {run.weights_dtype}")
    step, passes = (
        f"{t.batch * t.accumulation} × {t.context} tokens",
        f"{t.steps * tokens / len(corpus.train):.1f} times the text",
    )
    table.add_row("  training", f"{t.steps:,} steps of {step}, {passes}; AdamW, {t.schedule}")
    table.add_row("  backend", f"{run.backend.name} {run.backend.version} on {run.backend.device}, {t.dtype}")
    table.add_row("  run", escape(str(run.folder)))
    console.print(table)
    console.print()


def describe_model(run: Run) -> str:
    """The architecture and its sizes in a line."""
    from refllm.models.parameters import count as count_parameters

    config, name = run.learner.config, run.config.model["architecture"]
    n = count(count_parameters(run.architecture.parameter_shapes(config)))
    heads = f"{config.n_heads} heads"
    if getattr(config, "n_kv_heads", config.n_heads) != config.n_heads:
        heads += f" on {config.n_kv_heads} of keys and values"
    described = f"{name}, {n} parameters: {config.n_layers} layers, {config.d_model} wide, {heads}"
    if lora := run.config.lora:
        adapters = f"rank {lora.rank} on {', '.join(lora.targets)}: {count(run.learner.layout.size)} parameters learn"
        described += f"\nadapters of {adapters}"
    return described


def after_training(run: Run, best: Path) -> list[tuple[str, str]]:
    """What may follow a run, and the commands for it."""
    if run.masking:
        mask = run.tokenizer.decode([run.masking.mask])
        steps = [("let it fill in a text", f'refllm fill {best} "… {mask} …"')]
    else:
        steps = [("let it continue a prompt", f'refllm generate {best} "…"')]
    if run.config.lora:
        steps.append(("make a whole model of it", f"refllm merge {best} {run.folder.with_name(run.folder.name + '-merged')}"))
    return steps


def train_watched(console: Console, run: Run) -> Path:
    """Train to the end, compare with the trigram, draw the curve. Returns the folder of the best model."""
    level = trigram(run)
    if level is not None:
        told = f"{level.loss:.3f} nats/token, {level.bits_per_byte:.3f} bits/byte"
        console.print(f"  To beat: the {level.name}, [green]{told}[/].\n")
    outcome = watch(run, console, level)
    best = best_evaluation(run)
    console.print(f"\n  Trained in [bold]{duration(outcome.seconds)}[/].\n")
    console.print(comparison(best, level))
    console.print()
    drawn = plot.draw(run.metrics_path, run.folder / "loss.png", level)
    older = best is not None and outcome.last is not None and best.step < outcome.last.step
    say_what_is_there(console, run, best if older else None, drawn)
    return run.folder / "best" if older else run.folder


def say_what_is_there(console: Console, run: Run, better: Best | None, drawn: bool) -> None:
    """Where the model, a better one of an earlier step, the numbers and the curve lie."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    what = "the adapter, a folder of PEFT's" if run.config.lora else "the model, a Hugging Face folder"
    holds = f"{what}, and all that resuming needs: {size(folder_size(run.folder))}"
    table.add_row(f"  {escape(str(run.folder))}", holds)
    if better is not None:
        table.add_row("    best", f"the model of step {better.step:,}, with the lowest held-out loss")
    table.add_row(f"    {run.metrics_path.name}", "the numbers of every step, a line of JSON each")
    if drawn:
        table.add_row("    loss.png", "the loss curve")
    console.print(table)
    if not drawn:
        told = f"  The loss curve is not drawn: that needs matplotlib, [cyan]{escape(plot.INSTALL)}[/]."
        console.print(told, soft_wrap=True)


def next_steps(console: Console, steps: list[tuple[str, str]]) -> None:
    """What one may do next, and the commands for it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="bold cyan", overflow="fold")
    for meaning, command in steps:
        table.add_row(f"  {meaning}", escape(command))
    console.print("\n[bold]Next[/]")
    console.print(table)
