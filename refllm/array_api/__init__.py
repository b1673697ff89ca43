"""Floor 0: the one array API. Everything above is written against it and never imports an array library."""

from .backend import Backend, Namespace
from .dispatch import OPS, backend_of, kernels, kernels_of, namespace, op, register
from .random import generator
from .registry import BUILT_IN, is_installed, load, names, use

__all__ = [
    "BUILT_IN",
    "OPS",
    "Backend",
    "Namespace",
    "backend_of",
    "generator",
    "is_installed",
    "kernels",
    "kernels_of",
    "load",
    "names",
    "namespace",
    "op",
    "register",
    "use",
]
