"""What every op of a model computes, named by the parameter that it reads, while nobody but the tracer knows.

`traced` puts a table of kernels in force that runs what was in force before and tells of each result; so no model is changed, and
where nobody traces nothing is slower. Ops inside ops are not told: a kernel may do without them. An op of many layers runs its
body, and the ops in it are told.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from refllm.array_api import Backend, kernels, kernels_of, namespace

MANY_LAYERS = ("llama_blocks",)
HEAD = "head"  # the place of what comes behind the last layer


class Place(NamedTuple):
    """Where in a model a result comes from."""

    name: str  # of the first parameter that the op reads, "layers.3.ffn_norm"; the layer's where it reads none
    op: str
    occurrence: int  # counted from 0, of the same op at the same name in one call

    @property
    def layer(self) -> str:
        """ "layers.3", or what stands before and behind the layers: "embedding", "head"."""
        return layer_of(self.name)

    def __str__(self) -> str:
        return f"{self.op} of {self.name}" + (f", the {self.occurrence + 1}. of them" if self.occurrence else "")


def layer_of(name: str) -> str:
    """The layer of a parameter, or its first word."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else HEAD if parts[0] in ("norm", "lm_head") else parts[0]


class _Telling(dict):
    """A table of kernels that finds each op and tells what it returns."""

    def __init__(self, table: Mapping[str, Callable], tell: Callable[[str, tuple, Any], None]):
        super().__init__(table)
        self._tell, self._inside = tell, False

    def get(self, name, default=None):
        found = default if name in MANY_LAYERS else super().get(name, default)
        return found if self._inside or name in MANY_LAYERS else lambda *args, **options: self._run(name, found, args, options)

    def _run(self, name, found, args, options):
        self._inside = True
        try:
            result = found(*args, **options)
        finally:
            self._inside = False
        self._tell(name, args, result)
        return result


class _Read(dict):
    """Parameters that remember which of them was asked for last: a model asks for a layer's when it comes to that layer."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__({name: params[name] for name in params})
        self.last = next(iter(params))

    def __getitem__(self, name):
        self.last = name
        return super().__getitem__(name)


@contextmanager
def traced(backend: Backend, params: Mapping[str, Any], tell: Callable[[Place, Any], None]) -> Iterator[Mapping[str, Any]]:
    """Inside the block, tell(place, y) is called with the first result of every op, in their order.

    Yields the parameters with which the model is to be called. y must be copied to be kept: a kernel may reuse its buffer.
    """
    read = _Read(params)
    names = {id(value): name for name, value in read.items()}
    counted: Counter[tuple[str, str]] = Counter()
    came: dict[str, None] = {}  # layers, in order

    def told(op: str, args: tuple, result: Any) -> None:
        name = next((names[id(a)] for a in args if id(a) in names), layer_of(read.last))
        came.setdefault(layer_of(name))
        at = (name if layer_of(name) == list(came)[-1] else HEAD, op)  # a tied head reads the embedding once more
        tell(Place(*at, counted[at]), result[0] if isinstance(result, tuple) else result)
        counted[at] += 1

    with kernels(backend, _Telling(kernels_of(backend), told)):
        yield read


def by_position(y: Any) -> Any:
    """A result of one sequence as rows, one a position: (T, features); None for what has no positions.

    y: (1, T, D), (1, H, T, K) or (T, D)
    """
    xp = namespace(y)
    if y.ndim == 4 and y.shape[0] == 1:
        _, H, T, K = y.shape
        return xp.reshape(xp.permute_dims(y[0, ...], (1, 0, 2)), (T, H * K))
    if y.ndim == 3 and y.shape[0] == 1:
        return y[0, ...]
    return y if y.ndim == 2 else None
