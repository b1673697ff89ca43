"""Primitives written in the standard's names alone, for a backend whose library has nothing better.

They are slower than a library's own: a scatter becomes a matrix product, a running minimum takes log₂ n passes.
"""

from .dispatch import namespace


def scatter_add(y, indices, rows):
    """y: (V, ...) with rows[n]: (...) added to y[indices[n]]; a product with the one-hot matrix of the indices."""
    xp = namespace(y)
    dtype = xp.float32 if xp.isdtype(y.dtype, "real floating") and xp.finfo(y.dtype).bits < 32 else y.dtype
    hits = indices[None, :] == xp.arange(y.shape[0], dtype=indices.dtype)[:, None]  # (V, N)
    flat = xp.astype(xp.reshape(rows, (rows.shape[0], -1)), dtype)
    total = xp.reshape(xp.matmul(xp.astype(hits, dtype), flat), y.shape)
    return xp.astype(xp.astype(y, dtype) + total, y.dtype)


def write(buffer, start, value, axis):
    """buffer itself, with value written through a slice."""
    axis = axis % buffer.ndim
    where = (slice(None),) * axis + (slice(start, start + value.shape[axis]), ...)
    buffer[where] = value
    return buffer


def _running(least, values, same):
    """Running extremes by doubling: after step s each element has seen the 2s before it that `same(s)` allows."""
    xp = namespace(values)
    step = 1
    while step < values.shape[0]:
        joined = xp.where(same(step), least(values[step:], values[:-step]), values[step:])
        values = xp.concat([values[:step], joined], axis=0)
        step *= 2
    return values


def cumulative_max(x):
    """Running maximum of a vector."""
    xp = namespace(x)
    return _running(xp.maximum, x, lambda step: xp.ones(x.shape[0] - step, dtype=xp.bool))


def segment_min(values, starts):
    """The least of values[starts[i]:starts[i+1]] for every i; the last segment ends with values."""
    xp = namespace(values)
    n = values.shape[0]
    segments = xp.searchsorted(starts, xp.arange(n, dtype=starts.dtype), side="right")  # which one each value is in
    running = _running(xp.minimum, values, lambda step: segments[step:] == segments[:-step])
    last = xp.asarray([n - 1], dtype=starts.dtype)
    return xp.take(running, xp.concat([starts[1:] - 1, last], axis=0), axis=0)


def compress(x, keep):
    """The rows of x where keep is true, in order; their number crosses to the host."""
    xp = namespace(x)
    order = xp.argsort(xp.astype(keep, xp.uint8), descending=True, stable=True)
    return xp.take(x, order[: int(xp.count_nonzero(keep))], axis=0)


def rsqrt(x):
    """1/√x."""
    return 1 / namespace(x).sqrt(x)


def all_sum(x):
    """x itself: one process."""
    return x


def nothing(*arrays):
    """What evaluating and synchronising come to where a library computes at once."""
