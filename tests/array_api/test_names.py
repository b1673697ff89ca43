"""Every name of the contract does, on every backend, what its line in the contract says.

The definitions here are scalar Python, apart from NumPy. Errors are bounded by the table of spec/accuracy.md.
"""

import itertools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from refllm.array_api.contract import OPTIONAL_DTYPES, PRIMITIVES, STANDARD
from refllm.conformance.bounded import elementary_constants

COVERED: set[str] = set()
WIDTH = 2.0**-23  # eps of float32
INTEGERS = ("int8", "uint8", "uint16", "uint32", "int32", "int64")
STORED = ("int8", "uint16", "uint32")  # not to compute with
HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
NAMED = {"real floating", "integral", "signed integer", "unsigned integer", "bool", "numeric"}

shapes = array_shapes(min_dims=1, max_dims=3, max_side=5)
reals = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
small = st.integers(0, 20)


def law(*names):
    """Mark a test as the law of these names."""

    def mark(test):
        COVERED.update(names)
        return test

    return mark


def real_arrays(elements=reals, shape=shapes):
    return arrays(np.float32, shape, elements=elements)


def has(backend, dtype):
    return dtype in backend.xp.dtypes()


def same_dtype(backend, y, dtype):
    return y.dtype == getattr(backend.xp, dtype)


def unchanged(backend, compute, *hosts):
    """compute on copies of NumPy arrays carried over, and hold law 7: no op changes its arguments."""
    given_arrays = [backend.xp.from_numpy(h) for h in hosts]
    y = compute(*given_arrays)
    for before, after in zip(hosts, given_arrays, strict=True):
        assert np.array_equal(before, backend.xp.to_numpy(after), equal_nan=True), "an argument was changed"
    return y


def assert_equal(backend, y, expected, dtype):
    """y has this dtype's name, and the shape and exact values of a NumPy array or nested list."""
    assert same_dtype(backend, y, dtype), f"dtype {y.dtype}, not {dtype}"
    found, expected = backend.xp.to_numpy(y), np.asarray(expected)
    assert tuple(y.shape) == found.shape == expected.shape
    assert np.array_equal(found, expected, equal_nan=True), f"{found} is not {expected}"


def assert_indices(backend, y, expected):
    """y holds exact indices, as int32 or int64."""
    assert any(same_dtype(backend, y, d) for d in ("int32", "int64")), f"dtype {y.dtype} is no dtype of indices"
    found = backend.xp.to_numpy(y)
    assert found.shape == np.shape(expected)
    assert np.array_equal(found, expected), f"{found} is not {expected}"


