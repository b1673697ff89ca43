"""Dropout at a named place of a model, or none: outside training, and at rate zero, x passes unchanged."""

from refllm.layers.dropout import Dropout, dropout, dropout_backward, uniforms


def drop(x, how: Dropout | None, name: str):
    """Drop numbers of x: (...) at random; the same name, seed and step always drop the same ones."""
    if how is None or how.rate == 0:
        return x, None
    return dropout(x, uniforms(how, name, x.shape, x), how.rate)


def drop_backward(dy, saved):
    """Return dx: (...), given dy: (...)."""
    return dy if saved is None else dropout_backward(dy, saved)
