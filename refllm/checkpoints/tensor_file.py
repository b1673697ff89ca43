"""The safetensors format: 8 bytes with the header's length, a JSON header, and the tensors' bytes one after another.

The header holds for each name {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, offsets counted from its end,
numbers little-endian (https://github.com/huggingface/safetensors). It is read and written here, because NumPy has no
bfloat16, which the safetensors library needs of it: its 16 bits are the upper half of a float32.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from refllm.atomic import replacing
from refllm.checkpoints import json_file

DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # as it lies in the file
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}


DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # the floating ones
MOST = 1 << 60  # bytes or numbers; a header that speaks of more is damaged


class Tensor(NamedTuple):
    """One tensor of a file, in the file or on its way there."""

    dtype: str  # a name in DTYPES
    shape: tuple[int, ...]
    values: Callable[[], np.ndarray]  # its numbers, read when asked for; BF16 as float32


def of_array(a: np.ndarray) -> Tensor:
    """A NumPy array as a tensor to be written."""
    dtype = next(name for name, known in DTYPES.items() if known == a.dtype and name != "BF16")
    return Tensor(dtype, a.shape, lambda: a)


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. The file is mapped into memory: bytes are read as they are used.

    Raises OSError where it cannot be opened, ValueError where it is truncated or not a safetensors file.
    """
    path = Path(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8 + length:
            raise ValueError(
                f"{path} is truncated or not a safetensors file: {size} bytes, of which its header needs {8 + length}."
            )
        if length > json_file.LARGEST:
            raise ValueError(f"{path} is not a safetensors file: a header has at most {json_file.LARGEST} bytes, not {length}.")
        try:
            header = json_file.parse(file.read(length))
            header.pop("__metadata__", None)
            spans = {name: _span(**entry) for name, entry in header.items()}
            end = _in_a_row(spans)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is not a safetensors file: its header does not describe tensors ({error}).") from error
    start = 8 + length
    if size != start + end:
        state = "truncated" if size < start + end else "damaged"
        raise ValueError(
            f"{path} is {state}: it has {size} bytes, and its header describes {start + end}. Fetch or write it again."
        )
    mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    return {
        name: Tensor(dtype, shape, _reader(f"{name} in {path}", mapped[start + begin : start + end], dtype, shape))
        for name, (dtype, shape, begin, end) in spans.items()
    }


def _span(dtype: str, shape: list[int], data_offsets: list[int]) -> tuple[str, tuple[int, ...], int, int]:
    """A header's entry, checked against itself: dtype, shape, and where its bytes begin and end."""
    begin, end = data_offsets
    if len(shape) > 64:  # NumPy's most
        raise ValueError(f"a shape of {len(shape)} axes")
    if not all(type(n) is int and 0 <= n < MOST for n in (*shape, begin, end)) or math.prod(filter(None, shape)) >= MOST:
        raise ValueError(f"shape {shape} at bytes {data_offsets}")
    needed = math.prod(shape) * DTYPES[dtype].itemsize if dtype in DTYPES else end - begin
    if begin > end or end - begin != needed:
        raise ValueError(f"{dtype} of shape {shape} at bytes {data_offsets}")
    return dtype, tuple(shape), begin, end


def _in_a_row(spans: Mapping[str, tuple[str, tuple[int, ...], int, int]]) -> int:
    """Where the last tensor ends. Raises ValueError where tensors overlap or leave a gap, in which something could hide."""
    place, before = 0, "the header"
    for name, (_, _, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != place:
            raise ValueError(f"{name} begins at byte {begin}, but {before} ends at {place}")
        place, before = end, name
    return place


def _reader(what: str, data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        if dtype not in DTYPES:
            raise ValueError(f"{what} is stored in {dtype}; {', '.join(DTYPES)} can be read.")
        numbers = data.view(DTYPES[dtype]).reshape(shape)
        return from_bfloat16(numbers) if dtype == "BF16" else numbers

    return values


def write(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    told: Callable[[int], None] = lambda n: None,
) -> None:
    """Write tensors to a file, whole or not at all, holding one of them in memory at a time.

    metadata: words about the file; transformers asks for {"format": "pt"}    told: hears how many bytes each tensor had
    Raises OSError where the disk refuses; the old file is then unchanged.
    """
    with replacing(path) as file:
        write_to(file, tensors, metadata, told)


def write_to(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None, told: Callable[[int], None]
) -> None:
    """Write tensors to an open file, as `write` does."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + size_of(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the tensors then lie aligned
    file.write(len(head).to_bytes(8, "little") + head)
    for name, tensor in tensors.items():
        file.write(_stored(name, tensor).data.cast("B") if math.prod(tensor.shape) else b"")
        told(size_of(tensor))


def _stored(name: str, tensor: Tensor) -> np.ndarray:
    """A tensor's numbers as they lie in a file. Raises ValueError where float16 cannot hold one."""
    values = tensor.values()
    if tensor.dtype == "BF16":
        return np.ascontiguousarray(to_bfloat16(values), dtype=DTYPES["BF16"])
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, dtype=DTYPES[tensor.dtype])
    if tensor.dtype == "F16" and np.any(beyond := np.isinf(stored) & np.isfinite(values)):
        raise ValueError(f"{name} holds {values[beyond][0]:g}, which float16 cannot hold; store bfloat16 or float32 instead.")
    return stored


def common_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The dtype, by name, that holds every tensor exactly; that of others than floating ones is float32."""
    stored = {DTYPE_NAMES.get(tensor.dtype, "float32") for tensor in tensors.values()}
    return stored.pop() if len(stored) == 1 else ("float64" if "float64" in stored else "float32")


def size_of(tensor: Tensor) -> int:
    """How many bytes a tensor takes in a file."""
    return math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 numbers, exactly those of bfloat16 numbers given by their 16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """The 16 bits of the bfloat16 numbers nearest to the given ones, halves to even."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded).astype(np.uint16)
