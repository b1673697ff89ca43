"""Dropout (Srivastava et al. 2014, JMLR 15): forget at random in training, and keep the expectation.

y = x / (1 − rate) where uniform ≥ rate, else 0

The random numbers are an argument. They come from the host, addressed by (seed, name, step), so that every backend
drops the same numbers, and a resumed run the same as one never stopped.
"""

from typing import NamedTuple

from refllm.array_api import generator, namespace, op


class Dropout(NamedTuple):
    """What addresses the random numbers of one training step."""

    rate: float  # the share of numbers that are dropped, 0 ≤ rate < 1
    seed: int  # the run's seed
    step: int  # the training step
    rows: tuple[int, int, int] | None = None  # of a part of a batch: its first row, the one after its last, and of how many


def uniforms(dropout: Dropout, name: str, shape: tuple[int, ...], like):
    """Return float32 uniforms in [0, 1) of a shape, in the backend of the array `like`.

    name: the place in the model, such as "layers.0.attention"; the same address gives the same numbers everywhere,
    and a part of a batch gets its rows of those that the whole batch has.
    """
    first, end, n = dropout.rows or (0, shape[0], shape[0])
    numbers = generator(dropout.seed, f"dropout/{name}", dropout.step).random((n, *shape[1:]), dtype="float32")
    return namespace(like).from_numpy(numbers[first:end])


@op
def dropout(x, uniforms, rate):
    """Drop the numbers of x whose uniform is below the rate, and scale up the others.

    x: (...)    uniforms: (...), in [0, 1)    rate: float, the share to drop, 0 ≤ rate < 1
    Returns y: (...) and what the backward pass needs.
    """
    xp = namespace(x)
    kept = uniforms >= rate
    return xp.where(kept, x * (1 / (1 - rate)), 0.0), (kept, rate)


@op
def dropout_backward(dy, saved):
    """Return dx: (...), given dy: (...). The map is linear and diagonal, hence its own transpose."""
    xp = namespace(dy)
    kept, rate = saved
    return xp.where(kept, dy * (1 / (1 - rate)), 0.0)
