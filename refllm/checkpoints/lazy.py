"""Parameters that lie in a file until they are used: opening a model reads its header and copies nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refllm.array_api import Backend
from refllm.checkpoints.tensor_file import Tensor, common_dtype


class LazyParameters(Mapping[str, Any]):
    """Parameters by name, each read when it is first asked for, and kept.

    tensors: in the file    backend: where they are to live    dtype: theirs, one of the backend's
    On NumPy a tensor that lies in the file in this dtype is not copied at all: it is a read-only view of the mapped file, which
    the system reads page by page and drops when memory is short. So the file must not be written to meanwhile; to be replaced
    by another, as `save` does it, harms nothing.
    """

    def __init__(self, tensors: Mapping[str, Tensor], backend: Backend, dtype: Any):
        self._tensors = dict(tensors)
        self._backend = backend
        self._dtype = dtype
        self._kept: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._kept:
            self._kept[name] = self.once(name)
        return self._kept[name]

    def once(self, name: str) -> Any:
        """A parameter that is not kept: for going over all of them, of which memory may hold only a few."""
        if name in self._kept:
            return self._kept[name]
        values = self._tensors[name].values()
        if self._backend.array_type is not np.ndarray:
            return self._backend.xp.from_numpy(np.ascontiguousarray(values), self._dtype)  # kernels of a GPU may count on it
        view = values.dtype == self._dtype and values.flags.aligned
        return values if view else values.astype(self._dtype)

    @property
    def stored(self) -> str:
        """The dtype, by name, that holds every tensor of the file exactly, such as "bfloat16"."""
        return common_dtype(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<{len(self)} parameters, {len(self._kept)} of them in memory>"


def once(params: Mapping[str, Any], name: str) -> Any:
    """A parameter of any model, not kept where it still lies in a file."""
    return params.once(name) if isinstance(params, LazyParameters) else params[name]
