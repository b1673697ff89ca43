"""Sums of power laws, fitted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.fits.huber import DELTA, Terms, derivatives, grid, huber, minimise, objective, prediction

TERMS = st.sampled_from([Terms(1, False), Terms(1, True), Terms(2, False), Terms(2, True)])


def drawn(terms, seed, n=30):
    rng = np.random.default_rng(seed)
    logs = rng.uniform(10, 25, (n, terms.variables))
    p = np.concatenate([rng.normal(4, 2, terms.total), rng.uniform(0.1, 0.6, terms.variables)])
    return p, logs, rng


@given(TERMS, st.integers(0, 2**32 - 1))
def test_the_prediction_is_the_logarithm_of_the_sum(terms, seed):
    p, logs, _ = drawn(terms, seed)
    total = sum(np.exp(p[j] - p[terms.total + j] * logs[:, j]) for j in range(terms.variables))
    total = total + np.exp(p[terms.variables]) if terms.floor else total
    predicted, shares = prediction(p[None], logs, terms)
    np.testing.assert_allclose(predicted[0], np.log(total), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-12)


@given(TERMS, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_gradient_is_the_complex_steps(terms, seed, delta):
    """Of the sum of exponentials itself, which complex numbers pass through; residuals are kept off Huber's corner."""
    p, logs, rng = drawn(terms, seed)
    y = prediction(p[None], logs, terms)[0][0] + rng.choice([-1, 1], len(logs)) * delta * rng.choice([0.5, 3.0], len(logs))
    weights = rng.uniform(0, 3, len(logs))
    found = derivatives(p[None], logs, y, weights, terms, delta)[0][0]
    for i in range(len(p)):
        step = p.astype(complex)
        step[i] += 1e-30j
        total = sum(np.exp(step[j] - step[terms.total + j] * logs[:, j]) for j in range(terms.variables))
        total = total + np.exp(step[terms.variables]) if terms.floor else total
        r = np.log(total) - y
        h = np.where(np.abs(r.real) <= delta, 0.5 * r * r, delta * (r * np.sign(r.real) - 0.5 * delta))
        expected = np.sum(weights * h).imag / 1e-30
        scale = np.sum(weights * np.minimum(np.abs(r.real), delta)) * max(1, np.abs(logs).max())
        assert abs(found[i] - expected) <= 1e-12 * scale


