"""All parameters in one flat vector, the decayed matrices first, so that the optimizer is a few long vector operations.

vector = [ every matrix, in reading order | every gain and bias, in reading order ]
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from refllm.array_api import namespace


class Layout(NamedTuple):
    """Where each parameter lies in the vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]  # where each begins
    size: int  # of the vector
    n_decayed: int  # the vector's first elements, those of matrices, which weight decay shrinks


def arrange(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """The layout of a table of parameter shapes: those with two axes or more come first and are decayed."""
    names = sorted(shapes, key=lambda name: len(shapes[name]) < 2)  # stable: reading order within each part
    sizes = [math.prod(shapes[name]) for name in names]
    offsets = itertools.accumulate(sizes[:-1], initial=0)
    n_decayed = sum(size for name, size in zip(names, sizes, strict=True) if len(shapes[name]) >= 2)
    return Layout(tuple(names), tuple(tuple(shapes[n]) for n in names), tuple(offsets), sum(sizes), n_decayed)


def pack(tensors: Mapping[str, Any], layout: Layout) -> Any:
    """The tensors, by name, as one new vector (P,)."""
    if set(tensors) != set(layout.names):
        differ = ", ".join(sorted(set(tensors) ^ set(layout.names)))
        raise ValueError(f"the tensors are not those of the layout; {differ} stand on one side only.")
    xp = namespace(tensors[layout.names[0]])
    return xp.concat([xp.reshape(tensors[name], (-1,)) for name in layout.names])


def unpack(vector: Any, layout: Layout) -> dict[str, Any]:
    """The parameters of a vector (P,), by name, each in its shape: views where the backend has views."""
    xp = namespace(vector)
    if vector.shape != (layout.size,):
        raise ValueError(f"the vector has shape {tuple(vector.shape)}; this model's parameters need ({layout.size},).")
    ends = (*layout.offsets[1:], layout.size)
    pieces = zip(layout.names, layout.shapes, layout.offsets, ends, strict=True)
    return {name: xp.reshape(vector[begin:end], shape) for name, shape, begin, end in pieces}
