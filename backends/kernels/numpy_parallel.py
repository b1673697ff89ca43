"""Threads for NumPy: NumPy's functions let other threads run while they compute, BLAS is held to one thread meanwhile.

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


class BlasThreads:
    """How many threads BLAS has, which is one for the whole process while anybody holds it so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.before: list[int] = []  # how many each library had before the first holder came

    def given(self) -> list[int]:
        """How many threads each library has when nobody holds it; empty where none lets itself be asked (Accelerate)."""
        with self.lock:
            return self.before if self.holders else [library.num_threads for library in blas_libraries()]

    @contextmanager
    def held_to_one(self) -> Iterator[None]:
        """Hold BLAS to one thread. Several callers may; the last one to leave gives the threads back."""
        with self.lock:
            if self.holders == 0:
                self.before = [library.num_threads for library in blas_libraries()]
                for library in blas_libraries():
                    library.set_num_threads(1)
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if self.holders == 0:
                    for library, n in zip(blas_libraries(), self.before, strict=True):
                        library.set_num_threads(n)


@cache
def blas_libraries() -> list[Any]:
    """threadpoolctl's controllers of the BLAS libraries that were loaded when this was first asked."""
    import threadpoolctl  # only here: finding the libraries takes milliseconds

    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


@cache
def blas_threads() -> BlasThreads:
    """The one record of them."""
    return BlasThreads()


@cache
def helpers() -> ThreadPoolExecutor:
    """Threads that wait for work."""
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="refllm")


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads, and nobody in it holds BLAS
    os.register_at_fork(after_in_child=helpers.cache_clear)
    os.register_at_fork(after_in_child=blas_threads.cache_clear)


def threads() -> int:
    """How many threads there are to use: as many as BLAS was given, at most as many as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores, *blas_threads().given())


def idle_threads() -> int:
    """As many as `threads`, but 1 while somebody holds BLAS to one: then they are at work already."""
    return 1 if blas_threads().holders else threads()


def together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the jobs side by side, the first in this thread, each in a copy of this thread's context; return their results."""
    others = [helpers().submit(contextvars.copy_context().run, job) for job in jobs[1:]]
    try:
        first = jobs[0]()
    finally:
        for other in others:  # even when the first failed: none may go on behind the caller's back
            other.exception()
    return [first, *(other.result() for other in others)]


def shared_out(work: Callable[[Any], None], pieces: Sequence[Any], least: int) -> None:
    """Run work(piece) for every piece, on several threads if there are at least so many and the threads are idle.

    The pieces must not depend on one another.
    """
    parts = min(idle_threads(), len(pieces)) if len(pieces) >= least else 1

    def some(mine: Sequence[Any]) -> None:
        for piece in mine:
            work(piece)

    if parts == 1:
        some(pieces)
        return
    with blas_threads().held_to_one():
        together([lambda mine=pieces[i::parts]: some(mine) for i in range(parts)])


def in_parts(work: Callable[[int, int], None], n: int, least: int) -> None:
    """Run work(start, stop) over 0 … n, in parts side by side if n is at least `least`.

    The work must give the same bits wherever it is split.
    """
    parts = threads() if n >= least else 1
    ends = [n * i // parts for i in range(parts + 1)]
    together([lambda a=a, b=b: work(a, b) for a, b in zip(ends, ends[1:], strict=False)])
