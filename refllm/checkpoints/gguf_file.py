"""GGUF, the file of llama.cpp (ggml-org/ggml, docs/gguf.md): metadata, a list of tensors, and their bytes, little-endian.

    "GGUF" · uint32 version · uint64 n_tensors · uint64 n_fields
    n_fields × (string key · uint32 type · value)          an array is uint32 type · uint64 n · n values
    n_tensors × (string name · uint32 n_axes · n_axes × uint64 size, the last axis first · uint32 type · uint64 offset)

A string is uint64 n and n bytes of UTF-8. The tensors' bytes follow, each tensor's on a multiple of the alignment, from which
offsets count. The header is read here, every length held to the file's, and nothing copied; the package `gguf` reads what is
quantised.
"""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.checkpoints.tensor_file import MOST, Tensor, from_bfloat16

FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
FLOAT32, STRING, ARRAY = 6, 8, 9
PLAIN = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 30: ("BF16", "<u2"), 28: ("F64", "<f8")}  # tensors of one number after another
# number of the type: its name, how many numbers a block holds, how many bytes it takes
QUANTISED = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}
ALIGNMENT = "general.alignment"


class Stored(NamedTuple):
    """A tensor in the file."""

    type: int  # a key of PLAIN or QUANTISED
    shape: tuple[int, ...]
    data: np.ndarray  # its bytes, a view of the mapped file

    def tensor(self) -> Tensor:
        """The tensor; its numbers are read, what is quantised as float32, when they are asked for."""
        return Tensor(PLAIN[self.type][0] if self.type in PLAIN else "F32", self.shape, self.values)

    def values(self) -> np.ndarray:
        """Its numbers; BF16 and what is quantised as float32."""
        if self.type not in PLAIN:
            return dequantise(self.data, QUANTISED[self.type][0], self.shape)
        name, dtype = PLAIN[self.type]
        numbers = self.data.view(dtype).reshape(self.shape)
        return from_bfloat16(numbers) if name == "BF16" else numbers

    def part(self, i: int) -> "Stored":
        """The i-th tensor along the first axis."""
        size = len(self.data) // self.shape[0]
        return Stored(self.type, self.shape[1:], self.data[i * size : (i + 1) * size])


class GGUF(NamedTuple):
    """What a file holds."""

    metadata: dict[str, Any]  # numbers, strings, lists of strings, and NumPy arrays of numbers
    tensors: dict[str, Stored]


