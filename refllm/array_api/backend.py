"""A backend: the array API's names over one array library, and fast kernels for ops by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .contract import OPTIONAL_DTYPES, PRIMITIVES, STANDARD


class Namespace:
    """The array API over one library: exactly the contract's names, as attributes."""

    def __init__(self, backend: str, names: Mapping[str, Any]):
        self.__dict__.update(names)
        self.__dict__["__name__"] = backend

    def __getattr__(self, name: str) -> Any:
        backend = self.__dict__.get("__name__", "?")
        if name in OPTIONAL_DTYPES:
            raise AttributeError(f"the {backend} backend does not compute in {name}; it has {', '.join(sorted(self.dtypes()))}.")
        raise AttributeError(f"{name!r} is not in refllm's array API; refllm/array_api/contract.py lists what is.")

    def __repr__(self) -> str:
        return f"<refllm array API over {self.__name__}>"


@dataclass(frozen=True, eq=False, repr=False)
class Backend:
    """One array library behind the array API.

    standard: any object whose attributes are the standard's functions and dtypes (NumPy itself, for instance)
    primitives: our own names, each as defined in `contract.PRIMITIVES`
    kernels: fast versions of ops by the op's name, signature for signature; a forward comes with its backward
    device: what it computes on, in words
    asynchronous: whether it computes while Python goes on, so that a result is best asked for a step late
    scalar_types: types that its operations return in place of arrays of no axes, as NumPy's do
    unavailable: why it cannot compute here though its library is installed, in a sentence; empty when it can
    """

    name: str
    standard: Any
    primitives: Mapping[str, Callable]
    array_type: type
    version: str
    device: str
    kernels: Mapping[str, Callable] = field(default_factory=dict)
    asynchronous: bool = False
    scalar_types: tuple[type, ...] = ()
    unavailable: str = ""
    xp: Namespace = field(init=False)

    def __post_init__(self) -> None:
        dtypes = self.primitives["dtypes"]() if "dtypes" in self.primitives else ()
        standard = (*STANDARD, *(n for n in OPTIONAL_DTYPES if n in dtypes))
        missing = [n for n in standard if not hasattr(self.standard, n)] + [n for n in PRIMITIVES if n not in self.primitives]
        if missing:
            raise TypeError(f"the {self.name} backend lacks {', '.join(missing)} of the array API.")
        names = {n: getattr(self.standard, n) for n in standard} | {n: self.primitives[n] for n in PRIMITIVES}
        alone = [n for n in self.kernels if n.endswith("_backward") and n.removesuffix("_backward") not in self.kernels]
        if alone:
            raise TypeError(
                f"kernels {', '.join(alone)} of {self.name} come without their forward, whose `saved` they must read."
            )
        object.__setattr__(self, "kernels", MappingProxyType(dict(self.kernels)))
        object.__setattr__(self, "xp", Namespace(self.name, names))

    def __repr__(self) -> str:
        return f"<refllm backend {self.name} {self.version} on {self.device}>"
