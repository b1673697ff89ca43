"""Which backends there are, and the one in which new arrays are made: an argument, `use(...)`, REFLLM_BACKEND, or NumPy."""

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .backend import Backend
from .dispatch import register

GROUP = "refllm.backends"  # the entry-point group in which third parties add backends


class BuiltIn(NamedTuple):
    module: str  # imported by name, and only when asked for
    library: str  # the package that must be importable
    install: str  # the command that installs it


BUILT_IN = {
    "numpy": BuiltIn("refllm.backends.numpy_backend", "numpy", "pip install numpy"),
    "mlx": BuiltIn("refllm.backends.mlx_backend", "mlx.core", "pip install 'refllm[mlx]'"),
    "cupy": BuiltIn(
        "refllm.backends.cupy_backend", "cupy", "pip install 'refllm[cupy13]' (CUDA 13) or 'refllm[cupy12]' (CUDA 12)"
    ),
    "strict": BuiltIn("refllm.backends.strict_backend", "array_api_strict", "pip install 'refllm[test]'"),
}

_LOADED: dict[str, Backend] = {}
_DEFAULT: ContextVar[Backend | None] = ContextVar("refllm_backend", default=None)


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Third-party backends by name."""
    return {e.name: e for e in importlib.metadata.entry_points(group=GROUP)}


def is_installed(name: str) -> bool:
    """Whether the library behind a backend can be imported; says nothing of a device."""
    if name in BUILT_IN:
        top = BUILT_IN[name].library.partition(".")[0]
        return importlib.util.find_spec(top) is not None
    return name in entry_points()


def names() -> list[str]:
    """Every backend known by name, installed or not."""
    return sorted({*BUILT_IN, *entry_points()})


def load(name: str | Backend | None = None) -> Backend:
    """Return a backend, importing its library at first use.

    name: a backend's name; None means the one set by `use`, else REFLLM_BACKEND, else NumPy.
    Raises ValueError for an unknown name and ImportError for one whose library or device is missing.
    """
    if isinstance(name, Backend):
        return name
    source = "backend"
    if name is None:
        chosen = _DEFAULT.get()
        if chosen is not None:
            return chosen
        name, source = os.environ.get("REFLLM_BACKEND") or "numpy", "REFLLM_BACKEND"
    if name in _LOADED:
        return _LOADED[name]
    if name in BUILT_IN:
        if not is_installed(name):
            raise ImportError(f"the {name} backend needs a package that is not installed: {BUILT_IN[name].install}.")
        backend = importlib.import_module(BUILT_IN[name].module).backend
    elif name in (third_party := entry_points()):
        found = third_party[name].load()
        backend = found if isinstance(found, Backend) else found.backend
    else:
        installed = ", ".join(n for n in names() if is_installed(n))
        raise ValueError(f"{source}={name!r} is not a backend; choose one of {', '.join(names())} (installed: {installed}).")
    _LOADED[name] = register(backend)
    return backend


def load_for_type(array_type: type) -> None:
    """Load the built-in backend whose library an array type comes from, if there is one."""
    library = array_type.__module__.partition(".")[0]
    for name, built_in in BUILT_IN.items():
        if built_in.library.partition(".")[0] == library and name not in _LOADED:
            load(name)


@contextmanager
def use(name: str | Backend) -> Iterator[Backend]:
    """Create parameters, caches and batches in this backend inside the block; computation follows the arrays anyway."""
    backend = load(name)
    token = _DEFAULT.set(backend)
    try:
        yield backend
    finally:
        _DEFAULT.reset(token)
