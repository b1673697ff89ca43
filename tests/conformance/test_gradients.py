"""The complex step: exact where the derivative is known, and blind to nothing."""

import math

import numpy as np
import pytest

from refllm.array_api import kernels, kernels_of, load, namespace
from refllm.conformance.gradients import complex_step, complex_step_gradients, erf, gradient_error
from refllm.layers.linear import linear, linear_backward
from refllm.layers.softmax import softmax, softmax_backward


def test_gradients_of_known_functions_are_exact():
    x, w = np.array([[0.5, -2.0]]), np.array([3.0, 4.0])
    dx, dw = complex_step_gradients(lambda x, n, w: x**n * w, (x, 3, w), np.ones((1, 2)))
    np.testing.assert_allclose(dx, 3 * x**2 * w, rtol=1e-15)
    np.testing.assert_allclose(dw, (x**3)[0], rtol=1e-15)


def test_the_derivative_along_a_tangent_is_that_of_all_arguments_together():
    x, w = np.array([0.5, -2.0]), np.array([3.0, 4.0])
    y, change = complex_step(lambda x, w: (x * w, "saved"), (x, w), (np.array([1.0, 2.0]), np.array([5.0, -1.0])))
    np.testing.assert_array_equal(y, x * w)
    np.testing.assert_allclose(change, [1 * 3 + 5 * 0.5, 2 * 4 + 1 * 2], rtol=1e-15)


def test_a_complex_step_of_erf_carries_its_density():
    x = np.linspace(-4, 4, 33)
    stepped = erf(x + 1e-30j)
    np.testing.assert_array_equal(stepped.real, [math.erf(a) for a in x])
    np.testing.assert_allclose(stepped.imag / 1e-30, 2 / math.sqrt(math.pi) * np.exp(-(x**2)), rtol=1e-14)


def test_kernels_and_backend_are_as_before_afterwards():
    numpy, x = load("numpy"), np.ones(2)
    before = kernels_of(numpy)

    def softmax_that_fails(x):
        raise ZeroDivisionError

    def forward(x):
        assert not kernels_of(load("numpy"))
        return namespace(x).erf(x)

    with kernels(numpy, {"softmax": softmax_that_fails}):
        complex_step_gradients(forward, (x,), x)
        with pytest.raises(ZeroDivisionError):
            complex_step_gradients(lambda x: 1 // 0, (x,), x)
        with pytest.raises(ZeroDivisionError):
            softmax(x)
    assert kernels_of(numpy) is before
    assert namespace(x).erf(x).dtype == np.float64
    with pytest.raises(TypeError):
        namespace(x).erf(x + 1j)


def test_a_wrong_gradient_is_found():
    x, weight = np.random.default_rng(0).standard_normal((2, 3, 4)), np.random.default_rng(1).standard_normal((4, 5))

    def without_the_sum_term(dp, p):
        return p * dp

    def off_by_a_millionth(dy, saved):
        dx, dweight = linear_backward(dy, saved)
        return dx, dweight * (1 + 1e-6)

    def not_a_number(dy, saved):
        return tuple(g * math.nan for g in linear_backward(dy, saved))

    assert gradient_error(softmax, softmax_backward, (x,)) <= 1e-12
    assert gradient_error(softmax, without_the_sum_term, (x,)) > 1e-3
    assert gradient_error(linear, off_by_a_millionth, (x, weight)) > 1e-7
    assert not gradient_error(linear, not_a_number, (x, weight)) <= 1e-12


def test_a_missing_gradient_and_a_wrong_shape_are_refused():
    x, weight = np.ones((2, 3)), np.ones((3, 4))
    with pytest.raises(ValueError, match="longer"):
        gradient_error(linear, lambda dy, saved: linear_backward(dy, saved)[0], (x, weight))
    with pytest.raises(ValueError, match="a gradient has shape"):
        gradient_error(linear, lambda dy, saved: linear_backward(dy, saved)[::-1], (x, weight))
