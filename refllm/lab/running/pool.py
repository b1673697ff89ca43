"""Many tasks side by side: in processes with one BLAS thread each, or wherever MPI or Dask sends them.

Small models gain nothing from a product split between threads. Two processes of one thread each train twice as many.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from refllm.atomic import write_atomically
from refllm.lab.running.board import watched
from refllm.lab.running.progress import Told, path_of, remove, telling

EXECUTORS = ("processes", "mpi", "dask")
Function = Callable[[Any], dict[str, Any]]
Task = tuple[str, Any]  # a name, which is its file's too, and what the function is called with


def each(
    function: Function,
    tasks: Sequence[Task],
    workers: int,
    folder: Path | None = None,
    executor: str = "processes",
    *,
    costs: Sequence[float] | None = None,
    later: float = 0.0,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Call the function with every task's argument, `workers` at a time; yield each name and result when it is done.

    function: defined in a module, so that another process can import it; its result is written as JSON
    folder: where results are kept as NAME.json; a task whose result is there is not run again. None: they are not kept
    executor: processes; mpi (mpi4py.futures, under mpiexec -n … python -m mpi4py.futures) or dask (a local cluster, or the one
    that DASK_SCHEDULER_ADDRESS names), whose workers are as many as they have
    costs: of the tasks, in any one unit, equal if not given    later: the cost of what the caller does when they are done; both
    serve to estimate the time that is left (see `board`)
    Raises ValueError for two tasks of one name or an unknown executor, ImportError where its library is missing, and what a
    task raises, a ValueError with the task's name; results that are there by then stay.
    """
    names = [name for name, _ in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks are called {next(n for n in names if names.count(n) > 1)!r}; each needs its own name.")
    board = watched()
    if board:
        board.open(folder, list(zip(names, costs or [1.0] * len(names), strict=True)), later)
    waiting = []
    for name, argument in tasks:
        kept = folder / f"{name}.json" if folder else None
        if kept and kept.is_file():
            if board:
                board.end(name, Told(), None)
            yield name, json.loads(kept.read_text(encoding="utf-8"))
        else:
            waiting.append((name, argument))
    told = {name: path_of(folder, name) for name, _ in waiting} if folder else {}
    remove(told.values())  # what a run that was killed left
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    calls = [Call(name, argument, told.get(name) if board else None) for name, argument in waiting]
    try:
        for name, done in _run(function, calls, workers, executor):
            if folder:
                write_atomically(folder / f"{name}.json", json.dumps(done.result).encode())
            if board:
                board.end(name, done.told, done.seconds)
            yield name, done.result
    finally:
        remove(told.values())


class Call(NamedTuple):
    """What a worker is given."""

    name: str
    argument: Any
    path: Path | None  # where it tells how far it is; None: nowhere


class Done(NamedTuple):
    """What it gives back."""

    result: dict[str, Any]
    told: Told
    seconds: float


def _run(function: Function, calls: Sequence[Call], workers: int, executor: str) -> Iterator[tuple[str, Done]]:
    if executor not in EXECUTORS:
        raise ValueError(f"executor={executor!r} is not known; choose one of {', '.join(EXECUTORS)}.")
    if executor == "processes" and min(workers, len(calls)) <= 1:
        for call in calls:
            with named(call.name):
                yield call.name, at_work(function, call)
        return
    with _open(executor, min(workers, len(calls))) as pool:
        running = {pool.submit(at_work, function, call): call.name for call in calls}
        try:
            for future in as_completed(running):
                with named(running[future]):
                    yield running[future], future.result()
        finally:  # on an error or Ctrl-C too: what has not begun never does
            for future in running:
                future.cancel()


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a task's name before the message of its ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def at_work(function: Function, call: Call) -> Done:
    """Call the function with one BLAS thread."""
    import threadpoolctl  # only here: finding the libraries takes milliseconds

    began = time.perf_counter()
    with threadpoolctl.threadpool_limits(1), telling(call.path) as told:
        result = function(call.argument)
        return Done(result, told(), time.perf_counter() - began)


def _open(executor: str, workers: int) -> AbstractContextManager[Executor]:
    if executor == "mpi":
        return _imported("mpi4py.futures", "mpi4py", "mpi").MPIPoolExecutor()
    return _dask() if executor == "dask" else _processes(workers)


@contextmanager
def _dask() -> Iterator[Executor]:
    """The cluster that DASK_SCHEDULER_ADDRESS names, or one on this machine, which is closed in the end."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    local = {} if address else {"threads_per_worker": 1}
    with _imported("dask.distributed", "distributed", "dask").Client(address, **local) as client:
        yield client.get_executor()


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Processes that end at once on an error or Ctrl-C, or when this process is killed."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    with (
        reader,
        writer,
        ProcessPoolExecutor(workers, mp_context=context, initializer=end_when_closed, initargs=(reader,)) as pool,
    ):
        try:
            yield pool
        except BaseException:
            writer.close()
            raise


def end_when_closed(reader: Connection) -> None:
    """In a pool's process: exit as soon as the other end of the pipe is closed, rather than train on for nobody.

    Ctrl-C, which a terminal sends to every process, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        reader.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _imported(module: str, package: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this executor needs {package}, and it is not installed: pip install 'refllm[{extra}]'.") from error
