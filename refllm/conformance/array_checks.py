"""Every name of the array API that computes, held to the bounded oracle."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from .check import Check
from .strategies import integers, normals, reals, truths, width

shapes = st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4), (33,)])


def _named(name, draw, compute=None, halves=True):
    """A check of one name; compute defaults to calling it on the drawn arguments."""

    def call(backend, arguments):
        return {"y": getattr(backend.xp, name)(*arguments)}

    return Check(name, "array_api", draw, compute or call, halves)


def _of(f):
    """compute from a function (xp, *arguments) -> array, or a dict of them."""

    def call(backend, arguments):
        y = f(backend.xp, *arguments)
        return y if isinstance(y, dict) else {"y": y}

    return call


def _one(low=None, high=None):
    """One array of any of the shapes, its values held between low and high."""
    arrays = shapes.flatmap(reals)
    return (arrays if low is None else arrays.map(lambda x: np.clip(x, low, high).astype(np.float32))).map(lambda x: (x,))


@st.composite
def _two(draw, numbers=reals):
    """Two arrays of one shape, or of shapes that broadcast."""
    shape = draw(shapes)
    other = draw(st.sampled_from([shape, shape[-1:], (*shape[:-1], 1)]))
    return draw(numbers(shape)), draw(numbers(other))


@st.composite
def _two_integers(draw, low=0, high=1000):
    shape = draw(shapes)
    return draw(integers(shape, low, high)), draw(integers(shape, low, high))


@st.composite
def _matrices(draw):
    b, t, n, m = draw(st.sampled_from([(), (2,), (2, 3)])), draw(width), draw(width), draw(width)
    return draw(reals((*b, t, n))), draw(reals((*b, n, m)))


@st.composite
def _rows_to_add(draw):
    v, d, n = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 40))
    return draw(reals((v, d))), draw(integers((n,), 0, v)), draw(reals((n, d)))


@st.composite
def _gathered(draw):
    v, d, n = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 12))
    return draw(reals((v, d))), draw(integers((n,), 0, v)), draw(integers((v, n), 0, d))


@st.composite
def _written(draw):
    s, t, d = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    return draw(reals((2, s + t, d))), draw(st.integers(0, s)), draw(reals((2, t, d)))


@st.composite
def _segments(draw):
    n = draw(st.integers(1, 30))
    starts = sorted({0, *draw(st.lists(st.integers(0, n - 1), max_size=5))})
    return draw(integers((n,), 0, 1000)), np.asarray(starts, dtype=np.int32)


@st.composite
def _sorted_and_probes(draw):
    return np.sort(draw(normals((draw(st.integers(1, 20)),)))), draw(normals((7,)))


def _ties(draw_shape=(4, 9)):
    """Small whole numbers as reals: full of ties."""
    return integers(draw_shape, 0, 4).map(lambda x: (x.astype(np.float32),))


ELEMENTWISE = {
    "abs": _one(),
    "sqrt": _one(0, 1e6),
    "square": _one(),
    "exp": _one(-80, 80),
    "expm1": _one(-80, 80),
    "log": _one(1e-30, 1e6),
    "log1p": _one(-0.9, 1e6),
    "tanh": _one(),
    "sin": _one(-100, 100),
    "cos": _one(-100, 100),
    "floor": _one(),
    "round": _one(-1e4, 1e4),
    "sign": _one(),
    "negative": _one(),
    "isfinite": _one(),
    "isnan": _one(),
    "erf": _one(),
    "rsqrt": _one(1e-6, 1e6),
}
EXACT = ("floor", "round", "sign")
PAIRS = (
    "add",
    "subtract",
    "multiply",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
)
INTEGER_PAIRS = ("bitwise_and", "bitwise_or", "bitwise_xor", "add", "subtract", "multiply")
REDUCTIONS = ("sum", "mean", "max", "min")

CHECKS = [
    *(_named(name, draw) for name, draw in ELEMENTWISE.items()),
    *(_named(name, _two()) for name in PAIRS),
    _named("divide", _two().map(lambda p: (p[0], np.where(np.abs(p[1]) < 1e-3, np.float32(1), p[1])))),
    _named("pow", _one(1e-3, 30), _of(lambda xp, x: {"square": x**2, "root": x**0.5, "inverse": x**-1.5}), halves=False),
    *(replace(_named(name, _two_integers(), halves=False), name=f"{name} of integers") for name in INTEGER_PAIRS),
    _named("floor_divide", _two_integers(1, 100), halves=False),
    _named("remainder", _two_integers(1, 100), halves=False),
    _named("bitwise_left_shift", _two_integers(0, 15), halves=False),
    _named("bitwise_right_shift", _two_integers(0, 15), halves=False),
    _named("logical_and", st.tuples(truths((3, 4)), truths((3, 4))), halves=False),
    _named("logical_or", st.tuples(truths((3, 4)), truths((3, 4))), halves=False),
    _named("logical_not", st.tuples(truths((3, 4))), halves=False),
    _named("any", st.tuples(truths((3, 4), 0.2)), _of(lambda xp, x: {"all": xp.any(x), "rows": xp.any(x, axis=1)}), halves=False),
    _named("all", st.tuples(truths((3, 4), 0.9)), _of(lambda xp, x: {"all": xp.all(x), "rows": xp.all(x, axis=1)}), halves=False),
    _named("clip", _one(), _of(lambda xp, x: xp.clip(x, -1.0, 2.0))),
    _named("where", st.tuples(truths((3, 5)), reals((3, 5)), reals((5,)))),
    _named("matmul", _matrices()),
    *(
        _named(
            name,
            reals((3, 33)).map(lambda x: (x,)),
            _of(
                lambda xp, x, name=name: {
                    "all": getattr(xp, name)(x),
                    "rows": getattr(xp, name)(x, axis=1, keepdims=True),
                    "columns": getattr(xp, name)(x, axis=0),
                }
            ),
            halves=name in ("max", "min"),
        )
        for name in REDUCTIONS
    ),
    _named("argmax", _ties(), _of(lambda xp, x: xp.argmax(x, axis=-1))),
    _named("count_nonzero", _ties(), _of(lambda xp, x: xp.count_nonzero(x, axis=1))),
    _named("cumulative_sum", reals((3, 33)).map(lambda x: (x,)), _of(lambda xp, x: xp.cumulative_sum(x, axis=1)), halves=False),
    _named(
        "sort",
        reals((3, 17)).map(lambda x: (x,)),
        _of(lambda xp, x: {"up": xp.sort(x, axis=1), "down": xp.sort(x, axis=1, descending=True)}),
    ),
    _named("argsort", _ties(), _of(lambda xp, x: {"up": xp.argsort(x, axis=1), "down": xp.argsort(x, axis=1, descending=True)})),
    _named(
        "searchsorted",
        _sorted_and_probes(),
        _of(lambda xp, a, v: {"left": xp.searchsorted(a, v), "right": xp.searchsorted(a, v, side="right")}),
        halves=False,
    ),
    _named("take", _gathered(), _of(lambda xp, table, rows, _: xp.take(table, rows, axis=0))),
    _named("take_along_axis", _gathered(), _of(lambda xp, table, _, places: xp.take_along_axis(table, places, axis=1))),
    _named(
        "reshape",
        reals((2, 3, 4)).map(lambda x: (x,)),
        _of(
            lambda xp, x: {
                "reshape": xp.reshape(x, (4, -1)),
                "permute_dims": xp.permute_dims(x, (2, 0, 1)),
                "matrix_transpose": xp.matrix_transpose(x),
                "expand_dims": xp.expand_dims(x, axis=1),
                "squeeze": xp.squeeze(x[:, :1, :], axis=1),
                "broadcast_to": xp.broadcast_to(x[:, :, :1], (5, 2, 3, 4)),
                "concat": xp.concat([x, x[:, 1:, :]], axis=1),
                "stack": xp.stack([x, -x], axis=0),
                "flip": xp.flip(x, axis=2),
                "repeat": xp.repeat(x, 3, axis=1),
                "roll": xp.roll(x, 2, axis=2),
                "tril": xp.tril(x, k=1),
                "triu": xp.triu(x),
                "index": x[..., None, 1:3],
            }
        ),
    ),
    _named("scatter_add", _rows_to_add()),
    _named("write", _written(), _of(lambda xp, buffer, start, value: xp.write(buffer, start, value, 1))),
    _named("segment_min", _segments(), halves=False),
    _named("compress", st.tuples(reals((9, 2)), truths((9,)))),
    _named("cumulative_max", reals((17,)).map(lambda x: (x,))),
    _named("astype", integers((3, 4), 0, 1000).map(lambda x: (x,)), _of(lambda xp, x: xp.astype(x, xp.float32)), halves=False),
    _named(
        "arange",
        st.tuples(st.integers(1, 9)),
        _of(
            lambda xp, n: {
                "arange": xp.arange(n, dtype=xp.int32),
                "zeros": xp.zeros((n, 2), dtype=xp.float32),
                "ones": xp.ones((n,), dtype=xp.float32),
                "full": xp.full((n,), 0.5, dtype=xp.float32),
                "eye": xp.eye(n, dtype=xp.float32),
                "asarray": xp.asarray([[1.5, -2.0]], dtype=xp.float32),
            }
        ),
        halves=False,
    ),
]
