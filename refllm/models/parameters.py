"""Parameters are a flat dict of dotted names to arrays: parts by prefix, first values, sizes."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refllm.array_api import generator

Shapes = dict[str, tuple[int, ...]]

STANDARD_DEVIATION = 0.02  # Radford 2018, section 4.1: every matrix starts normal with this deviation


def within(tensors: Mapping[str, Any], prefix: str, names: Iterable[str]) -> dict[str, Any]:
    """The tensors `prefix + name`, under their short names."""
    return {name: tensors[prefix + name] for name in names}


def under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same tensors with a prefix before every name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def initial_values(shapes: Shapes, seed: int, gains: tuple[str, ...], residual: tuple[str, ...], n_layers: int) -> dict[str, Any]:
    """First values, float32 NumPy arrays drawn on the host, so that every backend starts from the same model.

    Matrices are normal with deviation 0.02, those that write to the residual stream with 0.02 / √(2·n_layers), because
    2·n_layers of them add up (Radford 2019, section 2.3). Gains are one, other vectors (biases) zero.

    gains, residual: the endings of the names of each kind
    """
    values = {}
    for i, (name, shape) in enumerate(shapes.items()):
        if name.endswith(gains):
            values[name] = np.ones(shape, dtype=np.float32)
        elif len(shape) == 1:
            values[name] = np.zeros(shape, dtype=np.float32)
        else:
            deviation = STANDARD_DEVIATION / math.sqrt(2 * n_layers) if name.endswith(residual) else STANDARD_DEVIATION
            normal = generator(seed, "init", i).standard_normal(shape, dtype=np.float32)
            values[name] = normal * np.float32(deviation)
    return values


def check_sizes(config: Any, but: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless every whole number in a configuration, but those fields, is at least 1."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if type(value) is int and value < 1 and field.name not in but:
            raise ValueError(f"{field.name}={value} cannot be; it must be at least 1.")


def count(shapes: Shapes) -> int:
    """How many numbers a model of these shapes learns."""
    return sum(math.prod(shape) for shape in shapes.values())
