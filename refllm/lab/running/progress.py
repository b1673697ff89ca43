"""How far the tasks of a pool are: each writes it to a small file while it runs, which the process that waits for them reads.

FOLDER/NAME.progress    {"done": 1204, "of": 8192, "loss": 1.62, "models": 1}

A file is written only while a board watches, once a second at most, and is removed when its task ends. Where it cannot be
written or read, as on machines that do not share the folder, the task still runs, and counts as waiting until its end.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

INTERVAL = 1.0  # seconds between two writings
SIZE = 160  # bytes of a file, padded with blanks, so that nothing of a longer text before it stays


class Told(NamedTuple):
    """What a task reports."""

    done: int = 0  # updates made of the model it trains now
    of: int = 0  # how many there will be; 0 where it does not train
    loss: float | None = None  # of the last batch, nats per token
    models: int = 0  # begun so far


Tell = Callable[[int, Callable[[], float]], None]  # given the updates made, and a function that gives the last one's loss


class Teller:
    """Writes what a task tells to its file."""

    def __init__(self, path: Path):
        self.path, self.told, self.due = path, Told(), 0.0
        self.write(os.O_CREAT)

    def begin(self, of: int) -> Tell:
        self.told, self.due = Told(0, of, None, self.told.models + 1), 0.0
        return self.tell

    def tell(self, done: int, loss: Callable[[], float]) -> None:
        if time.monotonic() >= self.due or done == self.told.of:
            self.told = self.told._replace(done=done, loss=loss())  # only here is the loss read from its device
            self.write()

    def write(self, create: int = 0) -> None:
        """Put it in the file in one call, over what stood there: it takes microseconds, a new file in its place milliseconds.

        A file that was removed is not written again, by a task that goes on where nobody waits for it any more.
        """
        self.due = time.monotonic() + INTERVAL
        with suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | create, 0o666)
            try:
                os.write(file, json.dumps(self.told._asdict()).ljust(SIZE).encode())
            finally:
                os.close(file)


_teller: ContextVar[Teller | None] = ContextVar("teller", default=None)


def begin(of: int) -> Tell:
    """Report that the task begins to train a model for so many updates. Returns the function to call after each of them.

    A call costs a look at the clock, and nothing where no board watches.
    """
    teller = _teller.get()
    return _silent if teller is None else teller.begin(of)


def _silent(done: int, loss: Callable[[], float]) -> None:
    pass


@contextmanager
def telling(path: Path | None) -> Iterator[Callable[[], Told]]:
    """The task inside reports to this file; None: to none. Gives a function that returns the last report."""
    if path is None:
        yield Told
        return
    teller = Teller(path)
    before = _teller.set(teller)
    try:
        yield lambda: teller.told
    finally:
        _teller.reset(before)
        remove([path])


def path_of(folder: Path, name: str) -> Path:
    """The file of a task."""
    return folder.absolute() / f"{name}.progress"


def read(path: Path) -> Told | None:
    """A task's last report; None where there is nothing to read."""
    try:
        return Told(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def remove(paths: Iterable[Path]) -> None:
    """Remove files of tasks that have ended or were killed."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
