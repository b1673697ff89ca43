"""An experiment on a terminal while it runs: its tasks, how far each is and to which loss, and when all are done.

Where the output is no terminal there is no table, only the lines that the experiment tells.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from refllm.cli.figures import duration
from refllm.lab.running import board
from refllm.lab.running.board import DONE, RUNNING, WAITING, Board, Task, models, seconds_left, share, whole

WIDTH = 79  # of the table at most
BESIDE = 7  # rows of a terminal that are left to other lines
MOST = 40  # tasks that are shown at most


@contextmanager
def watching(console: Console, folder: Path) -> Iterator[None]:
    """Show the tasks of all pools that work inside, where the console is a terminal.

    On Ctrl-C it says how the experiment goes on, and lets the KeyboardInterrupt through.
    """
    try:
        if not console.is_terminal:
            yield
            return
        with board.watching() as seen:
            tasks = partial(drawn, seen, console)
            with Live(console=console, get_renderable=tasks, refresh_per_second=1, transient=True, redirect_stdout=False):
                yield
    except KeyboardInterrupt:
        console.print(f"Stopped; what is done is kept in {folder}, and the same command continues from there.", soft_wrap=True)
        raise


def drawn(seen: Board, console: Console) -> RenderableType:
    """The tasks of the pool that is at work."""
    tasks = seen.look()
    if not tasks:
        return Text("")
    rows = min(MOST, max(1, console.height - BESIDE))
    left = seconds_left(tasks, seen.workers, seen.later)
    return Group(
        Text(seen.title, style="bold"), table(chosen(tasks, rows), models(tasks)), Text(counts(tasks, left), style="dim")
    )


def chosen(tasks: Sequence[Task], rows: int) -> list[Task]:
    """As many tasks as there are rows: those at work, and around them as many that ended last and that are next."""
    done, running, waiting = ([task for task in tasks if task.state == state] for state in (DONE, RUNNING, WAITING))
    spare = max(0, rows - len(running))
    n_done = min(len(done), max(spare - len(waiting), spare // 2))
    return done[len(done) - n_done :] + running[:rows] + waiting[: spare - n_done]


def table(shown: Sequence[Task], n_models: int) -> Table:
    """A row for each task that is shown."""
    grid = Table(box=None, padding=(0, 0, 0, 1), header_style="dim", pad_edge=False, width=WIDTH)
    grid.add_column("task", no_wrap=True, ratio=1)
    grid.add_column("", width=10)
    for heading, width in (("updates", 16), ("loss", 6), ("time", 9), ("left", 9)):
        grid.add_column(heading, width=width, justify="right", no_wrap=True)
    for task in shown:
        grid.add_row(*cells(task, n_models), style="" if task.state == RUNNING else "dim")
    return grid


def cells(task: Task, n_models: int) -> tuple[RenderableType, ...]:
    """A task's row. loss: of its last batch, nats per token    n_models: that a task of its pool trains"""
    bar: RenderableType = ""
    left = None
    if task.state == RUNNING:
        bar = ProgressBar(total=1.0, completed=share(task, n_models), width=10)
        left = whole(task, n_models)
    loss = "" if task.told.loss is None else f"{task.told.loss:.3f}"
    seconds = task.seconds or 0.0
    spent = "" if task.seconds is None else duration(seconds)
    return task.name, bar, how_far(task), loss, spent, "" if left is None else duration(left - seconds)


def how_far(task: Task) -> str:
    """Updates made, of how many; the model's number where it is not the first."""
    told = task.told
    if task.state == DONE:
        return "was there" if task.seconds is None else "done"
    if not told.of:
        return "waits" if task.state == WAITING else "at work"
    percent, updates = f"{told.done / told.of:.0%}", f"{told.done:,} of {told.of:,}"
    if told.models > 1:
        return f"model {told.models}, {percent}"
    return updates if len(updates) <= 16 else percent


def counts(tasks: Sequence[Task], left: float | None) -> str:
    """How many are in which state, and when all are done."""
    states = ((DONE, "done"), (RUNNING, "at work"), (WAITING, "waiting"))
    said = ", ".join(f"{n} {word}" for state, word in states if (n := sum(task.state == state for task in tasks)))
    if not left:
        return f"{said}."
    at = time.strftime("%H:%M", time.localtime(time.time() + left))
    return f"{said}; all done in about {duration(left)}, at {at}."
