"""Floor 0: the one array API. Everything above is written against it and never imports an array library."""

from .backend import Backend, Namespace
from .dispatch import OPS, backend_of, kernels, kernels_of, namespace, op, register
from .random import generator
from .registry import BUILT_IN, Description, describe, is_installed, load, names, replaced, use

__all__ = [
    "BUILT_IN",
    "OPS",
    "Backend",
    "Description",
    "Namespace",
    "backend_of",
    "describe",
    "generator",
    "is_installed",
    "kernels",
    "kernels_of",
    "load",
    "names",
    "namespace",
    "op",
    "register",
    "replaced",
    "use",
]
