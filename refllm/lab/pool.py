"""Many tasks side by side: in processes with one BLAS thread each, or wherever MPI or Dask sends them.

Small models gain nothing from a product split between threads. Two processes of one thread each train twice as many.
"""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refllm.atomic import write_atomically

EXECUTORS = ("processes", "mpi", "dask")
Task = tuple[str, Any]  # a name, which is its file's too, and what the function is called with


def each(
    function: Callable[[Any], dict[str, Any]],
    tasks: Sequence[Task],
    workers: int,
    folder: Path | None = None,
    executor: str = "processes",
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Call the function with every task's argument, `workers` at a time; yield names and results as they are there.

    function: of a module, so that another process finds it; its result is written as JSON
    folder: where results are kept; a task whose result is there is not run again. None: nowhere
    executor: processes; mpi (mpi4py.futures, under mpiexec -n … python -m mpi4py.futures) or dask (a local cluster, or the one
    that DASK_SCHEDULER_ADDRESS names), whose workers are as many as they have
    Raises ValueError for two tasks of one name or an unknown executor, ImportError where its library is missing, and what a
    task raises, with the task's name; results that are there by then stay.
    """
    names = [name for name, _ in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks are called {next(n for n in names if names.count(n) > 1)!r}; each needs its own name.")
    waiting = []
    for name, argument in tasks:
        kept = folder / f"{name}.json" if folder else None
        if kept and kept.is_file():
            yield name, json.loads(kept.read_text(encoding="utf-8"))
        else:
            waiting.append((name, argument))
    for name, result in _run(function, waiting, workers, executor):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"{name}.json", json.dumps(result).encode())
        yield name, result


def _run(function: Callable, tasks: Sequence[Task], workers: int, executor: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if executor not in EXECUTORS:
        raise ValueError(f"executor={executor!r} is not known; choose one of {', '.join(EXECUTORS)}.")
    if executor == "processes" and min(workers, len(tasks)) <= 1:
        for name, argument in tasks:
            with named(name):
                yield name, single_threaded(function, argument)
        return
    with _open(executor, min(workers, len(tasks))) as pool:
        running = {pool.submit(single_threaded, function, argument): name for name, argument in tasks}
        try:
            for future in as_completed(running):
                with named(running[future]):
                    yield running[future], future.result()
        finally:  # also where an error or Ctrl-C came between: what has not begun never does
            for future in running:
                future.cancel()


@contextmanager
def named(name: str) -> Iterator[None]:
    """Add a task's name to what it finds wrong."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def single_threaded(function: Callable[[Any], dict[str, Any]], argument: Any) -> dict[str, Any]:
    """Call the function while BLAS has one thread."""
    import threadpoolctl  # only here: finding the libraries takes milliseconds

    with threadpoolctl.threadpool_limits(1):
        return function(argument)


def report_threads(argument: Any) -> dict[str, Any]:
    """A task that tells how many threads each BLAS library has where it runs."""
    import threadpoolctl

    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
    return {"argument": argument, "threads": [library["num_threads"] for library in libraries]}


def _open(executor: str, workers: int) -> Executor:
    if executor == "mpi":
        return _imported("mpi4py.futures", "mpi4py", "mpi").MPIPoolExecutor()
    if executor == "dask":
        client = _imported("dask.distributed", "distributed", "dask").Client(
            os.environ.get("DASK_SCHEDULER_ADDRESS"),
            **({} if "DASK_SCHEDULER_ADDRESS" in os.environ else {"threads_per_worker": 1}),
        )
        return client.get_executor()
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """In a process of a pool: end as soon as the one that began it has, killed for instance, and not train on for nobody."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _imported(module: str, package: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this executor needs {package}, and it is not installed: pip install 'refllm[{extra}]'.") from error
