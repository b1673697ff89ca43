"""The error bound of a long computation: how far its results scatter under random rounding (spec/accuracy.md).

Monte Carlo arithmetic (Parker 1997, UCLA CSD-970002): bounds carried through a whole model forget that errors are related, and
grow far beyond what can happen; the scatter of a few runs does not.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from refllm.array_api import kernels
from refllm.layers.blockwise_attention import blockwise_attention, blockwise_attention_backward

from . import bounded

RUNS = 8  # of a whole computation under random rounding, every other one with attention in blocks
BLOCK = 4  # positions
WIDTH = 4.0  # how far beyond the scatter of those runs a right result may lie

Key = TypeVar("Key")


def scattered(compute: Callable[[], Mapping[Key, bounded.Bounded]], axis: int | None = None) -> dict[Key, bounded.Bounded]:
    """The exact results of a computation on the oracle's arrays, each with the bound on its error.

    The bound is WIDTH times the largest move of each number, or of the average number along the axis (None: of the tensor), if
    that is more.
    """
    exact = compute()
    scatter: dict[Key, np.ndarray] = {}
    for seed in range(RUNS):
        with bounded.moved_at_random(seed), kernels(bounded.backend, IN_BLOCKS if seed % 2 else {}):
            for name, moved in compute().items():
                if isinstance(exact[name].dtype, bounded.Float):
                    distance = np.abs(moved.value - exact[name].value)
                    scatter[name] = np.maximum(scatter[name], distance) if name in scatter else distance
    return {name: _with_bound(y, scatter[name], axis) if name in scatter else y for name, y in exact.items()}


def _with_bound(exact: bounded.Bounded, scatter: np.ndarray, axis: int | None) -> bounded.Bounded:
    usual = np.mean(scatter, axis=axis, keepdims=True) if scatter.size else 0.0
    return bounded.Bounded(exact.value, WIDTH * np.maximum(scatter, usual), exact.dtype)


def _in_blocks(q, k, v, mask, scale, softcap=None):
    return blockwise_attention(q, k, v, mask, scale, BLOCK, softcap)


# Where a gradient of attention vanishes, only rounding remains of it, and the two ways leave different rounding. Kernels go that
# of blocks, in which sums over K cancel.
IN_BLOCKS = {"attention": _in_blocks, "attention_backward": blockwise_attention_backward}
