"""Counting how often the host waits for the device: on a simulated device, so that no GPU is needed.

Inside the block the strict backend makes its arrays on a second device of array-api-strict, which, like a GPU library, refuses
NumPy arrays as operands and refuses to become one. What a GPU library would allow at the price of waiting is counted: a Python
number made of an array (`float`, `int`, `bool`, an index), and `to_numpy`.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from refllm.array_api import Backend, replaced, use

NUMBERS = ("__float__", "__int__", "__bool__", "__index__", "__complex__")


@dataclass
class HostSyncs:
    """What was counted, in order."""

    backend: Backend  # the strict backend on the simulated device
    places: list[str] = field(default_factory=list)  # how and where each wait came about: "float at refllm/…/step.py:41"

    @property
    def count(self) -> int:
        return len(self.places)

    def note(self, how: str) -> None:
        self.places.append(f"{how} at {_place()}")


@contextmanager
def count_host_syncs() -> Iterator[HostSyncs]:
    """Count every wait for the device inside the block, in which new arrays are made on the simulated device.

    with count_host_syncs() as syncs:
        model = ...                  # on the device, since `use` is in force too
        before = syncs.count
        decode(model, token, cache)
        assert syncs.count == before, syncs.places
    """
    from refllm.backends.strict_backend import on_device

    backend = on_device("device1")
    syncs = HostSyncs(backend)

    def counted(how: str, function: Callable) -> Callable:
        def waits(*arguments):
            syncs.note(how)
            return function(*arguments)

        return waits

    read = counted("to_numpy", backend.primitives["to_numpy"])
    syncs.backend = backend = dataclasses.replace(backend, primitives={**backend.primitives, "to_numpy": read})
    array_type = backend.array_type
    plain = {name: getattr(array_type, name) for name in NUMBERS}
    try:
        for name, function in plain.items():
            setattr(array_type, name, counted(name.strip("_"), function))
        with replaced(backend), use(backend):
            yield syncs
    finally:
        for name, function in plain.items():
            setattr(array_type, name, function)


def _place() -> str:
    """The file and line nearest to the wait that belong neither to this module nor to array-api-strict."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and ("array_api_strict" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown place"