@given(TERMS, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_parabolas_touch_the_objective_and_lie_above_it(terms, seed, delta):
    """So that a step that lowers them lowers it: for a residual r0 the bound is H(r0) + q·(r² − r0²)/2, q = min(1, δ/|r0|)."""
    p, logs, rng = drawn(terms, seed)
    y = prediction(p[None], logs, terms)[0][0] + rng.normal(0, 3 * delta, len(logs))
    weights = rng.uniform(0, 3, len(logs))
    g, hessian = derivatives(p[None], logs, y, weights, terms, delta)
    r = prediction(p[None], logs, terms)[0][0] - y
    q = weights * np.minimum(1, delta / np.abs(r))
    moved = r + rng.normal(0, delta, len(r))
    assert np.all(weights * huber(moved, delta) <= weights * huber(r, delta) + q * (moved**2 - r**2) / 2 + 1e-12 * delta**2)
    step = 1e-6 * rng.standard_normal(len(p))
    change = prediction(p[None] + step, logs, terms)[0][0] - prediction(p[None] - step, logs, terms)[0][0]
    assert step @ hessian[0] @ step == pytest.approx(np.sum(q * change**2) / 4, rel=1e-4)
    assert g[0] @ step == pytest.approx(np.sum(q * r * change) / 2, rel=1e-4, abs=1e-9 * np.sum(q * np.abs(r * change)))


def test_hubers_function_is_a_parabola_then_a_line():
    assert huber(np.array([0.5, -1.0, 3.0]), 1.0).tolist() == [0.125, 0.5, 2.5]


@pytest.mark.parametrize("terms", [Terms(1, False), Terms(1, True), Terms(2, True)])
def test_a_law_without_noise_is_found_exactly(terms):
    rng = np.random.default_rng(1)
    logs = rng.uniform(np.log(1e6), np.log(1e10), (40, terms.variables))
    truth = np.array([6.0, 7.5, *([0.5] if terms.floor else []), 0.35, 0.37])
    truth = truth if terms.variables == 2 else np.delete(truth, [1, -1])
    y = prediction(truth[None], logs, terms)[0][0]
    found, value = minimise(grid(logs, y, terms), logs, y, np.ones(40), terms)
    np.testing.assert_allclose(found[value.argmin()], truth, rtol=1e-6)


def test_no_other_start_descends_deeper():
    """scipy's minimisers and denser grids end at the same place; here a denser grid, and points near the end."""
    terms, rng = Terms(2, True), np.random.default_rng(2)
    logs = np.stack([rng.uniform(np.log(5e7), np.log(1.6e10), 240), rng.uniform(np.log(1e9), np.log(5e11), 240)], axis=1)
    y = prediction(np.array([[6.18, 7.64, 0.6, 0.348, 0.366]]), logs, terms)[0][0] + 5e-3 * rng.standard_normal(240)
    found, value = minimise(grid(logs, y, terms), logs, y, np.ones(240), terms)
    best = found[value.argmin()]
    near = best + 1e-4 * rng.standard_normal((50, 5))
    assert np.all(objective(near, logs, y, np.ones(240), terms) >= value.min())
    others = minimise(rng.uniform([0, 0, -1, 0, 0], [25, 25, 1, 2, 2], (60, 5)), logs, y, np.ones(240), terms)[1]
    assert others.min() >= value.min() * (1 - 1e-9)


@pytest.mark.oracle
def test_the_minimum_is_scipys():
    from scipy import optimize

    terms, rng = Terms(2, True), np.random.default_rng(3)
    logs = np.stack([rng.uniform(np.log(5e7), np.log(1.6e10), 240), rng.uniform(np.log(1e9), np.log(5e11), 240)], axis=1)
    y = prediction(np.array([[6.0, 6.0, 0.53, 0.339, 0.285]]), logs, terms)[0][0] + 3e-3 * rng.standard_normal(240)
    found, value = minimise(grid(logs, y, terms), logs, y, np.ones(240), terms)

    def both(p):
        arguments = (p[None], logs, y, np.ones(240), terms, DELTA)
        return 1e4 * objective(*arguments)[0], 1e4 * derivatives(*arguments)[0][0]

    theirs = optimize.minimize(both, found[value.argmin()] + 0.02, jac=True, method="BFGS", options={"gtol": 1e-9})
    assert value.min() <= theirs.fun / 1e4 * (1 + 1e-9)
    np.testing.assert_allclose(found[value.argmin()], theirs.x, rtol=1e-4)


def test_weights_count_a_point_as_often_as_they_say():
    terms, rng = Terms(1, False), np.random.default_rng(4)
    logs, weights = rng.uniform(5, 20, (9, 1)), rng.integers(0, 4, 9)
    y = 2 - 0.3 * logs[:, 0] + 0.01 * rng.standard_normal(9)
    starts = grid(logs, y, terms)
    weighted, a = minimise(starts, logs, y, weights.astype(float), terms)
    repeated, b = minimise(starts, np.repeat(logs, weights, axis=0), np.repeat(y, weights), np.ones(weights.sum()), terms)
    np.testing.assert_allclose(weighted[a.argmin()], repeated[b.argmin()], rtol=1e-5)


@given(TERMS, st.integers(0, 2**32 - 1))
def test_no_start_ends_higher_than_it_began(terms, seed):
    p, logs, rng = drawn(terms, seed)
    y = prediction(p[None], logs, terms)[0][0] + 0.1 * rng.standard_normal(len(logs))
    starts = p + rng.normal(0, 3, (5, len(p)))
    before = objective(starts, logs, y, np.ones(len(y)), terms)
    for iterations in (1, 2, 4, 20):
        _, value = minimise(starts, logs, y, np.ones(len(y)), terms, iterations=iterations)
        assert np.all(value <= before)
        before = value
