"""Arrays carry their backend: `namespace(x)` finds it by x's type, and `@op` runs its kernel of that name if it has one."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .backend import Backend, Namespace

OPS: dict[str, Callable] = {}  # every @op by name


class _ByType(dict):
    """Backends by array type. A type not seen before is looked up by its bases, then by the library it comes from."""

    def __missing__(self, array_type: type) -> Backend:
        for base in array_type.__mro__[1:]:
            if base in self:
                self[array_type] = self[base]
                _KERNELS[array_type] = _KERNELS[base]
                return self[base]
        from .registry import load_for_type

        load_for_type(array_type)
        if array_type in self:
            return self[array_type]
        raise TypeError(
            f"{array_type.__module__}.{array_type.__qualname__} is not an array of any loaded backend "
            f"({', '.join(sorted({b.name for b in self.values()})) or 'none'}); make arrays with refllm.load(...).xp.from_numpy."
        )


_BY_TYPE = _ByType()
_KERNELS: dict[type, Mapping[str, Callable]] = {}  # the kernels in force, by array type
_NONE: Mapping[str, Callable] = {}


def register(backend: Backend) -> Backend:
    """Make a backend's arrays known; its kernels are in force unless REFLLM_KERNELS=off."""
    off = os.environ.get("REFLLM_KERNELS", "on").lower() in ("off", "0", "no")
    for array_type in [t for t, known in _BY_TYPE.items() if known.name == backend.name] + [backend.array_type]:
        _BY_TYPE[array_type] = backend
        _KERNELS[array_type] = _NONE if off else backend.kernels
    return backend


def backend_of(x: Any) -> Backend:
    """The backend whose array x is."""
    return _BY_TYPE[type(x)]


def namespace(x: Any) -> Namespace:
    """The array API of x's backend."""
    return _BY_TYPE[type(x)].xp


def kernels_of(backend: Backend) -> Mapping[str, Callable]:
    """The kernels in force for a backend: all of its own, none, or those set by `kernels`."""
    return _KERNELS[backend.array_type]


@contextmanager
def kernels(backend: Backend, table: Mapping[str, Callable]) -> Iterator[None]:
    """Put a table of kernels in force for a backend: `{}` for the plain bodies, `backend.kernels` for its own.

    The change holds for the whole process, threads included, until the block ends.
    """
    before = {t: _KERNELS[t] for t, known in _BY_TYPE.items() if known.array_type is backend.array_type}
    try:
        for array_type in before:
            _KERNELS[array_type] = table
        yield
    finally:
        _KERNELS.update(before)


def op(reference: Callable) -> Callable:
    """Mark a readable function as one that a backend may replace, by its name, with a kernel.

    The first argument must be an array: its backend decides. The readable body stays callable as `.reference`.
    """
    name = reference.__name__

    @functools.wraps(reference)
    def call(x, *args, **kwargs):
        array_type = type(x)
        if array_type not in _KERNELS:
            _BY_TYPE[array_type]
        return (_KERNELS[array_type].get(name) or reference)(x, *args, **kwargs)

    call.reference = reference  # type: ignore[attr-defined]  # functions take attributes; typing does not say so
    OPS[name] = call
    return call