def assert_within(backend, y, expected, bound, dtype="float32"):
    """y has the expected shape and is everywhere within a bound of it; NaN fails."""
    assert same_dtype(backend, y, dtype)
    found = backend.xp.to_numpy(y).astype(np.float64)
    assert found.shape == np.shape(expected)
    with np.errstate(invalid="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected))
    assert np.all(error <= bound + 2.0**-126), f"{found} is not {expected} within {bound}"


def elementwise(f, *hosts):
    """f of Python scalars, element by element, broadcasting; float64, or an integer or truth value as it comes."""
    broadcast = np.broadcast_arrays(*hosts)
    values = [f(*scalars) for scalars in zip(*(b.reshape(-1).tolist() for b in broadcast), strict=True)]
    return np.asarray(values).reshape(broadcast[0].shape)


# Elementwise functions of one real number: (definition, where it is drawn, the row of spec/accuracy.md or None if exact)

FUNCTIONS = {
    "abs": (abs, reals, None),
    "negative": (operator.neg, reals, None),
    "floor": (lambda x: float(math.floor(x)), reals, None),
    "round": (lambda x: float(round(x)), reals, None),
    "sign": (lambda x: float((x > 0) - (x < 0)), reals, None),
    "sqrt": (math.sqrt, reals.map(abs), "sqrt"),
    "square": (lambda x: x * x, reals, "multiply"),
    "exp": (math.exp, st.floats(-80, 80, width=32, allow_subnormal=False), "exp"),
    "expm1": (math.expm1, st.floats(-80, 80, width=32, allow_subnormal=False), "expm1"),
    "log": (math.log, st.floats(2.0**-100, 1e6, width=32, allow_subnormal=False), "log"),
    "log1p": (math.log1p, st.floats(-0.875, 1e6, width=32, allow_subnormal=False), "log1p"),
    "tanh": (math.tanh, reals, "tanh"),
    "sin": (math.sin, st.floats(-100, 100, width=32, allow_subnormal=False), "sin"),
    "cos": (math.cos, st.floats(-100, 100, width=32, allow_subnormal=False), "cos"),
    "erf": (math.erf, reals, "erf"),
    "rsqrt": (lambda x: 1 / math.sqrt(x), st.floats(2.0**-20, 1e6, width=32), "rsqrt"),
}


def rounding(row, x, y, eps):
    c, c0, cx = elementary_constants()[row] if row else (0.0, 0.0, 0.0)
    return eps * ((c + cx * np.abs(x)) * np.abs(y) + c0)


@law(*FUNCTIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
@given(draw=st.data())
def test_an_elementwise_function_keeps_to_its_definition(backend, name, draw):
    definition, elements, row = FUNCTIONS[name]
    x = draw.draw(real_arrays(elements))
    expected = elementwise(definition, x)
    y = unchanged(backend, getattr(backend.xp, name), x)
    assert_within(backend, y, expected, rounding(row, x, expected, WIDTH))
    for half, eps in HALVES.items():
        if has(backend, half):
            stored = backend.xp.from_numpy(np.clip(x, -100, 100), dtype=getattr(backend.xp, half))
            x16 = backend.xp.to_numpy(stored).astype(np.float64)
            if np.all((x16 >= x.min()) & (x16 <= x.max())):  # rounding may leave the domain
                expected = elementwise(definition, x16)
                with np.errstate(over="ignore"):
                    y16 = getattr(backend.xp, name)(stored)
                assert same_dtype(backend, y16, half)
                fits = np.abs(expected) < 6e4
                found = backend.xp.to_numpy(y16).astype(np.float64)
                bound = rounding(row, x16, expected, eps) + eps * np.abs(expected) + 2.0**-14
                assert np.all((np.abs(found - expected) <= bound) | ~fits)


@law("abs", "negative", "square", "sign", "add", "subtract", "multiply", "floor_divide", "remainder", "pow", "clip")
@given(x=arrays(np.int32, shapes, elements=st.integers(-1000, 1000)), n=st.integers(1, 9))
def test_integers_stay_integers(backend, x, n):
    xp = backend.xp
    for y, expected in (
        (unchanged(backend, xp.abs, x), elementwise(abs, x)),
        (unchanged(backend, xp.negative, x), elementwise(operator.neg, x)),
        (unchanged(backend, xp.square, x), elementwise(lambda v: v * v, x)),
        (unchanged(backend, xp.sign, x), elementwise(lambda v: (v > 0) - (v < 0), x)),
        (unchanged(backend, lambda a: xp.add(a, a), x), 2 * x),
        (unchanged(backend, lambda a: xp.subtract(a, xp.asarray(n, dtype=xp.int32)), x), x - n),
        (unchanged(backend, lambda a: xp.multiply(a, a), x), elementwise(lambda v: v * v, x)),
        (unchanged(backend, lambda a: a // n, x), elementwise(lambda v: v // n, x)),
        (unchanged(backend, lambda a: xp.floor_divide(a, xp.asarray(-n, dtype=xp.int32)), x), elementwise(lambda v: v // -n, x)),
        (unchanged(backend, lambda a: a % n, x), elementwise(lambda v: v % n, x)),
        (unchanged(backend, lambda a: xp.remainder(a, xp.asarray(-n, dtype=xp.int32)), x), elementwise(lambda v: v % -n, x)),
        (unchanged(backend, lambda a: xp.pow(a, xp.asarray(2, dtype=xp.int32)), x), elementwise(lambda v: v**2, x)),
        (unchanged(backend, lambda a: xp.clip(a, -n, n), x), elementwise(lambda v: min(max(v, -n), n), x)),
    ):
        assert_equal(backend, y, expected, "int32")


@law("uint8", "int32", "int64", "bool", "iinfo")
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_at_the_ends_that_iinfo_states(backend, dtype):
    xp = backend.xp
    info, bits = xp.iinfo(getattr(xp, dtype)), int(dtype.removeprefix("u").removeprefix("int"))
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    assert (int(info.min), int(info.max)) == (low, low + 2**bits - 1)
    ends = xp.from_numpy(np.asarray([low, low + 2**bits - 1], dtype=dtype))
    assert_equal(backend, ends, np.asarray([low, low + 2**bits - 1], dtype=dtype), dtype)
    if dtype not in STORED:
        one = xp.ones(2, dtype=getattr(xp, dtype))
        assert_equal(backend, ends + one, np.asarray([low + 1, low], dtype=dtype), dtype)
        assert_equal(backend, ends == ends, [True, True], "bool")


PAIRS = {
    "add": (operator.add, "add"),
    "subtract": (operator.sub, "subtract"),
    "multiply": (operator.mul, "multiply"),
    "maximum": (max, None),
    "minimum": (min, None),
}
COMPARISONS = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}


@st.composite
def broadcasting(draw, elements=reals):
    shape = draw(shapes)
    other = draw(st.sampled_from([shape, shape[-1:], (*shape[:-1], 1), (1,) * len(shape)]))
    return draw(real_arrays(elements, shape)), draw(real_arrays(elements, other))


@law(*PAIRS, *COMPARISONS, "divide", "pow")
@given(pair=broadcasting())
def test_functions_of_two_arrays_broadcast(backend, pair):
    x, y = pair
    xp = backend.xp
    for name, (definition, row) in PAIRS.items():
        expected = elementwise(definition, x, y)
        assert_within(backend, unchanged(backend, getattr(xp, name), x, y), expected, rounding(row, x, expected, WIDTH))
    for name, definition in COMPARISONS.items():
        assert_equal(backend, unchanged(backend, getattr(xp, name), x, y), elementwise(definition, x, y), "bool")
    divisor = np.where(np.abs(y) < 1, np.float32(1), y)
    expected = elementwise(operator.truediv, x, divisor)
    assert_within(backend, unchanged(backend, xp.divide, x, divisor), expected, rounding("divide", x, expected, WIDTH))
    base, power = np.abs(x) / 1000 + np.float32(0.1), np.clip(y, -3, 3)
    expected = elementwise(operator.pow, base, power)
    assert_within(backend, unchanged(backend, xp.pow, base, power), expected, rounding("pow", base, expected, WIDTH))


@given(pair=broadcasting())
def test_operators_are_their_functions(backend, pair):
    xp = backend.xp
    x, y = (xp.from_numpy(a) for a in pair)
    for symbol, name in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("lt", "less"), ("eq", "equal")):
        by_name, by_symbol = getattr(xp, name)(x, y), getattr(operator, symbol)(x, y)
        assert np.array_equal(xp.to_numpy(by_name), xp.to_numpy(by_symbol))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_python_numbers_take_the_dtype_of_the_array(backend, dtype):
    if not has(backend, dtype):
        return
    x = backend.xp.ones((2,), dtype=getattr(backend.xp, dtype))
    for y in (x + 1, 2.5 * x, x / 3, 1 - x, x**0.5, -x, backend.xp.where(x > 0, x, 0.0), backend.xp.clip(x, 0.0, 1.0)):
        assert same_dtype(backend, y, dtype)


@law("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift")
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@given(draw=st.data())
def test_bits_are_those_of_python_integers(backend, dtype, draw):
    xp = backend.xp
    whole = arrays(dtype, (5,), elements=st.integers(-(2**31), 2**31 - 1))
    x, y = draw.draw(whole), draw.draw(whole)
    places = draw.draw(arrays(dtype, (5,), elements=st.integers(0, 31)))
    small_enough = (np.abs(x.astype(np.int64)) % 256).astype(dtype)
    for name, definition, a, b in (
        ("bitwise_and", operator.and_, x, y),
        ("bitwise_or", operator.or_, x, y),
        ("bitwise_xor", operator.xor, x, y),
        ("bitwise_left_shift", operator.lshift, small_enough, places % 20),
        ("bitwise_right_shift", operator.rshift, x, places),
    ):
        y_ = unchanged(backend, getattr(xp, name), a, b.astype(dtype))
        assert_equal(backend, y_, elementwise(definition, a, b), dtype)


@law("logical_and", "logical_or", "logical_not", "any", "all", "count_nonzero")
@given(x=arrays(np.bool_, (3, 4)), y=arrays(np.bool_, (4,)))
def test_truth_values(backend, x, y):
    xp = backend.xp
    assert_equal(backend, unchanged(backend, xp.logical_and, x, y), elementwise(lambda a, b: a and b, x, y), "bool")
    assert_equal(backend, unchanged(backend, xp.logical_or, x, y), elementwise(lambda a, b: a or b, x, y), "bool")
    assert_equal(backend, unchanged(backend, xp.logical_not, x), elementwise(operator.not_, x), "bool")
    assert_equal(backend, unchanged(backend, lambda a: a & ~a, x), np.zeros((3, 4), dtype=bool), "bool")
    rows = x.tolist()
    assert_equal(backend, unchanged(backend, lambda a: xp.any(a, axis=1), x), [any(r) for r in rows], "bool")
    assert_equal(backend, unchanged(backend, lambda a: xp.all(a, axis=1, keepdims=True), x), [[all(r)] for r in rows], "bool")
    assert_equal(backend, unchanged(backend, xp.any, x), any(map(any, rows)), "bool")
    assert_equal(backend, unchanged(backend, xp.all, x), all(map(all, rows)), "bool")
    assert_indices(backend, unchanged(backend, lambda a: xp.count_nonzero(a, axis=1), x), [sum(r) for r in rows])
    assert_indices(backend, unchanged(backend, xp.count_nonzero, x), sum(map(sum, rows)))


@law("isfinite", "isnan", "inf", "maximum", "minimum", "max", "min")
def test_infinities_and_nan(backend):
    xp = backend.xp
    assert xp.inf == math.inf
    x = np.asarray([1, -math.inf, math.nan, math.inf], dtype=np.float32)
    assert_equal(backend, unchanged(backend, xp.isfinite, x), [True, False, False, False], "bool")
    assert_equal(backend, unchanged(backend, xp.isnan, x), [False, False, True, False], "bool")
    three = np.full((4,), 3, dtype=np.float32)
    assert_equal(backend, unchanged(backend, xp.maximum, x, three), [3, 3, math.nan, math.inf], "float32")
    assert_equal(backend, unchanged(backend, xp.minimum, x, three), [1, -math.inf, math.nan, 3], "float32")
    for reduce in (xp.max, xp.min, xp.sum):
        assert math.isnan(float(reduce(xp.from_numpy(x))))
    assert_equal(backend, xp.exp(xp.from_numpy(x[1:2])), [0], "float32")


@law("where")
@given(pair=broadcasting(), draw=st.data())
def test_where_chooses_element_by_element(backend, pair, draw):
    x, y = pair
    condition = draw.draw(arrays(np.bool_, x.shape))
    z = unchanged(backend, backend.xp.where, condition, x, y)
    assert_equal(backend, z, elementwise(lambda c, a, b: a if c else b, condition, x, y), "float32")


@law("clip")
@given(x=real_arrays())
def test_clip_takes_either_bound_or_both(backend, x):
    xp = backend.xp
    assert_equal(
        backend, unchanged(backend, lambda a: xp.clip(a, -1.0, 2.0), x), elementwise(lambda v: min(max(v, -1), 2), x), "float32"
    )
    assert_equal(backend, unchanged(backend, lambda a: xp.clip(a, min=0.0), x), elementwise(lambda v: max(v, 0), x), "float32")
    assert_equal(backend, unchanged(backend, lambda a: xp.clip(a, max=0.0), x), elementwise(lambda v: min(v, 0), x), "float32")


# Matrices and reductions


@law("matmul", "matrix_transpose")
@given(draw=st.data())
def test_matmul_sums_products_and_broadcasts_leading_axes(backend, draw):
    left, right = draw.draw(st.sampled_from([((), ()), ((2,), (2,)), ((2, 3), (2, 3)), ((3,), ()), ((), (2,)), ((2, 1), (3,))]))
    m, n, p = (draw.draw(st.integers(1, 5)) for _ in range(3))
    a, b = draw.draw(real_arrays(shape=(*left, m, n))), draw.draw(real_arrays(shape=(*right, n, p)))
    lead = np.broadcast_shapes(left, right)
    a_, b_ = np.broadcast_to(a, (*lead, m, n)), np.broadcast_to(b, (*lead, n, p))
    expected, scale = np.zeros((*lead, m, p)), np.zeros((*lead, m, p))
    for i in itertools.product(*map(range, lead), range(m), range(p)):
        products = [float(a_[(*i[:-1], k)]) * float(b_[(*i[:-2], k, i[-1])]) for k in range(n)]
        expected[i], scale[i] = math.fsum(products), math.fsum(map(abs, products))
    xp = backend.xp
    for y in (unchanged(backend, xp.matmul, a, b), unchanged(backend, operator.matmul, a, b)):
        assert_within(backend, y, expected, WIDTH * (n + 1) * scale)
    turned = unchanged(backend, lambda x, y: xp.matmul(xp.matrix_transpose(y), xp.matrix_transpose(x)), a, b)
    assert_within(backend, turned, np.swapaxes(expected, -1, -2), WIDTH * (n + 1) * np.swapaxes(scale, -1, -2))
    assert_equal(backend, unchanged(backend, xp.matrix_transpose, a), np.swapaxes(a, -1, -2), "float32")


def axes_of(ndim):
    single = st.integers(-ndim, ndim - 1)
    several = st.sets(st.integers(0, ndim - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    return st.one_of(st.none(), single, several)


def reduced(f, x, axis, keepdims):
    """f of the list of elements along axis, everywhere else."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = np.transpose(x, (*kept, *axes)).reshape(-1, math.prod(x.shape[a] for a in axes))
    values = np.asarray([f(r.tolist()) for r in rows])
    return values.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim) if keepdims or a in kept])


@law("sum", "mean", "max", "min")
@given(x=real_arrays(), draw=st.data())
def test_reductions_over_one_axis_several_or_all(backend, x, draw):
    axis, keepdims = draw.draw(axes_of(x.ndim)), draw.draw(st.booleans())
    xp = backend.xp
    scale = reduced(lambda r: sum(map(abs, r)) + 0.0, x, axis, keepdims)
    n = x.size  # at least the length of the reduction
    for name, definition, bound in (
        ("sum", math.fsum, WIDTH * n * scale),
        ("mean", lambda r: math.fsum(r) / len(r), WIDTH * (n + 1) * scale),
        ("max", max, 0),
        ("min", min, 0),
    ):
        y = unchanged(backend, lambda a, name=name: getattr(xp, name)(a, axis=axis, keepdims=keepdims), x)
        assert_within(backend, y, reduced(definition, x, axis, keepdims), bound)


@law("sum")
def test_sums_of_integers_have_the_dtype_asked_for(backend):
    xp = backend.xp
    x = np.full((300,), 255, dtype=np.uint8)
    assert_equal(backend, unchanged(backend, lambda a: xp.sum(a, dtype=xp.int32), x), 300 * 255, "int32")
    assert_indices(backend, unchanged(backend, xp.sum, np.asarray([3, -5], dtype=np.int32)), -2)


@pytest.mark.parametrize("dtype", HALVES)
def test_reductions_of_halves_accumulate_in_float32(backend, dtype):
    if not has(backend, dtype):
        return
    xp = backend.xp
    kind = getattr(xp, dtype)
    ones = xp.ones((4096, 2), dtype=kind)  # in float16 itself a sum of ones ends at 2048, in bfloat16 at 256
    for y in (xp.sum(ones, axis=0), xp.sum(xp.matrix_transpose(ones), axis=1), xp.cumulative_sum(ones, axis=0)[-1, :]):
        assert_equal(backend, y, [4096, 4096], dtype)
    assert_equal(backend, xp.matmul(xp.ones((1, 4096), dtype=kind), ones), [[4096, 4096]], dtype)
    tens = xp.full((70_000,), 10.0, dtype=kind)  # their sum overflows float16
    assert_equal(backend, xp.mean(tens), 10, dtype)
    table = xp.scatter_add(xp.zeros((2, 2), dtype=kind), xp.zeros((4096,), dtype=xp.int32), ones)
    assert_equal(backend, table, [[4096, 4096], [0, 0]], dtype)


@law("cumulative_sum")
@given(x=real_arrays(), draw=st.data())
def test_cumulative_sum_runs_along_one_axis(backend, x, draw):
    axis, initial = draw.draw(st.integers(-x.ndim, x.ndim - 1)), draw.draw(st.booleans())
    running = np.apply_along_axis(lambda r: [math.fsum(r[: i + 1]) for i in range(-initial, len(r))], axis, x.astype(np.float64))
    y = unchanged(backend, lambda a: backend.xp.cumulative_sum(a, axis=axis, include_initial=initial), x)
    assert_within(backend, y, running, WIDTH * x.shape[axis] * np.abs(x).sum())
    whole = np.rint(np.clip(x, -99, 99)).astype(np.int32)
    y = unchanged(backend, lambda a: backend.xp.cumulative_sum(a, axis=axis, dtype=backend.xp.int32), whole)
    assert_equal(backend, y, np.apply_along_axis(lambda r: list(itertools.accumulate(r)), axis, whole), "int32")


# Order, and gathering by it


@law("argmax")
@given(x=arrays(np.float32, (3, 7), elements=st.sampled_from([-2.0, 0.0, 1.0])))
def test_argmax_is_the_first_of_equals(backend, x):
    xp = backend.xp
    expected = [row.index(max(row)) for row in x.tolist()]
    assert_indices(backend, unchanged(backend, lambda a: xp.argmax(a, axis=-1), x), expected)
    assert_indices(backend, unchanged(backend, lambda a: xp.argmax(a, axis=1, keepdims=True), x), [[i] for i in expected])
    flat = x.reshape(-1).tolist()
    assert_indices(backend, unchanged(backend, xp.argmax, x), flat.index(max(flat)))


@law("sort", "argsort")
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
@given(draw=st.data())
def test_sorting_is_stable_upwards_and_downwards(backend, dtype, draw):
    x = draw.draw(arrays(dtype, (2, 9), elements=st.integers(0, 4)))
    xp = backend.xp
    for down in (False, True):
        order = [sorted(range(9), key=lambda i, r=r: -r[i] if down else r[i]) for r in x.tolist()]
        assert_indices(backend, unchanged(backend, lambda a, d=down: xp.argsort(a, axis=-1, descending=d, stable=True), x), order)
        expected = np.asarray([sorted(r, reverse=down) for r in x.tolist()], dtype=dtype)
        assert_equal(backend, unchanged(backend, lambda a, d=down: xp.sort(a, axis=1, descending=d), x), expected, dtype)
        columns = unchanged(backend, lambda a, d=down: xp.argsort(a, axis=0, descending=d), x.T.copy())
        assert_indices(backend, columns, np.asarray(order).T)


@law("searchsorted")
@given(x=st.lists(small, min_size=1, max_size=12), probes=st.lists(small, min_size=1, max_size=6))
def test_searchsorted_counts_what_comes_before(backend, x, probes):
    xp = backend.xp
    for dtype in (np.float32, np.int32):
        table, values = np.asarray(sorted(x), dtype=dtype), np.asarray(probes, dtype=dtype)
        assert_indices(backend, unchanged(backend, xp.searchsorted, table, values), [sum(a < v for a in x) for v in probes])
        right = unchanged(backend, lambda t, v: xp.searchsorted(t, v, side="right"), table, values)
        assert_indices(backend, right, [sum(a <= v for a in x) for v in probes])


@law("take", "take_along_axis")
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@given(draw=st.data())
def test_gathering_takes_exact_copies(backend, index_dtype, draw):
    x = draw.draw(real_arrays(shape=(4, 3, 2)))
    axis = draw.draw(st.integers(-3, 2))
    size = x.shape[axis]
    xp = backend.xp
    rows = draw.draw(arrays(index_dtype, (5,), elements=st.integers(0, size - 1)))
    expected = np.stack([np.moveaxis(x, axis, 0)[i] for i in rows], axis=axis)
    assert_equal(backend, unchanged(backend, lambda a, i: xp.take(a, i, axis=axis), x, rows), expected, "float32")
    shape = list(x.shape)
    shape[axis] = draw.draw(st.integers(1, 5))
    places = draw.draw(arrays(index_dtype, tuple(shape), elements=st.integers(0, size - 1)))
    expected = np.zeros(shape, dtype=np.float32)
    for i in itertools.product(*map(range, shape)):
        j = list(i)
        j[axis] = int(places[i])
        expected[i] = x[tuple(j)]
    y = unchanged(backend, lambda a, i: xp.take_along_axis(a, i, axis=axis), x, places)
    assert_equal(backend, y, expected, "float32")


# Shapes


@law("reshape", "permute_dims", "expand_dims", "squeeze", "broadcast_to", "flip", "roll", "repeat", "tril", "triu")
@given(x=real_arrays(shape=st.tuples(*[st.integers(1, 4)] * 3)), draw=st.data())
def test_elements_move_and_stay_exact(backend, x, draw):
    xp = backend.xp
    axis = draw.draw(st.integers(-3, 2))
    order = tuple(draw.draw(st.permutations(range(3))))
    n, k = draw.draw(st.integers(-5, 5)), draw.draw(st.integers(-3, 3))
    a, b, c = x.shape
    where = list(itertools.product(range(a), range(b), range(c)))
    lower = np.asarray([x[i] if i[2] <= i[1] + k else 0 for i in where], dtype=np.float32).reshape(x.shape)
    upper = np.asarray([x[i] if i[2] >= i[1] + k else 0 for i in where], dtype=np.float32).reshape(x.shape)
    moved = np.empty([x.shape[o] for o in order], dtype=np.float32)
    for i in where:
        moved[tuple(i[o] for o in order)] = x[i]
    along = np.moveaxis(x, axis, 0)
    size = x.shape[axis]
    for f, expected in (
        (lambda v: xp.reshape(v, (c, -1)), np.asarray([x[i] for i in where]).reshape(c, a * b)),
        (lambda v: xp.permute_dims(v, order), moved),
        (lambda v: xp.expand_dims(v, axis=axis), np.asarray(x.tolist(), dtype=np.float32).reshape(np.expand_dims(x, axis).shape)),
        (lambda v: xp.squeeze(xp.expand_dims(v, axis=1), axis=1), x),
        (lambda v: xp.broadcast_to(v, (2, a, b, c)), np.stack([x, x])),
        (lambda v: xp.broadcast_to(v[:, :1, :], (a, 3, c)), np.stack([x[:, 0, :]] * 3, axis=1)),
        (lambda v: xp.flip(v, axis=axis), np.moveaxis(np.stack([along[size - 1 - i] for i in range(size)]), 0, axis)),
        (lambda v: xp.roll(v, n, axis=axis), np.moveaxis(np.stack([along[(i - n) % size] for i in range(size)]), 0, axis)),
        (lambda v: xp.repeat(v, 3, axis=axis), np.moveaxis(np.stack([along[i // 3] for i in range(3 * size)]), 0, axis)),
        (lambda v: xp.tril(v, k=k), lower),
        (lambda v: xp.triu(v, k=k), upper),
    ):
        assert_equal(backend, unchanged(backend, f, x), expected, "float32")


@law("concat", "stack")
@given(x=real_arrays(shape=st.just((2, 3))), y=real_arrays(shape=st.just((2, 3))), axis=st.integers(-2, 1))
def test_joining_keeps_the_order(backend, x, y, axis):
    xp = backend.xp
    rows = [r + s for r, s in zip(x.tolist(), y.tolist(), strict=True)] if axis % 2 else x.tolist() + y.tolist()
    joined = unchanged(backend, lambda a, b: xp.concat([a, b], axis=axis), x, y)
    assert_equal(backend, joined, np.asarray(rows, dtype=np.float32), "float32")
    stacked = unchanged(backend, lambda a, b: xp.stack([a, b], axis=axis), x, y)
    newest = axis % 3  # where the new axis stands among three
    halves = (stacked[(slice(None),) * newest + (i, ...)] for i in (0, 1))
    assert tuple(stacked.shape) == ((2, 2, 3), (2, 2, 3), (2, 3, 2))[newest]
    for half, expected in zip(halves, (x, y), strict=True):
        assert_equal(backend, half, expected, "float32")


@given(x=real_arrays(shape=st.just((3, 4, 5))))
def test_indexing_by_integers_slices_ellipsis_and_none(backend, x):
    for key in (
        (0, slice(None), slice(None)),
        (..., 2),
        (slice(1, 3), ..., slice(0, 4, 2)),
        (..., None, slice(0, 2)),
        (slice(None), -1, slice(None)),
        (slice(None), slice(1, None, 2), slice(0, 0)),
    ):
        assert_equal(backend, unchanged(backend, operator.itemgetter(key), x), x[key], "float32")


# Creation and dtypes


@law("asarray", "arange", "zeros", "ones", "full", "empty", "eye", "zeros_like", "ones_like", "full_like", "empty_like")
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64", "float16", "bfloat16"])
@given(n=st.integers(1, 5), m=st.integers(0, 4), k=st.integers(-3, 3))
def test_creation_has_the_dtype_and_shape_asked_for(backend, dtype, n, m, k):
    if not has(backend, dtype):
        return
    xp = backend.xp
    kind = getattr(xp, dtype)
    like = xp.zeros((n, m), dtype=xp.int32)
    for y, expected in (
        (xp.asarray([[1, 2], [3, 4]], dtype=kind), [[1, 2], [3, 4]]),
        (xp.asarray(7, dtype=kind), 7),
        (xp.asarray(xp.asarray([1, 2], dtype=xp.int32), dtype=kind), [1, 2]),
        (xp.arange(n, dtype=kind), list(range(n))),
        (xp.arange(-n, n, 2, dtype=kind), list(range(-n, n, 2))),
        (xp.zeros((n, m), dtype=kind), [[0] * m] * n),
        (xp.zeros(n, dtype=kind), [0] * n),
        (xp.ones((n,), dtype=kind), [1] * n),
        (xp.full((n, m), 3, dtype=kind), [[3] * m] * n),
        (xp.zeros_like(like, dtype=kind), [[0] * m] * n),
        (xp.ones_like(like, dtype=kind), [[1] * m] * n),
        (xp.full_like(like, 3, dtype=kind), [[3] * m] * n),
        (xp.eye(n, dtype=kind), [[int(i == j) for j in range(n)] for i in range(n)]),
        (xp.eye(n, n + 1, k=k, dtype=kind), [[int(j == i + k) for j in range(n + 1)] for i in range(n)]),
    ):
        assert_equal(backend, y, expected, dtype)
    for y in (xp.empty((n, m), dtype=kind), xp.empty_like(like, dtype=kind)):
        assert tuple(y.shape) == (n, m)
        assert same_dtype(backend, y, dtype)
    for y, value in ((xp.zeros_like(like), 0), (xp.ones_like(like), 1), (xp.full_like(like, 3), 3)):
        assert_equal(backend, y, [[value] * m] * n, "int32")


@law("astype", "float32")
def test_astype_converts_between_all_dtypes(backend):
    xp = backend.xp
    x = xp.from_numpy(np.asarray([0, 1, 2, 100], dtype=np.int32))
    for dtype in sorted(xp.dtypes()):
        y = xp.astype(x, getattr(xp, dtype))
        assert_equal(backend, y, np.asarray([0, 1, 2, 100]).astype(bool) if dtype == "bool" else [0, 1, 2, 100], dtype)
        if dtype != "bool":
            assert_equal(backend, xp.astype(y, xp.int32), [0, 1, 2, 100], "int32")
    assert_equal(backend, xp.astype(xp.asarray([1.75, -1.75], dtype=xp.float32), xp.int32), [1, -1], "int32")
    assert_equal(backend, xp.astype(xp.asarray([True, False], dtype=xp.bool), xp.float32), [1, 0], "float32")
    total = xp.sum(xp.asarray([1.0, 2.0], dtype=xp.float32))  # some backends return a scalar type of their own
    assert_equal(backend, xp.astype(total, xp.int32), 3, "int32")


@law("finfo")
def test_finfo_states_the_spacing_and_the_ends(backend):
    xp = backend.xp
    known = {"float16": (11, 5), "bfloat16": (8, 8), "float32": (24, 8), "float64": (53, 11)}  # digits, exponent bits
    for dtype in xp.dtypes() & known.keys():
        digits, exponent = known[dtype]
        info, top = xp.finfo(getattr(xp, dtype)), 2 ** (exponent - 1)
        assert float(info.eps) == 2.0 ** (1 - digits)
        assert float(info.max) == -float(info.min) == math.ldexp(2 - 2.0 ** (1 - digits), top - 1)
        assert float(info.smallest_normal) == 2.0 ** (2 - top)
        assert info.bits == digits + exponent
        one = xp.ones((1,), dtype=getattr(xp, dtype))
        assert bool(xp.all(one + float(info.eps) > one))
        assert bool(xp.all(one + float(info.eps) / 2 == one))


@law("isdtype", "dtypes")
def test_isdtype_knows_every_kind(backend):
    xp = backend.xp
    kinds = {"bool": {"bool"}} | {d: {"integral", "numeric", "unsigned integer"} for d in ("uint8", "uint16", "uint32")}
    kinds |= {d: {"integral", "numeric", "signed integer"} for d in ("int8", "int32", "int64")}
    kinds |= {d: {"real floating", "numeric"} for d in ("float16", "bfloat16", "float32", "float64")}
    assert {n for n in STANDARD if n in kinds} <= xp.dtypes() <= kinds.keys()
    for dtype, kind in itertools.product(sorted(xp.dtypes()), sorted(NAMED)):
        assert xp.isdtype(getattr(xp, dtype), kind) is (kind in kinds[dtype]), (dtype, kind)
    assert xp.isdtype(xp.float32, ("integral", "real floating"))
    assert xp.isdtype(xp.float32, xp.float32)
    for dtype in OPTIONAL_DTYPES:
        assert hasattr(xp, dtype) == (dtype in xp.dtypes())


@law("result_type")
def test_result_type_is_that_of_the_operation(backend):
    xp = backend.xp
    assert xp.result_type(xp.float32, xp.float32) == xp.float32
    assert xp.result_type(xp.int32, xp.int64) == xp.int64
    assert xp.result_type(xp.zeros((1,), dtype=xp.uint8), xp.int32) == xp.int32
    for half in HALVES:
        if has(backend, half):
            assert xp.result_type(getattr(xp, half), xp.float32) == xp.float32


# Our own primitives


@law("from_numpy", "to_numpy", *STORED)
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, "float16", "float32", "float64"])
@given(draw=st.data())
def test_arrays_cross_to_the_host_and_back_as_copies(backend, dtype, draw):
    if not has(backend, dtype):
        return
    xp = backend.xp
    elements = st.booleans() if dtype == "bool" else small
    host = draw.draw(arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=elements))
    for given_array in (host, host.T, host[(slice(None, None, -1),) * host.ndim + (...,)]):
        before = given_array.copy()
        x = xp.from_numpy(given_array)
        assert_equal(backend, x, before, dtype)
        back = xp.to_numpy(x)
        assert back.dtype == np.dtype(dtype)
        if given_array.size:
            given_array[...] = 1 - before.astype(np.int8) if dtype != "bool" else ~before
            assert_equal(backend, x, before, dtype)
            given_array[...] = before
            back[...] = 1 - before.astype(np.int8) if dtype != "bool" else ~before
            assert_equal(backend, x, before, dtype)


@law("from_numpy", "to_numpy")
def test_from_numpy_converts_to_the_dtype_asked_for(backend):
    xp = backend.xp
    host = np.asarray([0.5, -3.0], dtype=np.float64)
    assert_equal(backend, xp.from_numpy(host, dtype=xp.float32), host, "float32")
    assert xp.from_numpy(host).dtype == (xp.float64 if has(backend, "float64") else xp.float32)
    for half in HALVES:
        if has(backend, half):
            x = xp.from_numpy(host.astype(np.float32), dtype=getattr(xp, half))
            assert same_dtype(backend, x, half)
            assert xp.to_numpy(x).dtype == (np.float16 if half == "float16" else np.float32)
            assert np.array_equal(xp.to_numpy(x), host)


@law("scatter_add")
@given(draw=st.data())
def test_scatter_add_adds_equal_indices_up(backend, draw):
    xp = backend.xp
    rows = draw.draw(real_arrays(shape=st.tuples(st.integers(1, 12), st.integers(1, 4))))
    y = draw.draw(real_arrays(shape=(5, rows.shape[1])))
    indices = draw.draw(arrays(draw.draw(st.sampled_from([np.int32, np.int64])), rows.shape[:1], elements=st.integers(0, 4)))
    expected, scale = np.empty(y.shape), np.empty(y.shape)
    for v, d in np.ndindex(*y.shape):
        terms = [float(y[v, d]), *(float(rows[n, d]) for n in range(len(rows)) if indices[n] == v)]
        expected[v, d], scale[v, d] = math.fsum(terms), math.fsum(map(abs, terms))
    z = unchanged(backend, xp.scatter_add, y, indices, rows)
    assert_within(backend, z, expected, WIDTH * (len(rows) + 1) * scale)
    for dtype in ("int32", "int64"):
        whole = unchanged(backend, xp.scatter_add, np.zeros((5,), dtype=dtype), indices, np.ones(len(indices), dtype=dtype))
        assert_equal(backend, whole, [int(sum(indices == v)) for v in range(5)], dtype)


@law("write")
@given(draw=st.data())
def test_write_replaces_a_stretch_and_leaves_the_rest(backend, draw):
    xp = backend.xp
    axis = draw.draw(st.integers(-3, 2))
    buffer = draw.draw(real_arrays(shape=(3, 4, 2)))
    length = draw.draw(st.integers(1, buffer.shape[axis]))
    start = draw.draw(st.integers(0, buffer.shape[axis] - length))
    shape = list(buffer.shape)
    shape[axis] = length
    value = draw.draw(real_arrays(shape=tuple(shape)))
    expected = buffer.copy()
    np.moveaxis(expected, axis, 0)[start : start + length] = np.moveaxis(value, axis, 0)
    given_value = xp.from_numpy(value)
    written = xp.write(xp.from_numpy(buffer), start, given_value, axis)
    assert_equal(backend, written, expected, "float32")
    again = xp.write(written, start, given_value * 0, axis)  # the first is given away; only the newest counts
    np.moveaxis(expected, axis, 0)[start : start + length] = 0
    assert_equal(backend, again, expected, "float32")
    assert_equal(backend, given_value, value, "float32")


@law("segment_min")
@pytest.mark.parametrize("dtype", ["int32", "float32", "int64"])
@given(draw=st.data())
def test_segment_min_ends_each_segment_where_the_next_begins(backend, dtype, draw):
    values = draw.draw(arrays(dtype, st.integers(1, 20), elements=small))
    starts = sorted(draw.draw(st.sets(st.integers(0, len(values) - 1), min_size=1, max_size=6)))
    ends = [*starts[1:], len(values)]
    expected = np.asarray([min(values[s:e].tolist()) for s, e in zip(starts, ends, strict=True)], dtype=dtype)
    y = unchanged(backend, backend.xp.segment_min, values, np.asarray(starts, dtype=np.int32))
    assert_equal(backend, y, expected, dtype)


@law("compress")
@given(x=arrays(np.int32, (6, 2), elements=small), keep=arrays(np.bool_, (6,)))
def test_compress_keeps_rows_in_order(backend, x, keep):
    expected = np.asarray([row for row, k in zip(x.tolist(), keep, strict=True) if k], dtype=np.int32).reshape(-1, 2)
    assert_equal(backend, unchanged(backend, backend.xp.compress, x, keep), expected, "int32")


@law("cumulative_max")
@pytest.mark.parametrize("dtype", ["int32", "float32"])
@given(draw=st.data())
def test_cumulative_max_never_falls(backend, dtype, draw):
    x = draw.draw(arrays(dtype, st.integers(1, 20), elements=small))
    y = unchanged(backend, backend.xp.cumulative_max, x)
    assert_equal(backend, y, np.asarray(list(itertools.accumulate(x.tolist(), max)), dtype=dtype), dtype)


@law("evaluate", "async_evaluate", "synchronize", "all_sum")
def test_evaluation_changes_no_value(backend):
    xp = backend.xp
    host = np.asarray([1.0, 2.0], dtype=np.float32)
    x = xp.from_numpy(host)
    y = x + x
    assert xp.async_evaluate(x, y) is None
    assert xp.evaluate(x, y) is None
    assert xp.evaluate() is None
    assert xp.synchronize() is None
    assert_equal(backend, x, host, "float32")
    assert_equal(backend, y, 2 * host, "float32")
    assert_equal(backend, xp.all_sum(x), host, "float32")


@law("memory")
def test_memory_in_use_is_within_the_peak(backend):
    xp = backend.xp
    held = xp.full((1000, 1000), 1.0, dtype=xp.float32)
    xp.evaluate(held)
    used, peak = xp.memory()
    assert 0 < used <= peak
    assert used >= 4_000_000


def test_every_name_of_the_contract_has_a_law():
    missing = {*STANDARD, *PRIMITIVES} - COVERED
    assert not missing
