"""refllm, the reference language model: tokenizer, transformer, hand-written backward pass, training and cached decoding."""

import importlib
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("refllm.backends") is None:
    # An uninstalled checkout: the backends stand beside the package, at the top level.
    _file = Path(__file__).parent.parent / "backends" / "__init__.py"
    _spec = importlib.util.spec_from_file_location("refllm.backends", _file, submodule_search_locations=[str(_file.parent)])
    if _spec is None or _spec.loader is None:
        raise ImportError(f"refllm is neither installed nor a checkout: {_file} is missing.")
    sys.modules["refllm.backends"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["refllm.backends"])

from .array_api import load as load_backend
from .array_api import namespace, op, use

__version__ = "0.1.0"
__all__ = ["Model", "Tokenizer", "load", "load_backend", "namespace", "op", "save", "use"]

_UPSTAIRS = {  # imported when they are first asked for, so that `import refllm` stays quick
    "Model": "refllm.models.model",
    "Tokenizer": "refllm.tokenizer",
    "load": "refllm.checkpoints",
    "save": "refllm.checkpoints",
}


def __getattr__(name: str):
    if name not in _UPSTAIRS:
        raise AttributeError(f"module 'refllm' has no attribute {name!r}; its public names are {', '.join(__all__)}.")
    return getattr(importlib.import_module(_UPSTAIRS[name]), name)
