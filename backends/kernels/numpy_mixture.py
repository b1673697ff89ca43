"""A mixture of experts for NumPy: the matrices are read where they lie, only experts that are chosen, one block after another.

As in the readable body every block has the same number of rows and fills in the order of time, so that no row's bits depend on
what later positions choose; here the host knows the choice, so no block stays empty.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .numpy_activations import swiglu, swiglu_backward
from .numpy_blocks import flat, reference, served

LEAST, SHARE = 8, 4  # rows of a block at least, and blocks that an expert fills on average, as in the readable body


class Mixture(NamedTuple):
    x_shape: tuple[int, ...]
    logits_shape: tuple[int, ...]
    experts: tuple[Any, Any, Any]  # gate, up, down
    chosen: Any  # (N, k)
    weights: Any  # (N, k)
    answers: Any  # (N, k, D)
    blocks: list  # of each: its expert, its choices, what SwiGLU saved


def mixture_of_experts(x, logits, gate, up, down, top_k):
    if not served(x, logits, gate, up, down):
        return reference("mixture_of_experts", x, logits, gate, up, down, top_k)
    h, scores = by_time(x), by_time(logits)
    N, E = scores.shape
    # a stable ascending order of the reversed row, read backwards, is the stable descending order
    chosen = E - 1 - np.argsort(scores[:, ::-1], axis=-1, kind="stable")[:, : -top_k - 1 : -1]
    weights = np.take_along_axis(scores, chosen, axis=-1)
    weights = np.exp(weights - weights[:, :1])
    weights /= np.sum(weights, axis=-1, keepdims=True)
    answers = np.empty((N * top_k, h.shape[-1]), dtype=x.dtype)
    blocks = []
    for expert, choices, size in gathered(chosen, E):
        answer, saved = swiglu(filled(h[choices // top_k], size), gate[expert], up[expert], down[expert])
        answers[choices] = answer[: len(choices)]
        blocks.append((expert, choices, saved))
    answers = answers.reshape(N, top_k, -1)
    y = answers[:, 0] * weights[:, :1]
    for k in range(1, top_k):
        y += answers[:, k] * weights[:, k : k + 1]
    return by_place(y, x.shape), Mixture(x.shape, logits.shape, (gate, up, down), chosen, weights, answers, blocks)


def mixture_of_experts_backward(dy, saved):
    if not isinstance(saved, Mixture):
        return reference("mixture_of_experts_backward", dy, saved)
    x_shape, logits_shape, experts, chosen, weights, answers, blocks = saved
    (N, top_k), dh = chosen.shape, by_time(dy)
    dweights = np.stack([np.sum(dh * answers[:, k], axis=-1) for k in range(top_k)], axis=-1)
    dscores = weights * (dweights - np.sum(dweights * weights, axis=-1, keepdims=True))
    dlogits = np.zeros((N, logits_shape[-1]), dtype=dy.dtype)
    np.put_along_axis(dlogits, chosen, dscores, axis=-1)
    dexperts = [np.zeros(matrices.shape, dtype=dy.dtype) for matrices in experts]
    dpicked, shares = np.empty((N * top_k, dh.shape[-1]), dtype=dy.dtype), weights.reshape(-1, 1)
    for expert, choices, kept in blocks:
        drows, *dmatrices = swiglu_backward(filled(dh[choices // top_k] * shares[choices], len(kept.x)), kept)
        dpicked[choices] = drows[: len(choices)]
        for total, d in zip(dexperts, dmatrices, strict=True):
            total[expert] += d
    dx = dpicked.reshape(N, top_k, -1)
    dx = sum((dx[:, k] for k in range(1, top_k)), start=dx[:, 0])
    return by_place(dx, x_shape), by_place(dlogits, logits_shape), *dexperts


def gathered(chosen, n_experts: int) -> Iterator[tuple[int, Any, int]]:
    """Every block: its expert, which choices (numbers n·top_k + k) it holds, and how many rows it has."""
    (N, _), n = chosen.shape, chosen.size
    size = min(N, max(LEAST, -(-n // (SHARE * n_experts))))
    order = np.argsort(chosen, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(chosen.reshape(-1), minlength=n_experts)).tolist()
    for expert, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        for start in range(begin, end, size):
            yield expert, order[start : min(start + size, end)], size


def filled(rows, size: int):
    """rows: (n, D) -> (size, D), zeros below them."""
    if len(rows) == size:
        return rows
    block = np.zeros((size, rows.shape[-1]), dtype=rows.dtype)
    block[: len(rows)] = rows
    return block


def by_time(x):
    """x: (..., T, D) -> (N, D), the positions of all rows at time 0, then those at time 1, …"""
    return flat(x) if x.ndim < 3 else flat(x.reshape(-1, *x.shape[-2:]).transpose(1, 0, 2))


def by_place(y, shape: tuple[int, ...]):
    """The inverse of by_time."""
    return y.reshape(shape) if len(shape) < 3 else y.reshape(shape[-2], -1, shape[-1]).transpose(1, 0, 2).reshape(shape)


KERNELS = {"mixture_of_experts": mixture_of_experts, "mixture_of_experts_backward": mixture_of_experts_backward}
