"""Products with weights: gradients, bounds, and sums that half precision would lose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import leading, normals
from refllm.layers.linear import affine, affine_backward, linear, linear_backward, rows

sizes = st.integers(1, 6)


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    D, F, shape = data.draw(sizes), data.draw(sizes), data.draw(leading)
    x, weight, bias = data.draw(normals((*shape, D))), data.draw(normals((D, F))), data.draw(normals((F,)))
    assert gradient_error(linear, linear_backward, (x, weight)) <= 1e-12
    assert gradient_error(affine, affine_backward, (x, weight, bias)) <= 1e-12


@pytest.mark.oracle
def test_linear_and_affine_agree_with_torch(assert_agrees_with_torch):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    assert_agrees_with_torch(linear, linear_backward, (x, weight), lambda x, w: x @ w)
    assert_agrees_with_torch(affine, affine_backward, (x, weight, bias), lambda x, w, b: x @ w + b)


def test_every_backend_keeps_the_bound_of_a_dot_product(backend):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 7, 64), (64, 5)))
    y, saved = linear(backend.xp.from_numpy(x), backend.xp.from_numpy(weight))
    dx, dweight = linear_backward(y, saved)
    y, dx, dweight = (backend.xp.to_numpy(a).astype(np.float64) for a in (y, dx, dweight))
    x, weight, eps = x.astype(np.float64), weight.astype(np.float64), 2.0**-23
    for found, a, b in ((y, x, weight), (dx, y, weight.T), (dweight, rows(x).T, rows(y))):
        bound = eps * (1 + a.shape[-1]) * (np.abs(a) @ np.abs(b))
        assert np.all(np.abs(found - a @ b) <= bound)


def test_sums_of_halves_do_not_stop_growing(backend):
    xp = backend.xp
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        dtype, n = getattr(xp, name), 4096
        many, one = xp.ones((n, 2), dtype=dtype), xp.ones((2,), dtype=dtype)
        y, _ = linear(xp.matrix_transpose(many), many)
        _, dweight, dbias = affine_backward(many, affine(many, xp.ones((2, 2), dtype=dtype), one)[1])
        for found in (y, dweight, dbias):
            assert np.all(xp.to_numpy(found) == n)


def test_leading_axes_are_only_positions():
    x, weight = np.random.default_rng(0).standard_normal((2, 3, 4)), np.eye(4)[:, :3] + 1
    y, _ = linear(x, weight)
    np.testing.assert_array_equal(y[1, 2], linear(x[1, 2], weight)[0])
    assert load("numpy").xp.matmul(x, weight).shape == y.shape
