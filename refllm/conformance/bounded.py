"""Numbers that know how wrong they may be: the float64 oracle behind every tolerance (spec/accuracy.md).

A `Bounded` array holds a value in float64 and, element by element, a bound on the error that the same computation may make in
a narrower dtype, in whatever order a backend adds. It is an array type like any other, with a backend of its own: the readable
body of an op runs on it unchanged, and what comes out is the oracle's result and the bound that the op's result must keep.

The analysis is Higham 2002, §3.3: the error of f(x) is what f moves within the error of x, plus f's own rounding.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import Backend, register

from .specification import spec_folder


class Float(NamedTuple):
    """A floating dtype that a computation pretends to run in, with finfo's numbers."""

    name: str
    eps: float  # the gap above 1
    max: float
    smallest_normal: float

    @property
    def min(self) -> float:
        return -self.max


FLOATS = {
    "float16": Float("float16", 2.0**-10, 65504.0, 2.0**-14),
    "bfloat16": Float("bfloat16", 2.0**-7, 3.3895313892515355e38, 2.0**-126),
    "float32": Float("float32", 2.0**-23, 3.4028234663852886e38, 2.0**-126),
}
HALVES = (FLOATS["float16"], FLOATS["bfloat16"])
INTEGERS = {name: np.dtype(name) for name in ("bool", "int8", "uint8", "uint16", "uint32", "int32", "int64")}


