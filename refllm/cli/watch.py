"""A training run, watched: rows of losses as they are measured, and below them, on a terminal, how far the run is.

Where the output is no terminal the rows say themselves how much time is left.
"""

import json
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from refllm.cli.figures import count, duration
from refllm.cli.plot import Level
from refllm.training.loop import Progress, train
from refllm.training.run import Run

HEADINGS = (
    ("step", ""),
    ("training loss", "nats/token"),
    ("held-out loss", "nats/token"),
    ("", "bits/byte"),
    ("speed", "tokens/s"),
)
WIDTHS = (7, 14, 14, 11, 10)


class Outcome(NamedTuple):
    """How a run ended."""

    last: Progress | None  # None: there was nothing left to do
    seconds: float  # of training, evaluations and checkpoints included


def watch(run: Run, console: Console, reference: Level | None = None) -> Outcome:
    """Train to the last step and show it. A held-out loss below the reference's is green.

    On Ctrl-C it says from where the run can go on, and lets the KeyboardInterrupt through.
    """
    last = None
    console.print(heading())
    shown = Shown(console, reference)
    with shown.live:
        try:
            for progress in train(run):
                last = progress
                shown.show(progress)
        except KeyboardInterrupt:
            shown.live.stop()
            console.print(interrupted(run, last), soft_wrap=True)
            raise
    return Outcome(last, shown.seconds())


class Shown:
    """What stands on the screen: the rows so far, and the line that moves."""

    def __init__(self, console: Console, reference: Level | None):
        self.console, self.reference = console, reference
        self.began = console.get_time()
        self.live = Live(console=console, refresh_per_second=8, transient=True)

    def show(self, progress: Progress) -> None:
        """A row for each evaluation, and the moving line for each step."""
        if progress.held_out_loss is not None:
            self.console.print(self._row(progress))
        if self.console.is_terminal:
            self.live.update(moving_line(progress))

    def seconds(self) -> float:
        return self.console.get_time() - self.began

    def _row(self, progress: Progress) -> Text:
        held_out, bits = progress.held_out_loss or 0.0, progress.bits_per_byte or 0.0
        below = self.reference is not None and held_out < self.reference.loss
        style = "bold green" if below else ""
        cells = (
            (f"{progress.step:,}", ""),
            (f"{progress.loss:.3f}", ""),
            (f"{held_out:.3f}", style),
            (f"{bits:.3f}", style),
            (count(progress.tokens_per_second), ""),
        )
        row = Text.assemble(*((cell.rjust(width), style) for (cell, style), width in zip(cells, WIDTHS, strict=True)))
        if not self.console.is_terminal and progress.step < progress.steps:
            row.append(f"   {duration(progress.seconds_left)} left")
        return row


def moving_line(progress: Progress) -> Table:
    """How far the run is: a bar, the step, the loss of the last batch, the speed and the time left."""
    line = Table.grid(padding=(0, 2))
    line.add_row(
        "",
        ProgressBar(total=progress.steps, completed=progress.step, width=28),
        f"step {progress.step:,} of {progress.steps:,}",
        f"[cyan]{progress.loss:.3f}[/] nats/token",
        f"{count(progress.tokens_per_second)} tokens/s",
        f"[bold]{duration(progress.seconds_left)}[/] left",
    )
    return line


def interrupted(run: Run, last: Progress | None) -> Text:
    """From where a stopped run goes on."""
    every, step = run.training.checkpoint_every, 0 if last is None else last.step
    kept = step // every * every
    if run.state_path.exists():
        where = f"the checkpoint of step {kept:,} is whole" if kept else "the checkpoint it began from is whole"
    else:
        where = "no checkpoint was made yet, so it will begin again"
    text = Text.assemble(("Stopped", "bold yellow"), f" at step {step:,}; {where}. Go on with ")
    return text.append(f"refllm resume {run.folder}", style="bold cyan")


def trigram(run: Run) -> Level | None:
    """The Kneser-Ney trigram of the run's training text, judged on the same tokens as the model in an evaluation.

    It sees the two tokens before each, also where the model's window begins. None for a text that is long to count, and where
    tokens are hidden: there the model sees what follows.
    """
    import numpy as np

    from refllm.models import ngram
    from refllm.training.data import evaluation_begins

    corpus, t = run.corpus, run.training
    if run.masking or len(corpus.train) > 5_000_000:
        return None
    counted = ngram.train(corpus.train, 3, run.tokenizer.vocab_size)
    begins = evaluation_begins(corpus, context=t.context, windows=t.evaluation_windows)
    judged = (begins[:, None] + np.arange(1, t.context + 1)).reshape(-1)  # the targets' places
    nats = -ngram.log_probabilities(counted, corpus.held_out, context=corpus.train)[judged]
    n_bytes = int(corpus.token_bytes[corpus.held_out[judged]].sum())
    return Level("Kneser-Ney trigram", float(np.mean(nats)), float(np.sum(nats)) / np.log(2) / max(1, n_bytes))


class Best(NamedTuple):
    """The evaluation of a run with the lowest held-out loss, whose model is kept in best/."""

    step: int
    loss: float  # nats per token
    bits_per_byte: float


def best_evaluation(run: Run) -> Best | None:
    """The best of all evaluations in metrics.jsonl, those before a resume included."""
    lines = map(json.loads, run.metrics_path.read_text(encoding="utf-8").splitlines())
    judged = [Best(line["step"], line["held_out_loss"], line["bits_per_byte"]) for line in lines if "held_out_loss" in line]
    return min(judged, key=lambda best: best.loss, default=None)


def comparison(best: Best | None, reference: Level | None) -> Table:
    """The held-out losses side by side."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("held-out text")
    table.add_column("nats/token", justify="right")
    table.add_column("bits/byte", justify="right")
    table.add_column("")
    if reference is not None:
        table.add_row(reference.name, f"{reference.loss:.3f}", f"{reference.bits_per_byte:.3f}")
    if best is not None:
        below = "" if reference is None else _distance(best.loss, reference)
        cells = (f"this model, step {best.step:,}", f"{best.loss:.3f}", f"{best.bits_per_byte:.3f}")
        table.add_row(*(f"[bold]{cell}[/]" for cell in cells), below)
    return table


def _distance(loss: float, reference: Level) -> str:
    if loss < reference.loss:
        return f"[green]{reference.loss - loss:.3f} nats/token better[/]"
    return f"[yellow]{loss - reference.loss:.3f} nats/token worse[/]"


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def heading() -> Text:
    lines = ["".join(part[i].rjust(width) for part, width in zip(HEADINGS, WIDTHS, strict=True)) for i in (0, 1)]
    return Text("\n".join(lines), style="dim")
