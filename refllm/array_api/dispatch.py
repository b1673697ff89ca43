"""Arrays carry their backend: `namespace(x)` finds it by x's type, and `@op` runs its kernel of that name if it has one."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .backend import Backend, Namespace

OPS: dict[str, Callable] = {}  # every @op by name


class _Registered:
    """A backend as dispatch sees it. All types of its arrays share this one entry, so a change reaches them all at once."""

    __slots__ = ("backend", "kernels", "xp")

    def __init__(self, backend: Backend, kernels: Mapping[str, Callable]):
        self.backend: Backend = backend
        self.xp: Namespace = backend.xp
        self.kernels: Mapping[str, Callable] = kernels  # those in force


class _ByType(dict):
    """Entries by array type. A type not seen before is looked up by its bases, then by the library it comes from."""

    def __missing__(self, array_type: type) -> _Registered:
        from .registry import load_for_type

        load_for_type(array_type)
        for base in array_type.__mro__:
            if base in self:
                self[array_type] = self[base]
                return self[base]
        known = sorted({entry.backend.name for entry in list(self.values())})
        came = (
            array_type.__qualname__
            if array_type.__module__ == "builtins"
            else f"{array_type.__module__}.{array_type.__qualname__}"
        )
        raise TypeError(
            f"{came} is not an array of any loaded backend ({', '.join(known) or 'none'}); "
            "make arrays with refllm.load_backend(name).xp.from_numpy or .asarray."
        )


_BY_TYPE = _ByType()


def kernels_wanted() -> bool:
    """What REFLLM_KERNELS says: on, the default, or off. Raises ValueError for anything else."""
    said = os.environ.get("REFLLM_KERNELS") or "on"
    if said.lower() not in ("on", "off", "1", "0"):
        raise ValueError(f"REFLLM_KERNELS={said!r} is neither on nor off; off turns every backend's kernels off.")
    return said.lower() in ("on", "1")


def register(backend: Backend) -> Backend:
    """Make a backend's arrays known, in place of an earlier backend of the same arrays.

    Its kernels are in force unless REFLLM_KERNELS=off.
    """
    entry = _Registered(backend, backend.kernels if kernels_wanted() else {})
    for array_type in (backend.array_type, *backend.scalar_types):
        before = _BY_TYPE.get(array_type)
        for known, known_entry in list(_BY_TYPE.items()):
            if known_entry is before and issubclass(known, array_type):
                _BY_TYPE[known] = entry
        _BY_TYPE[array_type] = entry
    return backend


def backend_of(x: Any) -> Backend:
    """The backend whose array x is."""
    return _BY_TYPE[type(x)].backend


def namespace(x: Any) -> Namespace:
    """The array API of x's backend."""
    return _BY_TYPE[type(x)].xp


def kernels_of(backend: Backend) -> Mapping[str, Callable]:
    """The kernels in force for a backend: all of its own, none, or those set by `kernels`."""
    return _BY_TYPE[backend.array_type].kernels


@contextmanager
def kernels(backend: Backend, table: Mapping[str, Callable]) -> Iterator[None]:
    """Put a table of kernels in force for a backend: `{}` for the plain bodies, `backend.kernels` for its own.

    The change holds for the whole process, threads included, until the block ends.
    """
    entry = _BY_TYPE[backend.array_type]
    before, entry.kernels = entry.kernels, table
    try:
        yield
    finally:
        entry.kernels = before


def op(reference: Callable) -> Callable:
    """Mark a readable function as one that a backend may replace, by its name, with a kernel.

    The first argument must be an array: its backend decides. The readable body stays callable as `.reference`.
    """
    name = reference.__name__

    @functools.wraps(reference)
    def call(*args, **kwargs):  # a name for the first argument would cost another 50 ns a call
        try:
            x = args[0]
        except IndexError:
            raise TypeError(f"{name}() takes its first argument, an array, by position: its type chooses the backend.") from None
        return _BY_TYPE[type(x)].kernels.get(name, reference)(*args, **kwargs)

    call.reference = reference  # type: ignore[attr-defined]  # functions take attributes; typing does not say so
    OPS[name] = call
    return call