@cache
def elementary_constants() -> dict[str, tuple[float, float, float]]:
    """(C, C₀, Cₓ) of each elementary function, in units of eps, from the table in spec/accuracy.md."""
    text = (spec_folder() / "accuracy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z0-9 ]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    return {name: (float(c), float(c0), float(cx)) for names, c, c0, cx in rows for name in names.split()}


class Bounded:
    """value ± error, in a pretended dtype.

    value: any shape; float64 for a `Float` dtype, else an exact integer or boolean array    error: the same shape, ≥ 0
    """

    __array_ufunc__ = None  # NumPy leaves mixed operators to us
    __slots__ = ("dtype", "error", "value")

    def __init__(self, value, error, dtype):
        self.value, self.dtype = np.asarray(value), dtype
        if error is None:
            self.error = np.zeros(self.value.shape)
        else:  # 0 · ∞ and ∞ − ∞ say nothing of the error, unless the value itself is infinite and compared as such
            unknown = np.where(np.isfinite(self.value), np.inf, 0.0)
            self.error = np.where(np.isnan(error), unknown, np.broadcast_to(error, self.value.shape))

    @property
    def shape(self):
        return self.value.shape

    @property
    def ndim(self):
        return self.value.ndim

    @property
    def size(self):
        return self.value.size

    def __repr__(self):
        return f"Bounded({self.value!r} ± {self.error!r})"

    def __getitem__(self, key):
        return Bounded(self.value[key], self.error[key], self.dtype)

    def __bool__(self):
        return bool(self.value)

    def __int__(self):
        return int(self.value)

    def __index__(self):
        return int(self.value)

    def __float__(self):
        return float(self.value)

    def __neg__(self):
        return Bounded(-self.value, self.error, self.dtype)

    def __invert__(self):
        return Bounded(~self.value, None, self.dtype)


_MOVES: ContextVar[np.random.Generator | None] = ContextVar("moves", default=None)


@contextmanager
def moved_at_random(seed: int) -> Iterator[None]:
    """Inside the block no error is carried; instead every result is moved by a random part of its own rounding.

    This is Monte Carlo arithmetic (Parker 1997, UCLA CSD-970002). Bounds carried through a whole model grow far beyond what
    can happen, because they forget that errors are related; how far its results scatter under random rounding does not.
    """
    token = _MOVES.set(np.random.default_rng(seed))
    try:
        yield
    finally:
        _MOVES.reset(token)


def _result(value, carried, rounding, dtype) -> Bounded:
    """A result, the error that its operands bring, and the rounding of its own; halves round once more when stored."""
    moves = _MOVES.get()
    if moves is None:
        return Bounded(value, carried + rounding, dtype)
    return Bounded(value + moves.uniform(-1, 1, np.shape(value)) * rounding, None, dtype)


def _rounded(name: str, value, carried, dtype) -> Bounded:
    """The result of an elementary function, with the rounding that spec/accuracy.md allows it."""
    c, c0, _ = elementary_constants()[name]
    size = np.where(np.isfinite(value), np.abs(value), 0.0)
    flushed = np.where((size > 0) & (size < 2 * dtype.smallest_normal), dtype.smallest_normal, 0.0)  # subnormals may become 0
    return _result(value, carried, dtype.eps * (c * size + c0) + flushed, dtype)


def _pair(x, y) -> tuple[Bounded, Bounded, Any]:
    """Two operands and their common dtype; Python scalars take the array's."""
    if not isinstance(x, Bounded):
        x = Bounded(np.asarray(x, dtype=np.float64 if isinstance(y.dtype, Float) else y.dtype), None, y.dtype)
    if not isinstance(y, Bounded):
        y = Bounded(np.asarray(y, dtype=np.float64 if isinstance(x.dtype, Float) else x.dtype), None, x.dtype)
    return x, y, result_type(x, y)


def add(x, y, /):
    x, y, dtype = _pair(x, y)
    if not isinstance(dtype, Float):
        return Bounded(x.value + y.value, None, dtype)
    return _rounded("add", x.value + y.value, x.error + y.error, dtype)


def subtract(x, y, /):
    x, y, dtype = _pair(x, y)
    if not isinstance(dtype, Float):
        return Bounded(x.value - y.value, None, dtype)
    with np.errstate(invalid="ignore"):
        return _rounded("subtract", x.value - y.value, x.error + y.error, dtype)


def multiply(x, y, /):
    x, y, dtype = _pair(x, y)
    if not isinstance(dtype, Float):
        return Bounded(x.value * y.value, None, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(x.value) * y.error + np.abs(y.value) * x.error + x.error * y.error
        return _rounded("multiply", x.value * y.value, error, dtype)


def divide(x, y, /):
    x, y, dtype = _pair(x, y)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = x.value / y.value
        certain = np.abs(y.value) - y.error  # the least that the divisor can be
        error = np.where(x.error + y.error > 0, (x.error + np.abs(z) * y.error) / np.maximum(certain, 0.0), 0.0)
        return _rounded("divide", z, error, dtype)


def pow(x, y, /):
    if not isinstance(y, int | float):
        raise TypeError("the bounded oracle takes powers with a Python number as exponent.")
    with np.errstate(invalid="ignore", divide="ignore"):
        z = x.value**y
        size = np.abs(x.value)
        error = np.maximum(np.abs((size + x.error) ** y - size**y), math.fabs(y) * size ** (y - 1) * x.error)
        return _rounded("pow", z, np.where(x.error > 0, error, 0.0), x.dtype)


def _monotone(name, f):
    """A rising function: it moves most to one end of x ± e."""

    def bounded(x, /):
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            z = f(x.value)
            size = np.where(np.isfinite(x.value), np.abs(x.value), 0.0)  # an infinite argument is exact
            argument = elementary_constants()[name][2] * x.dtype.eps * size
            if _MOVES.get() is not None:
                z = f(_result(x.value, None, argument, x.dtype).value)
            off = x.error + argument
            up, down = f(x.value + off) - z, z - f(x.value - off)
            return _rounded(name, z, np.where(off > 0, np.maximum(up, down), 0.0), x.dtype)

    bounded.__name__ = name
    return bounded


def _positive(f):
    """f of |x| held at zero from below, where its domain ends."""
    return lambda x: f(np.maximum(x, 0.0))


exp = _monotone("exp", np.exp)
expm1 = _monotone("expm1", np.expm1)
log = _monotone("log", _positive(np.log))
log1p = _monotone("log1p", np.log1p)
sqrt = _monotone("sqrt", _positive(np.sqrt))
tanh = _monotone("tanh", np.tanh)
_math_erf = np.frompyfunc(math.erf, 1, 1)
erf = _monotone("erf", lambda x: np.asarray(_math_erf(x), dtype=np.float64))


def rsqrt(x, /):
    with np.errstate(divide="ignore"):
        z = 1 / np.sqrt(x.value)
        moved = 1 / np.sqrt(np.maximum(x.value - x.error, 0.0)) - z
    return _rounded("rsqrt", z, np.where(x.error > 0, moved, 0.0), x.dtype)


def sin(x, /):
    return _rounded("sin", np.sin(x.value), x.error, x.dtype)


def cos(x, /):
    return _rounded("cos", np.cos(x.value), x.error, x.dtype)


def square(x, /):
    return multiply(x, x)


def _accumulator(dtype) -> float:
    """eps of the dtype in which a sum over this dtype runs."""
    return FLOATS["float32"].eps if dtype in HALVES else dtype.eps


def _accumulated(value, carried, rounding, dtype) -> Bounded:
    """The result of a sum, run in float32 at least; halves round once more when it is stored."""
    return _result(value, carried, rounding + (dtype.eps * np.abs(value) if dtype in HALVES else 0.0), dtype)


def _count(x, axis) -> int:
    if axis is None:
        return x.size
    return math.prod(x.shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    value = np.sum(x.value, axis=axis, keepdims=keepdims)
    if not isinstance(x.dtype, Float):
        dtype = dtype or (np.dtype("int64") if x.dtype == np.bool_ else x.dtype)
        return Bounded(value.astype(dtype), None, np.dtype(dtype))
    dtype = dtype or x.dtype
    rounding = _accumulator(dtype) * _count(x, axis) * np.sum(np.abs(x.value), axis=axis, keepdims=keepdims)
    return _accumulated(value, np.sum(x.error, axis=axis, keepdims=keepdims), rounding, dtype)


def mean(x, /, *, axis=None, keepdims=False):
    n = _count(x, axis)
    value = np.mean(x.value, axis=axis, keepdims=keepdims)
    rounding = _accumulator(x.dtype) * (n + 1) * np.mean(np.abs(x.value), axis=axis, keepdims=keepdims)
    return _accumulated(value, np.mean(x.error, axis=axis, keepdims=keepdims), rounding, x.dtype)


def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    value = np.cumulative_sum(x.value, axis=axis, include_initial=include_initial)
    if not isinstance(x.dtype, Float):
        dtype = dtype or (np.dtype("int64") if x.dtype == np.bool_ else x.dtype)
        return Bounded(value.astype(dtype), None, np.dtype(dtype))
    n = x.shape[-1 if axis is None else axis]
    error = np.cumulative_sum(x.error, axis=axis, include_initial=include_initial)
    rounding = _accumulator(x.dtype) * n * np.cumulative_sum(np.abs(x.value), axis=axis, include_initial=include_initial)
    return _accumulated(value, error, rounding, dtype or x.dtype)


def matmul(x, y, /):
    x, y, dtype = _pair(x, y)
    a, b = np.abs(x.value), np.abs(y.value)
    n = x.shape[-1]
    rounding = _accumulator(dtype) * n * (a @ b) + n * dtype.smallest_normal  # small products may be flushed to zero
    return _accumulated(x.value @ y.value, a @ y.error + x.error @ b + x.error @ y.error, rounding, dtype)


def max(x, /, *, axis=None, keepdims=False):
    return Bounded(np.max(x.value, axis=axis, keepdims=keepdims), np.max(x.error, axis=axis, keepdims=keepdims), x.dtype)


def min(x, /, *, axis=None, keepdims=False):
    return Bounded(np.min(x.value, axis=axis, keepdims=keepdims), np.max(x.error, axis=axis, keepdims=keepdims), x.dtype)


def _choice(f):
    """maximum and minimum: within the larger of the two errors, for a near-tie may fall either way."""

    def bounded(x, y, /):
        x, y, dtype = _pair(x, y)
        return Bounded(f(x.value, y.value), np.maximum(x.error, y.error), dtype)

    return bounded


maximum, minimum = _choice(np.maximum), _choice(np.minimum)


def clip(x, /, min=None, max=None):
    low, high = (b.value if isinstance(b, Bounded) else b for b in (min, max))
    return Bounded(np.clip(x.value, low, high), x.error, x.dtype)


def abs(x, /):
    return Bounded(np.abs(x.value), x.error, x.dtype)


def negative(x, /):
    return -x


def where(condition, x, y, /):
    x, y, dtype = _pair(x, y)
    return Bounded(np.where(condition.value, x.value, y.value), np.where(condition.value, x.error, y.error), dtype)


def _exact(f, dtype=None):
    """A function whose result is an integer or a truth value, computed from the values."""

    def bounded(*arrays, **options):
        value = np.asarray(f(*(a.value if isinstance(a, Bounded) else a for a in arrays), **options))
        return Bounded(value if dtype is None else value.astype(dtype), None, value.dtype if dtype is None else dtype)

    return bounded


def _moved(f):
    """A function that only moves elements: value and error go the same way."""

    def bounded(x, /, *args, **options):
        args = tuple(a.value if isinstance(a, Bounded) else a for a in args)
        return Bounded(f(x.value, *args, **options), f(x.error, *args, **options), x.dtype)

    return bounded


def _joined(f):
    def bounded(arrays, /, *, axis=0):
        return Bounded(f([a.value for a in arrays], axis=axis), f([a.error for a in arrays], axis=axis), result_type(*arrays))

    return bounded


def sort(x, /, *, axis=-1, descending=False, stable=True):
    value = np.sort(x.value, axis=axis)
    value = np.flip(value, axis=axis) if descending else value
    return Bounded(value, np.max(x.error, axis=axis, keepdims=True), x.dtype)


def argsort(x, /, *, axis=-1, descending=False, stable=True):
    key = -x.value if descending else x.value
    return Bounded(np.argsort(key, axis=axis, stable=True), None, np.dtype("int64"))


def astype(x, dtype, /, *, copy=True):
    if isinstance(dtype, Float):
        value = x.value.astype(np.float64)
        rounding = dtype.eps * np.abs(value) if isinstance(x.dtype, Float) and dtype.eps > x.dtype.eps else 0.0
        if not isinstance(x.dtype, Float):
            rounding = dtype.eps * np.abs(value) * (np.abs(value) > 1 / dtype.eps)  # larger integers round
        return _result(value, x.error, rounding, dtype)
    return Bounded(x.value.astype(dtype), None, np.dtype(dtype))


def _kind(dtype) -> str:
    if isinstance(dtype, Float):
        return "real floating"
    return {"b": "bool", "i": "signed integer", "u": "unsigned integer"}[np.dtype(dtype).kind]


def isdtype(dtype, kind):
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if not isinstance(kind, str):
        return dtype == kind
    groups = {
        "integral": ("signed integer", "unsigned integer"),
        "numeric": ("signed integer", "unsigned integer", "real floating"),
    }
    return _kind(dtype) in groups.get(kind, (kind,))


def result_type(*operands):
    dtypes = [o.dtype if isinstance(o, Bounded) else o for o in operands if not isinstance(o, int | float)]
    floats = [d for d in dtypes if isinstance(d, Float)]
    if floats:
        widest = sorted(floats, key=lambda d: d.eps)[0]
        return FLOATS["float32"] if len({d.name for d in floats}) > 1 else widest
    return np.result_type(*dtypes)


def _host(dtype):
    return np.float64 if isinstance(dtype, Float) else dtype


def asarray(obj, /, *, dtype=None, copy=None):
    if isinstance(obj, Bounded):
        return obj if dtype is None else astype(obj, dtype)
    value = np.asarray(obj)
    if dtype is None:
        dtype = FLOATS["float32"] if value.dtype.kind == "f" else value.dtype
    value = value.astype(_host(dtype))
    if not isinstance(dtype, Float):
        return Bounded(value, None, dtype)
    return _result(value, 0.0, np.abs(value) * dtype.eps, dtype)  # a Python number rounds to the dtype


def _created(f):
    def bounded(*args, dtype=None, **options):
        dtype = FLOATS["float32"] if dtype is None else dtype
        return Bounded(f(*args, dtype=_host(dtype), **options), None, dtype)

    return bounded


def _like(f):
    def bounded(x, /, *args, dtype=None, **options):
        dtype = x.dtype if dtype is None else dtype
        return Bounded(f(x.value, *args, dtype=_host(dtype), **options), None, dtype)

    return bounded


def arange(start, /, stop=None, step=1, *, dtype=None):
    dtype = np.dtype("int64") if dtype is None else dtype
    return Bounded(
        np.arange(start, stop, step, dtype=_host(dtype)) if stop is not None else np.arange(start, dtype=_host(dtype)),
        None,
        dtype,
    )


def from_numpy(a, dtype=None):
    """An exact array. Floating values must be exact in the dtype they pretend to have."""
    a = np.asarray(a)
    dtype = FLOATS[a.dtype.name] if dtype is None and a.dtype.name in FLOATS else a.dtype if dtype is None else dtype
    return Bounded(a.astype(_host(dtype)), None, dtype)


def scatter_add(y, indices, rows):
    value, error, scale = y.value.copy(), y.error.copy(), np.abs(y.value)
    np.add.at(value, indices.value, rows.value)
    if not isinstance(y.dtype, Float):
        return Bounded(value, None, y.dtype)
    np.add.at(error, indices.value, rows.error)
    np.add.at(scale, indices.value, np.abs(rows.value))
    most = int(np.max(np.bincount(indices.value.reshape(-1)))) + 1 if indices.size else 1
    return _accumulated(value, error, _accumulator(y.dtype) * most * scale, y.dtype)


def write(buffer, start, value, axis):
    where = [slice(None)] * buffer.ndim
    where[axis] = slice(int(start), int(start) + value.shape[axis])
    filled, error = buffer.value.copy(), buffer.error.copy()
    filled[tuple(where)], error[tuple(where)] = value.value, value.error
    return Bounded(filled, error, buffer.dtype)


def _operator(name, f, swapped=False):
    setattr(Bounded, name, (lambda self, other: f(other, self)) if swapped else lambda self, other: f(self, other))


_COMPARISONS = {
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}
_INTEGER_ONLY = {
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.bitwise_left_shift,
    "bitwise_right_shift": np.bitwise_right_shift,
}
_NAMESPACE = {
    **FLOATS,
    **INTEGERS,
    "inf": math.inf,
    **{n: _exact(f, np.dtype("bool")) for n, f in _COMPARISONS.items()},
    **{n: _exact(f) for n, f in _INTEGER_ONLY.items()},
    **{
        n: _exact(getattr(np, n), np.dtype("bool"))
        for n in ("isfinite", "isnan", "logical_and", "logical_or", "logical_not", "any", "all")
    },
    **{n: _exact(getattr(np, n)) for n in ("argmax", "count_nonzero", "searchsorted")},
    **{
        n: _moved(getattr(np, n))
        for n in ("matrix_transpose", "reshape", "permute_dims", "expand_dims", "squeeze", "broadcast_to")
    },
    **{n: _moved(getattr(np, n)) for n in ("flip", "repeat", "roll", "tril", "triu", "take", "take_along_axis")},
    **{n: _moved(getattr(np, n)) for n in ("floor", "round", "sign")},
    "concat": _joined(np.concat),
    "stack": _joined(np.stack),
    **{n: _created(getattr(np, n)) for n in ("zeros", "ones", "full", "empty", "eye")},
    **{n: _like(getattr(np, n)) for n in ("zeros_like", "ones_like", "full_like", "empty_like")},
    "finfo": lambda dtype: dtype.dtype if isinstance(dtype, Bounded) else dtype,
    "iinfo": lambda dtype: np.iinfo(dtype.dtype if isinstance(dtype, Bounded) else dtype),
}
_NAMESPACE |= {
    f.__name__: f
    for f in (
        add,
        subtract,
        multiply,
        divide,
        pow,
        exp,
        expm1,
        log,
        log1p,
        sqrt,
        tanh,
        sin,
        cos,
        square,
        sum,
        mean,
        cumulative_sum,
    )
    + (matmul, max, min, clip, abs, negative, where, sort, argsort, astype, isdtype, result_type, asarray, arange)
}
_NAMESPACE |= {"maximum": maximum, "minimum": minimum}

for _symbol, _name in (
    ("add", "add"),
    ("sub", "subtract"),
    ("mul", "multiply"),
    ("truediv", "divide"),
    ("floordiv", "floor_divide"),
    ("mod", "remainder"),
    ("pow", "pow"),
    ("matmul", "matmul"),
    ("and", "bitwise_and"),
    ("or", "bitwise_or"),
    ("xor", "bitwise_xor"),
    ("lshift", "bitwise_left_shift"),
    ("rshift", "bitwise_right_shift"),
):
    _operator(f"__{_symbol}__", _NAMESPACE[_name])
    _operator(f"__r{_symbol}__", _NAMESPACE[_name], swapped=True)
for _symbol, _name in (
    ("eq", "equal"),
    ("ne", "not_equal"),
    ("lt", "less"),
    ("le", "less_equal"),
    ("gt", "greater"),
    ("ge", "greater_equal"),
):
    _operator(f"__{_symbol}__", _NAMESPACE[_name])

backend = register(
    Backend(
        name="bounded",
        standard=SimpleNamespace(**_NAMESPACE),
        primitives={
            "from_numpy": from_numpy,
            "to_numpy": lambda x: np.array(x.value),
            "scatter_add": scatter_add,
            "write": write,
            "segment_min": lambda values, starts: Bounded(np.minimum.reduceat(values.value, starts.value), None, values.dtype),
            "compress": lambda x, keep: Bounded(x.value[keep.value], x.error[keep.value], x.dtype),
            "cumulative_max": lambda x: Bounded(np.maximum.accumulate(x.value), np.maximum.accumulate(x.error), x.dtype),
            "erf": erf,
            "rsqrt": rsqrt,
            "evaluate": lambda *arrays: None,
            "async_evaluate": lambda *arrays: None,
            "synchronize": lambda: None,
            "memory": lambda: (0, 0),
            "all_sum": lambda x: x,
            "dtypes": lambda: frozenset((*FLOATS, *INTEGERS)),
        },
        array_type=Bounded,
        version=np.__version__,
        device="cpu",
    )
)
