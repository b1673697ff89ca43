"""Two threads for NumPy: NumPy's functions let other threads run while they compute, BLAS is held to one thread meanwhile.

A training step of many small functions gains more from two half-batches side by side than from BLAS splitting each product.
"""

import contextvars
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

MOST = 4  # threads: each holds a gradient of its own, and Python lets only one at a time run between NumPy's functions


@cache
def _blas() -> list[Any]:
    """Controllers of the BLAS libraries in this process; empty where none lets itself be controlled (Accelerate)."""
    import threadpoolctl  # only here: finding the libraries takes milliseconds

    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


class _Held:
    """How many callers hold BLAS to one thread, and how many threads each library had before the first did."""

    lock = threading.Lock()
    callers = 0
    before: tuple[int, ...] = ()


def threads() -> int:
    """How many threads there are to use: as many as BLAS was given, at most as many as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with _Held.lock:
        given = _Held.before if _Held.callers else tuple(library.num_threads for library in _blas())
    return min(MOST, cores, *given)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread, in the whole process. Several callers may hold it; the last one lets go."""
    with _Held.lock:
        if _Held.callers == 0:
            _Held.before = tuple(library.num_threads for library in _blas())
            for library in _blas():
                library.set_num_threads(1)
        _Held.callers += 1
    try:
        yield
    finally:
        with _Held.lock:
            _Held.callers -= 1
            if _Held.callers == 0:
                for library, n in zip(_blas(), _Held.before, strict=True):
                    library.set_num_threads(n)


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="refllm")


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads, and nobody who holds BLAS
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the jobs side by side, the first in this thread, each in a copy of this thread's context; return their results."""
    others = [_helpers().submit(contextvars.copy_context().run, job) for job in jobs[1:]]
    try:
        first = jobs[0]()
    finally:
        for other in others:  # even when the first failed: none may go on behind the caller's back
            other.exception()
    return [first, *(other.result() for other in others)]


def in_parts(work: Callable[[int, int], None], n: int, least: int) -> None:
    """Run work(start, stop) over 0 … n, in parts side by side if n is at least `least`.

    The work must give the same bits wherever it is split.
    """
    parts = threads() if n >= least else 1
    ends = [n * i // parts for i in range(parts + 1)]
    together([lambda a=a, b=b: work(a, b) for a, b in zip(ends, ends[1:], strict=False)])
