"""The least time that a token can take here: what it must read and compute, over how fast this machine reads and computes.

    floor = max(bytes / bandwidth, operations / matrix speed)

Decoding one row is bound by the bytes: every weight is read for two operations. A prefill uses each weight for all of its
positions, and is bound by the operations (Williams 2009, doi:10.1145/1498765.1498785, the roofline).
A model that fits the caches of a processor is read faster than memory, and may come out below its floor.
The two speeds are measured, in the model's backend and dtype, by the products that decoding and prefill consist of.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from refllm.array_api import Backend
from refllm.layers.linear import linear
from refllm.models import accounting
from refllm.models.model import Model

LARGE = 2**26  # bytes of the smallest matrix that is read: more than a core's caches hold
LARGEST = 2**30
WIDTH = 2048  # numbers of the row that is multiplied with it
PATTERN = 2**18  # numbers that a large matrix repeats
LEAST_SECONDS = 2e-3  # a product that is faster is measured again at twice the size: calls take time too
TRIES = 3  # the fastest of so many


class Speeds(NamedTuple):
    """How fast large products go."""

    bandwidth: float  # bytes a second that the product of one row with a large matrix reads
    matrix: float  # float operations a second of the product of two large matrices


class Work(NamedTuple):
    """What must be done, however it is done."""

    bytes: int  # parameters, each once, looked-up rows, keys and values
    operations: int  # a multiplication and an addition are two


class Floor(NamedTuple):
    """The least time that some work takes."""

    work: Work
    speeds: Speeds

    @property
    def reading(self) -> float:
        """Seconds to move the bytes."""
        return self.work.bytes / self.speeds.bandwidth

    @property
    def computing(self) -> float:
        """Seconds for the operations."""
        return self.work.operations / self.speeds.matrix

    @property
    def seconds(self) -> float:
        """Both may go on at the same time, so the slower decides."""
        return max(self.reading, self.computing)


def parameter_bytes(model: Model, rows: int) -> int:
    """Bytes of the parameters that a call over so many tokens reads: matrices once, and of the tables one row for each token.

    A table that is the head too is read whole. Of a mixture's experts those that one token goes through.
    """
    shapes = accounting.active_shapes(model.architecture, model.config)
    tied = "lm_head" not in shapes
    numbers = 0
    for name, shape in shapes.items():
        looked_up = accounting.is_table(name) and not (tied and name == "embedding")
        numbers += min(rows, shape[0]) * shape[1] if looked_up else math.prod(shape)
    return itemsize(model) * numbers


def token_work(model: Model, length: int, rows: int = 1, quantised: bool = False) -> Work:
    """The work of one step of decoding, whose rows each attend `length` positions, their own included.

    quantised: whether keys and values are kept in eight bits
    """
    seen = seen_positions(model, length)
    flops = accounting.forward_flops(model.architecture, model.config, length)
    cache = rows * seen * layer_bytes(model, quantised)
    return Work(parameter_bytes(model, rows) + cache, rows * flops.total)


def prefill_work(model: Model, n_tokens: int, quantised: bool = False) -> Work:
    """The work of reading a prompt of n_tokens at once: each position attends those up to it, the head is asked for the last."""
    config = model.config
    flops = accounting.forward_flops(model.architecture, config, 1)
    attended = sum(_attended(n_tokens, window) for window in accounting.windows(config))
    attention = 4 * config.n_heads * config.d_head * attended
    cache = n_tokens * config.n_layers * layer_bytes(model, quantised)  # written
    return Work(parameter_bytes(model, n_tokens) + cache, n_tokens * flops.blocks + attention + flops.head)


def _attended(n_tokens: int, window: int | None) -> int:
    """Pairs of a query and a key that it sees, among n_tokens of one layer."""
    near = n_tokens if window is None else min(n_tokens, window)
    return near * (near + 1) // 2 + (n_tokens - near) * near


def seen_positions(model: Model, length: int) -> int:
    """Positions that one query sees, summed over the layers."""
    return sum(length if window is None else min(length, window) for window in accounting.windows(model.config))


def layer_bytes(model: Model, quantised: bool = False) -> int:
    """Bytes of the keys and values of one position of one row in one layer."""
    config = model.config
    size = itemsize(model)
    vector = config.d_head + max(4, size) if quantised else config.d_head * size  # its codes, and a scale
    return 2 * config.n_kv_heads * vector


def itemsize(model: Model) -> int:
    """Bytes of one of its numbers."""
    return accounting.itemsize(dtype_name(model))


def dtype_name(model: Model) -> str:
    """The dtype that it computes in, by name."""
    return str(model.params["embedding"].dtype).rpartition(".")[2]


_MEASURED: dict[tuple[Backend, str], Speeds] = {}


def speeds(model: Model) -> Speeds:
    """The speeds of the model's backend in the model's dtype, measured at the first call (under half a second) and kept."""
    key = model.backend, dtype_name(model)
    if key not in _MEASURED:
        _MEASURED[key] = Speeds(_bandwidth(*key), _matrix_speed(*key))
    return _MEASURED[key]


def token_floor(model: Model, length: int, rows: int = 1, quantised: bool = False) -> Floor:
    """The least time of one step of decoding at that length."""
    return Floor(token_work(model, length, rows, quantised), speeds(model))


def prefill_floor(model: Model, n_tokens: int, quantised: bool = False) -> Floor:
    """The least time of reading a prompt."""
    return Floor(prefill_work(model, n_tokens, quantised), speeds(model))


def _bandwidth(backend: Backend, dtype: str) -> float:
    """Bytes a second."""
    size, n_bytes = accounting.itemsize(dtype), LARGE
    row = _numbers(backend, dtype, 1, WIDTH)
    while True:
        matrix = _numbers(backend, dtype, WIDTH, n_bytes // size // WIDTH)
        seconds = _fastest(backend, partial(linear, row, matrix))
        if seconds >= LEAST_SECONDS or 2 * n_bytes > LARGEST:
            return n_bytes / seconds
        n_bytes *= 2


def _matrix_speed(backend: Backend, dtype: str) -> float:
    """Float operations a second."""
    width = 512
    while True:
        a, b = (_numbers(backend, dtype, width, width) for _ in range(2))
        seconds = _fastest(backend, partial(linear, a, b))
        if seconds >= LEAST_SECONDS or width >= 8192:
            return 2 * width**3 / seconds
        width *= 2


def _numbers(backend: Backend, dtype: str, *shape: int) -> Any:
    """A matrix of small whole numbers, every one of them in memory of its own."""
    xp, n = backend.xp, math.prod(shape)
    few = xp.astype(xp.remainder(xp.arange(min(n, PATTERN), dtype=xp.int32), 7), getattr(xp, dtype))
    matrix = xp.reshape(xp.concat([few] * (n // few.shape[0])), shape)
    xp.evaluate(matrix)
    return matrix


def _fastest(backend: Backend, product: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls of a layer, the first aside."""
    xp, found = backend.xp, []
    for _ in range(1 + TRIES):
        began = time.perf_counter()
        xp.evaluate(product()[0])
        xp.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])
