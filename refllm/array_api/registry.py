"""Which backends there are, and the one in which new arrays are made: an argument, `use(...)`, REFLLM_BACKEND, or NumPy."""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .backend import Backend
from .dispatch import kernels_of, register

GROUP = "refllm.backends"  # the entry-point group in which third parties add backends


class BuiltIn(NamedTuple):
    module: str  # imported by name, and only when asked for
    library: str  # the package that must be importable
    install: str  # the command that installs it here


BUILT_IN = {
    "numpy": BuiltIn("refllm.backends.numpy_backend", "numpy", "pip install numpy"),
    "mlx": BuiltIn(
        "refllm.backends.mlx_backend",
        "mlx",
        "pip install mlx" if sys.platform == "darwin" else "pip install 'mlx[cpu]' (or 'mlx[cuda12]', 'mlx[cuda13]' for NVIDIA)",
    ),
    "cupy": BuiltIn(
        "refllm.backends.cupy_backend", "cupy", "pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]' for CUDA 12)"
    ),
    "strict": BuiltIn("refllm.backends.strict_backend", "array_api_strict", "pip install array-api-strict"),
}


class Description(NamedTuple):
    """What `refllm backends` tells of one backend; where `missing` says why it cannot compute here, the rest may be empty."""

    name: str
    version: str
    device: str
    dtypes: tuple[str, ...]
    kernels: tuple[str, ...]  # the ops replaced, of those in force
    missing: str  # why, and the command that helps; empty when it can compute


_LOADED: dict[str, Backend] = {}
_DEFAULT: ContextVar[Backend | None] = ContextVar("refllm_backend", default=None)


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Third-party backends by name."""
    return {e.name: e for e in importlib.metadata.entry_points(group=GROUP)}


def is_installed(name: str) -> bool:
    """Whether the library behind a backend can be found; says nothing of a device."""
    if name in BUILT_IN:
        return importlib.util.find_spec(BUILT_IN[name].library) is not None
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
    if name not in _LOADED:
        backend = _find(name, source)
        if backend.unavailable:
            raise ImportError(backend.unavailable)
        _LOADED[name] = register(backend)
    return _LOADED[name]


def _find(name: str, source: str) -> Backend:
    """Import a backend by name; source is where the name came from, for the error."""
    if name in BUILT_IN:
        if not is_installed(name):
            raise ImportError(f"the {name} backend needs a package that is not installed: {BUILT_IN[name].install}.")
        try:
            return importlib.import_module(BUILT_IN[name].module).backend
        except ImportError as error:
            why = str(error).strip().partition("\n")[0]
            raise ImportError(f"the {name} backend's package does not import ({why}); {BUILT_IN[name].install}.") from error
    third_party = entry_points()
    if name not in third_party:
        installed = ", ".join(n for n in names() if is_installed(n))
        raise ValueError(f"{source}={name!r} is not a backend; choose one of {', '.join(names())} (installed: {installed}).")
    try:
        found = third_party[name].load()
    except Exception as error:  # whatever somebody else's code raises, its backend cannot be used
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ImportError(f"the {name} backend, {third_party[name].value!r}, does not load ({why}).") from error
    backend = found if isinstance(found, Backend) else getattr(found, "backend", None)
    if not isinstance(backend, Backend):
        raise ImportError(
            f"the entry point {third_party[name].value!r} for {name} is no backend; "
            "it must name a refllm.array_api.Backend, or a module whose `backend` is one."
        )
    return backend


def load_for_type(array_type: type) -> None:
    """Load the built-in backend whose library an array type comes from, if there is one."""
    library = array_type.__module__.partition(".")[0]
    for name, built_in in BUILT_IN.items():
        if built_in.library == library:
            load(name)


def describe() -> list[Description]:
    """Every backend known by name, with its version, device, dtypes and kernels, or with what it lacks."""
    return [_describe(name) for name in names()]


def _describe(name: str) -> Description:
    try:
        backend = load(name)
    except ImportError as error:
        return Description(name, "", "", (), (), str(error))
    dtypes = tuple(sorted(backend.xp.dtypes()))
    return Description(name, backend.version, backend.device, dtypes, tuple(sorted(kernels_of(backend))), "")


@contextmanager
def use(name: str | Backend) -> Iterator[Backend]:
    """Create parameters, caches and batches in this backend inside the block; computation follows the arrays anyway.

    The choice holds for this thread or task only.
    """
    backend = load(name)
    token = _DEFAULT.set(backend)
    try:
        yield backend
    finally:
        _DEFAULT.reset(token)


@contextmanager
def replaced(backend: Backend) -> Iterator[Backend]:
    """Put a backend in the place of the loaded one with its name and arrays, for the whole process, until the block ends."""
    before = load(backend.name)
    try:
        _LOADED[backend.name] = register(backend)
        yield backend
    finally:
        _LOADED[backend.name] = register(before)
