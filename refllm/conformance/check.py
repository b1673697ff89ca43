"""What a check is: drawn inputs, and a computation that every backend and the oracle carry out alike."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend

from . import bounded
from .comparison import carried, share_of_bound
from .scatter import scattered


@dataclass(frozen=True)
class Check:
    """One line of the report.

    name: what is checked    group: "array_api", "layers", "tokenizer", "models", "training" or "decoding"
    draw: a strategy for the inputs: NumPy arrays, numbers, and tuples, NamedTuples or dicts of them
    compute: (backend, inputs carried over to it) -> named results; the oracle runs the very same function
    halves: whether float16 and bfloat16 are checked too
    whole: a long computation, whose bound is the scatter of its results under random rounding, not a carried bound
    """

    name: str
    group: str
    draw: st.SearchStrategy
    compute: Callable[[Backend, Any], dict[str, Any]]
    halves: bool = True
    whole: bool = False

    def shares(self, backend: Backend, drawn: Any, dtype: str = "float32") -> dict[str, float]:
        """How much of its error bound each result takes: at most 1 where it is right."""
        with np.errstate(all="ignore"):  # inputs are meant to overflow here and there; the comparison judges what comes of it
            exact = self.oracle(drawn, dtype)
            found = self.compute(backend, carried(drawn, backend, dtype))
        return {name: share_of_bound(found[name], exact[name], backend) for name in exact}

    def oracle(self, drawn: Any, dtype: str = "float32") -> dict[str, bounded.Bounded]:
        """The exact results, each with the bound on its error in dtype."""
        inputs = carried(drawn, bounded.backend, dtype)
        if self.whole:
            return scattered(lambda: self.compute(bounded.backend, inputs))
        return self.compute(bounded.backend, inputs)


def is_array(x: Any, backend: Backend) -> bool:
    return isinstance(x, backend.array_type)


def layer(name: str, draw: st.SearchStrategy, module: str | None = None, halves: bool = True) -> Check:
    """The check of a layer and its backward: y, and the gradient of every floating array argument.

    draw gives the layer's arguments in order. The output gradient is a normal array, the same on every backend.
    """
    path = f"refllm.layers.{module or name}"

    def compute(backend: Backend, arguments: tuple) -> dict[str, Any]:
        home = importlib.import_module(path)
        forward, backward = getattr(home, name), getattr(home, f"{name}_backward")
        y, saved = forward(*arguments)
        dy = np.random.default_rng(0).standard_normal(tuple(y.shape)).astype(np.float32)
        dtype = next(str(d) for d in ("float16", "bfloat16", "float32") if y.dtype == getattr(backend.xp, d, None))
        gradients = backward(carried(dy, backend, dtype), saved)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        names = differentiated(forward, arguments, backend)
        if len(names) != len(gradients):
            raise AssertionError(f"{name}_backward returns {len(gradients)} gradients for the arguments {', '.join(names)}")
        return {"y": y} | {f"d{n}": g for n, g in zip(names, gradients, strict=True)}

    return Check(name, "layers", draw, compute, halves)


def differentiated(forward: Callable, arguments: tuple, backend: Backend) -> list[str]:
    """The names of the floating array arguments, except those that a layer takes as given."""
    given = ("cos", "sin", "uniforms")
    pairs = zip(inspect.signature(forward).parameters, arguments, strict=False)
    xp = backend.xp
    return [n for n, a in pairs if is_array(a, backend) and n not in given and xp.isdtype(a.dtype, "real floating")]
