"""The tasks of a pool while it works: which are done, running and waiting, and when all will be done.

with watching() as board:
    …                       # whatever calls pool.each
    board.look()            # meanwhile, from another thread: the tasks as they are now
"""

import heapq
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from refllm.lab.running.progress import Told, path_of, read

DONE, RUNNING, WAITING = "done", "running", "waiting"
ORDER = (DONE, RUNNING, WAITING)
TELLING = 0.02  # once this share of a task is done, its whole time is estimated


@dataclass(frozen=True)
class Task:
    """A task and how far it is."""

    name: str
    cost: float = 1.0  # in one unit for all tasks
    state: str = WAITING
    told: Told = Told()
    began: float = 0.0  # when `look` first saw it at work, by its clock
    seconds: float | None = None  # so far, or in all; None while it waits, and where its result was kept from before


class Board:
    """The tasks of the pool that is at work."""

    def __init__(self) -> None:
        self.title, self.later, self.workers = "", 0.0, 0  # workers: the most that were seen at work at once
        self._tasks: dict[str, Task] = {}
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def open(self, folder: Path | None, costs: Sequence[tuple[str, float]], later: float) -> None:
        """A pool begins.

        folder: of its results    costs: its tasks' names and costs    later: the cost of what follows when they are done
        """
        with self._lock:
            self._folder, self.later, self.workers = folder, later, 0
            self.title = f"{folder.parent.name}, {folder.name}" if folder else ""
            self._tasks = {name: Task(name, cost) for name, cost in costs}

    def end(self, name: str, told: Told, seconds: float | None) -> None:
        """A task is done, after those that were done before. seconds: that it took; None where its result was kept from before"""
        with self._lock:
            self._tasks[name] = replace(self._tasks.pop(name), state=DONE, told=told, seconds=seconds)

    def look(self, now: float | None = None) -> list[Task]:
        """The tasks: those done, in the order of their ends, then those at work, the first begun first, then those that wait."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if self._folder:
                self._tasks = {name: _seen(task, self._folder, now) for name, task in self._tasks.items()}
            tasks = list(self._tasks.values())
            self.workers = max(self.workers, sum(task.state == RUNNING for task in tasks))
        return sorted(tasks, key=lambda task: (ORDER.index(task.state), task.began if task.state == RUNNING else 0))


def _seen(task: Task, folder: Path, now: float) -> Task:
    """A task with what its file says now; one whose file is gone has ended, though its result may not have arrived yet."""
    path = path_of(folder, task.name)
    if task.state == DONE:
        return task
    if (told := read(path)) is not None:
        began = task.began if task.state == RUNNING else now
        return replace(task, state=RUNNING, told=told, began=began, seconds=now - began)
    return replace(task, state=DONE) if task.state == RUNNING and not path.exists() else task


def models(tasks: Sequence[Task]) -> int:
    """How many models a task trains, by those that are done; 1 until then."""
    return max((task.told.models for task in tasks if task.state == DONE and task.told.models), default=1)


def share(task: Task, n_models: int) -> float:
    """The share of a task that is done, if it trains so many models; 0 where it does not report."""
    told = task.told
    return (told.models - 1 + told.done / told.of) / max(n_models, told.models) if told.of else 0.0


def whole(task: Task, n_models: int) -> float | None:
    """The seconds that the whole task takes at its pace so far; None while too little of it is done to tell."""
    part = 1.0 if task.state == DONE else share(task, n_models)
    return task.seconds / part if task.seconds and part >= TELLING else None


def seconds_left(tasks: Sequence[Task], workers: int, later: float = 0.0) -> float | None:
    """The seconds until all tasks, and what follows them, are done; None while no task's pace is known.

    A task of unknown pace takes as long, for its cost, as the known ones do on average; waiting tasks are begun in their order,
    each by the first worker that is free.

    later: the cost of what follows, in the unit of the tasks' costs
    """
    n_models = models(tasks)
    known = {task.name: seconds for task in tasks if (seconds := whole(task, n_models)) is not None}
    if not known:
        return None
    pace = sum(known.values()) / sum(task.cost for task in tasks if task.name in known)
    ends = [max(0.0, known.get(t.name, pace * t.cost) - (t.seconds or 0.0)) for t in tasks if t.state == RUNNING]
    ends += [0.0] * (max(1, workers) - len(ends))
    heapq.heapify(ends)
    for task in tasks:
        if task.state == WAITING:
            heapq.heapreplace(ends, ends[0] + pace * task.cost)
    return max(ends) + pace * later / max(1, workers)


_board: ContextVar[Board | None] = ContextVar("board", default=None)


@contextmanager
def watching() -> Iterator[Board]:
    """Give a board that shows the tasks of every pool that works inside."""
    board = Board()
    before = _board.set(board)
    try:
        yield board
    finally:
        _board.reset(before)


def watched() -> Board | None:
    """The board in use; None outside of `watching`."""
    return _board.get()