def read(path: str | Path) -> GGUF:
    """The metadata and tensors of a file, which is mapped into memory: bytes are read as they are used.

    Raises OSError where it cannot be opened, ValueError where it is truncated, contradicts itself or holds what is not known.
    """
    path = Path(path)
    if path.stat().st_size < 24:
        raise ValueError(f"{path} is truncated or not a GGUF file: it has {path.stat().st_size} bytes.")
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    try:
        return _read(data)
    except _EndError:
        raise ValueError(
            f"{path} is truncated or damaged: its header speaks of more than its {len(data)} bytes. Fetch it again."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not a GGUF file that can be read: {error}.") from error


def dequantise(data: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Quantised numbers as float32. data: bytes    name: of the type, such as "Q4_K"

    Raises ImportError where the package gguf is not installed.
    """
    gguf = package()
    rows = data.reshape(math.prod(shape[:-1]), -1)
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name]).reshape(shape)


def package() -> Any:
    """The package gguf. Raises ImportError that says how to get it."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError("GGUF files need the package gguf; install it with `pip install 'refllm[gguf]'`.") from error
    return gguf


class _EndError(Exception):
    """The file ends before what its header speaks of."""


class _Cursor:
    """A place in the header, which moves on as it is read."""

    def __init__(self, data: np.ndarray):
        self.bytes, self.place, self.end = memoryview(data), 0, len(data)  # type: ignore[arg-type]  # an array has a buffer

    def take(self, n: int) -> memoryview:
        """The next n bytes."""
        if n > self.end - self.place:
            raise _EndError
        self.place += n
        return self.bytes[self.place - n : self.place]

    def number(self, code: str) -> Any:
        """The next number of a type of struct."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        """The next string. Bytes that are no UTF-8 are kept, as surrogates."""
        return str(self.take(self.number("<Q")), "utf-8", "surrogateescape")

    def strings(self, n: int) -> list[str]:
        """The next n strings; a vocabulary has hundreds of thousands, so this is the loop of `string` unrolled."""
        unpack, data, place, end, found = struct.Struct("<Q").unpack_from, self.bytes, self.place, self.end, []
        for _ in range(n):
            if end - place < 8:
                raise _EndError
            begin = place + 8
            place = begin + unpack(data, place)[0]
            if place > end:
                raise _EndError
            found.append(str(data[begin:place], "utf-8", "surrogateescape"))
        self.place = place
        return found

    def value(self) -> Any:
        """The next value with its type before it."""
        kind = self.number("<I")
        if kind == STRING:
            return self.string()
        if kind == FLOAT32:
            return float(str(np.float32(self.number("<f"))))  # 1e-05 as it was meant, not as float32 holds it
        if kind != ARRAY:
            return self.number(_format(kind))
        kind, n = self.number("<I"), self.number("<Q")
        if kind == STRING:
            return self.strings(n)
        dtype = np.dtype(_format(kind))
        return np.frombuffer(self.take(n * dtype.itemsize), dtype)


def _format(kind: int) -> str:
    if kind not in FORMATS:
        raise ValueError(f"its metadata has a value of type {kind}, which is none of a number, a string or a list of them")
    return FORMATS[kind]


def _read(data: np.ndarray) -> GGUF:
    cursor = _Cursor(data)
    magic, version = bytes(cursor.take(4)), cursor.number("<I")
    if magic != b"GGUF" or version not in (2, 3):
        kind = "big-endian" if version and version & 0xFFFF == 0 else f"of version {version}"
        raise ValueError(
            f"it is {kind}; versions 2 and 3, little-endian, can be read" if magic == b"GGUF" else "it begins otherwise"
        )
    n_tensors, n_fields = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(n_fields):  # a number that lies is found out where the file ends
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"its metadata gives {key!r} twice")
        metadata[key] = cursor.value()
    described: dict[str, tuple[int, tuple[int, ...], int]] = {}
    for _ in range(n_tensors):
        name = cursor.string()
        if name in described:
            raise ValueError(f"it holds {name!r} twice")
        n_axes = cursor.number("<I")
        if n_axes > 4:
            raise ValueError(f"{name!r} has {n_axes} axes; there are at most 4")
        shape = tuple(cursor.number("<Q") for _ in range(n_axes))[::-1]
        described[name] = cursor.number("<I"), shape, cursor.number("<Q")
    return GGUF(metadata, _tensors(data, described, cursor.place, metadata.get(ALIGNMENT, 32)))


def _tensors(
    data: np.ndarray, described: dict[str, tuple[int, tuple[int, ...], int]], header: int, alignment: Any
) -> dict[str, Stored]:
    """The tensors, each where the header says, one after the other and no two in the same place."""
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise ValueError(f"its tensors are aligned to {alignment!r} bytes, which must be a power of two from 8 on")
    up: Callable[[int], int] = lambda n: -(-n // alignment) * alignment  # noqa: E731  # a formula of one line
    start, place, before, tensors = up(header), 0, "the header", {}
    for name, (kind, shape, offset) in sorted(described.items(), key=lambda item: item[1][2]):
        size = _size(name, kind, shape)
        if offset != up(place):
            raise ValueError(f"{name!r} begins at byte {offset} of the tensors, but {before} ends at {place}")
        place, before = offset + size, f"{name!r}"
        tensors[name] = Stored(kind, shape, data[start + offset : start + place])
    if start + place > len(data):
        raise _EndError
    if described and len(data) > start + up(place):
        raise ValueError(f"it has {len(data)} bytes, and its header describes {start + place}")
    return {name: tensors[name] for name in described}


def _size(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes."""
    if kind in PLAIN:
        block, size = 1, np.dtype(PLAIN[kind][1]).itemsize
    elif kind in QUANTISED:
        _, block, size = QUANTISED[kind]
    else:
        known = ", ".join([name for name, _ in PLAIN.values()] + [name for name, _, _ in QUANTISED.values()])
        raise ValueError(f"{name!r} is stored in type {kind} of ggml; {known} can be read")
    if math.prod(filter(None, shape)) >= MOST or (shape[-1] if shape else 1) % block:
        raise ValueError(f"{name!r} has the shape {shape}, which its blocks of {block} numbers cannot have")
    return math.prod(shape) // block * size
