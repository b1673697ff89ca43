"""Floor 2: one architecture a file, and the table of them."""

import importlib
from types import ModuleType

ARCHITECTURES = {
    "bert": "refllm.models.bert",
    "gemma": "refllm.models.gemma",
    "gpt2": "refllm.models.gpt2",
    "llama": "refllm.models.llama",
    "mixtral": "refllm.models.mixtral",
}


def architecture(name: str) -> ModuleType:
    """The module of an architecture: its Config, parameter_shapes, initialise, forward and backward.

    Raises ValueError for a name that is not in the table.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"{name!r} is not an architecture; choose one of {', '.join(sorted(ARCHITECTURES))}.")
    return importlib.import_module(ARCHITECTURES[name])
