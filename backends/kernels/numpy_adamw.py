"""AdamW and the global norm for NumPy: the flat vectors block by block, in place, the two halves of them on two threads.

The divisions of the bias corrections are folded into two numbers:

    lr·m̂ / (√v̂ + eps) = m / (√v · a + b),    a = (1 − β₁ᵗ) / (lr·√(1 − β₂ᵗ)),    b = eps·(1 − β₁ᵗ) / lr
"""

import math

import numpy as np

from .numpy_blocks import blocks, reference, served
from .numpy_parallel import in_parts

LONG = 1 << 18  # a vector from which on a second thread is worth waking
SLOWEST = 1e-20  # a learning rate below which 1 / lr might overflow
RUN = 4096  # elements added in the vector's own precision; the sums of such runs are added in float64


def adamw_update(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, n_decayed):
    vectors = (parameters, grads, mean, square)
    in_place = all(v.flags.writeable and v.flags.c_contiguous for v in vectors)
    if not served(*vectors) or not in_place or lr < SLOWEST:
        return reference("adamw_update", *vectors, step, lr, beta1, beta2, eps, weight_decay, n_decayed)
    undone = (1 - beta1**step) / lr
    a, b = undone / math.sqrt(1 - beta2**step), undone * eps
    decay = 1 - lr * weight_decay

    def update(start, stop):
        for block in blocks(stop - start, 1):
            here = slice(start + block.start, start + block.stop)
            p, g, m, v = (vector[here] for vector in vectors)
            x = g * (1 - beta1)
            m *= beta1
            m += x
            np.multiply(g, math.sqrt(1 - beta2), out=x)  # squared: (1 − β₂)·g²
            x *= x
            v *= beta2
            v += x
            np.sqrt(v, out=x)
            x *= a
            x += b
            np.divide(m, x, out=x)
            p[: max(0, n_decayed - here.start)] *= decay
            p -= x

    in_parts(update, len(parameters), LONG)
    return parameters, mean, square


def global_norm(vector):
    if not served(vector) or not vector.flags.c_contiguous:
        return reference("global_norm", vector)
    whole = len(vector) // RUN * RUN
    runs = vector[:whole].reshape(-1, RUN)
    squares = np.vecdot(runs, runs).sum(dtype=np.float64) + float(np.vecdot(vector[whole:], vector[whole:]))
    return np.asarray(math.sqrt(squares), dtype=vector.dtype)


KERNELS = {"adamw_update": adamw_update, "global_norm": global_norm}
