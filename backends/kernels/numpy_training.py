"""The loss and its gradient for NumPy: parts of the batch side by side on threads, BLAS at one thread (see `numpy_parallel`).

    loss = Σᵢ wᵢ·lossᵢ          grads = Σᵢ wᵢ·gradsᵢ          wᵢ = targets that count in part i / targets that count

The weight enters where the backward pass begins, so that the parts' gradients need only be added, straight into the flat vector.
The batch is split by its rows and the parts are added in their order: the same number of threads gives the same bits.
A model whose auxiliary loss measures the whole batch goes undivided.
"""

import numpy as np

from refllm.array_api import OPS

from .numpy_blocks import reference
from .numpy_parallel import blas_threads, threads, together

IGNORED = -100


def loss_and_gradients(vector, tokens, targets, layout, model, config, dropout=None, checkpointing=False):
    couples_rows = getattr(model, "has_auxiliary", None)
    parts = 1 if couples_rows and couples_rows(config) else min(threads(), len(tokens))
    if parts < 2:
        return reference("loss_and_gradients", vector, tokens, targets, layout, model, config, dropout, checkpointing)
    params = _views(vector, layout)
    kept = targets != IGNORED
    count = max(np.count_nonzero(kept), 1)

    def part(rows):
        weight = np.asarray(np.count_nonzero(kept[rows]) / count, dtype=vector.dtype)
        drops = None if dropout is None else of_rows(dropout, rows, len(tokens))
        output = model.forward(params, tokens[rows], config, dropout=drops, checkpointing=checkpointing)
        loss, compared = OPS["cross_entropy"](output.logits, targets[rows], IGNORED)
        dlogits = OPS["cross_entropy_backward"](weight, compared)
        return loss * weight, model.backward(dlogits, output.saved)

    ends = [len(tokens) * i // parts for i in range(parts + 1)]
    with blas_threads().held_to_one():
        results = together([lambda rows=slice(a, b): part(rows) for a, b in zip(ends, ends[1:], strict=False)])
        losses, grads = zip(*results, strict=True)
        total = np.empty_like(vector)
        sums = list(_views(total, layout).items())
        together([lambda mine=sums[i::parts]: _add(mine, grads) for i in range(parts)])
    return np.asarray(sum(losses), dtype=vector.dtype), total


def of_rows(dropout, rows: slice, n: int):
    """The dropout of some of n rows, themselves perhaps part of a larger batch: they drop what the whole batch drops there."""
    first, _, whole = dropout.rows or (0, n, n)
    return dropout._replace(rows=(first + rows.start, first + rows.stop, whole))


def _views(vector, layout):
    """The tensors that lie in the vector, by name: training's `unpack`, which stands on a floor above this one."""
    ends = (*layout.offsets[1:], layout.size)
    pieces = zip(layout.names, layout.shapes, layout.offsets, ends, strict=True)
    return {name: vector[begin:end].reshape(shape) for name, shape, begin, end in pieces}


def _add(sums, grads):
    for name, total in sums:
        np.add(grads[0][name], grads[1][name], out=total)
        for more in grads[2:]:
            total += more[name]


KERNELS = {"loss_and_gradients": loss_and_gradients}
