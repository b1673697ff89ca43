"""Cuts against their definitions in float32 on every backend, and against transformers' processors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.decoding import cuts
from refllm.decoding.cuts import (
    entropy,
    epsilon_cut,
    eta_cut,
    min_p,
    probabilities,
    surprises,
    temperature,
    top_k,
    top_p,
    typical,
)

EPS = 2.0**-23
# exact eighths from a short range: ties are common, and every backend reads the same numbers
LOGITS = st.lists(st.integers(-40, 40), min_size=1, max_size=24).map(lambda n: np.array(n, dtype=np.float32) / 8)
SHARE = st.integers(1, 1000).map(lambda n: n / 1000)
ALL = {"top_p": top_p, "min_p": min_p, "typical": typical, "epsilon_cut": epsilon_cut, "eta_cut": eta_cut}


def on(backend, values):
    return backend.xp.from_numpy(np.asarray(values, dtype=np.float32))


def one_row(backend, function, logits, *args):
    return backend.xp.to_numpy(function(on(backend, logits[None, :]), *args))[0]


def exact(logits):
    """softmax in float64, by its definition."""
    weights = [math.exp(x - max(logits)) for x in logits.astype(float)]
    return np.array([w / math.fsum(weights) for w in weights])


def ranked(logits):
    """Ids from the likeliest down, the lower first among equals."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def rounding(logits):
    """How far a float32 sum of these probabilities may lie from the exact one: every term, its exponential, and the total."""
    return EPS * (2 * len(logits) + 10 + float(np.max(np.abs(logits - np.max(logits)))))


@given(LOGITS, st.floats(0.05, 20))
def test_temperature_divides_the_distance_to_the_largest_logit(backend, logits, t):
    expected = (logits.astype(np.float64) - max(logits)) / np.float32(t)
    assert np.all(np.abs(one_row(backend, temperature, logits, t) - expected) <= 4 * EPS * np.abs(expected))


@given(LOGITS, st.integers(1, 30))
def test_top_k_keeps_the_k_largest_and_the_lower_ids_among_equals(backend, logits, k):
    kept = set(ranked(logits)[:k])
    expected = [x if i in kept else -np.inf for i, x in enumerate(logits)]
    np.testing.assert_array_equal(one_row(backend, top_k, logits, k), expected)


@given(LOGITS, SHARE)
def test_top_p_keeps_the_fewest_that_reach_p_with_the_one_that_crosses(backend, logits, p):
    result = one_row(backend, top_p, logits, p)
    kept = [i for i in range(len(logits)) if result[i] == logits[i]]
    order, q = ranked(logits), exact(logits)
    assert kept == sorted(order[: len(kept)])
    reached = math.fsum(q[i] for i in kept)
    assert kept
    assert reached >= p - rounding(logits) or len(kept) == len(logits)
    assert reached - q[order[len(kept) - 1]] < p + rounding(logits) or len(kept) == 1 or p == 1


@given(LOGITS, SHARE)
def test_typical_keeps_the_fewest_that_reach_p_nearest_to_the_entropy_first(backend, logits, p):
    result = one_row(backend, typical, logits, p)
    q, error = exact(logits), rounding(logits) * 20
    distance = np.abs(-np.log(q) + np.sum(q * np.log(q)))
    kept = np.isfinite(result)
    assert np.any(kept)
    if p < 1 and not np.all(kept):
        assert np.max(distance[kept]) <= np.min(distance[~kept]) + error
        assert np.sum(q[kept]) >= p - rounding(logits)
        last = np.max(distance[kept])
        beyond = [i for i in np.flatnonzero(kept) if distance[i] < last - error]
        assert np.sum(q[beyond]) < p + rounding(logits)


@given(LOGITS, SHARE)
def test_thresholds_keep_what_reaches_them_and_the_likeliest(backend, logits, p):
    q, largest = exact(logits), logits == max(logits)
    entropy_of = -np.sum(q * np.log(q))
    thresholds = {
        min_p: p * np.max(q),
        epsilon_cut: p,
        eta_cut: min(p, math.sqrt(p) * math.exp(-entropy_of)),
    }
    for cut, threshold in thresholds.items():
        kept = np.isfinite(one_row(backend, cut, logits, p))
        near = np.abs(q - threshold) <= rounding(logits) * threshold * 10
        np.testing.assert_array_equal((kept | near)[~largest], ((q >= threshold) | near)[~largest])
        assert np.all(kept[largest])


def test_what_reaches_p_exactly_reaches_it(backend):
    flat = np.zeros(4, np.float32)
    for cut in (top_p, typical):
        for p, n in ((0.5, 2), (0.51, 3), (0.75, 3), (0.25, 1)):
            assert np.isfinite(one_row(backend, cut, flat, p)).tolist() == [i < n for i in range(4)]


def test_min_p_of_zero_keeps_all_even_what_underflows(backend):
    logits = np.array([0, -1000, -5], dtype=np.float32)
    np.testing.assert_array_equal(one_row(backend, min_p, logits, 0.0), logits)


@pytest.mark.parametrize("name", ALL)
@given(LOGITS, SHARE, st.integers(0, 3))
def test_a_cut_keeps_at_least_one_token_and_changes_none_that_it_keeps(backend, name, logits, p, hole):
    logits = np.where(np.arange(len(logits)) % 4 == hole, np.float32(-np.inf), logits)
    if np.all(np.isinf(logits)):
        return
    result = one_row(backend, ALL[name], logits, p)
    kept = np.isfinite(result)
    assert np.any(kept)
    np.testing.assert_array_equal(result[kept], logits[kept])
    assert np.all(result[~kept] == -np.inf)


@given(LOGITS)
def test_top_k_of_all_and_top_p_of_one_cut_nothing(backend, logits):
    for cut, limit in ((top_k, len(logits)), (top_k, 99), (top_p, 1.0), (typical, 1.0)):
        np.testing.assert_array_equal(one_row(backend, cut, logits, limit), logits)


@pytest.mark.parametrize("name", ALL)
@given(LOGITS, st.integers(-64, 64), st.sampled_from([0.11, 0.37, 0.83]))
def test_moving_all_logits_alike_moves_no_cut(backend, name, logits, move, p):
    moved = logits + np.float32(move / 8)  # exact, so that every difference is the same
    kept, after = (np.isfinite(one_row(backend, ALL[name], z, p)) for z in (logits, moved))
    np.testing.assert_array_equal(kept, after)


@given(LOGITS, st.integers(0, 3))
def test_surprise_and_entropy_are_those_of_the_softmax(backend, logits, hole):
    logits = np.where(np.arange(len(logits)) % 4 == hole, np.float32(-np.inf), logits)
    if np.all(np.isinf(logits)):
        return
    finite = logits > -np.inf
    q = exact(logits)
    bound = rounding(logits[finite]) * 4
    assert np.all(np.abs(one_row(backend, probabilities, logits) - q) <= bound)
    found = one_row(backend, surprises, logits)
    assert np.all(found[~finite] == np.inf)
    assert np.all(np.abs(found[finite] + np.log(q[finite])) <= bound)
    assert abs(one_row(backend, entropy, logits)[0] + np.sum(q[finite] * np.log(q[finite]))) <= bound * len(logits)


def test_half_logits_are_summed_in_float32(backend):
    xp, n = backend.xp, 5000  # ones sum to 2048 in float16 and to 256 in bfloat16
    for dtype in {"float16", "bfloat16"} & xp.dtypes():
        logits = xp.zeros((1, n), dtype=getattr(xp, dtype))
        for cut, expected in ((top_p, 4500), (typical, 4500), (eta_cut, n)):
            result = cut(logits, 0.9)
            assert result.dtype == logits.dtype
            assert abs(np.sum(np.isfinite(xp.to_numpy(xp.astype(result, xp.float32)))) - expected) <= 2


# transformers


WARPERS = {
    "temperature": ("TemperatureLogitsWarper", [0.3, 1.7]),
    "top_k": ("TopKLogitsWarper", [1, 3, 7, 40]),
    "top_p": ("TopPLogitsWarper", [0.05, 0.4, 0.9]),
    "min_p": ("MinPLogitsWarper", [0.01, 0.2, 1.0]),
    "typical": ("TypicalLogitsWarper", [0.05, 0.4, 0.9]),
    "epsilon_cut": ("EpsilonLogitsWarper", [0.001, 0.05, 0.9]),
    "eta_cut": ("EtaLogitsWarper", [0.001, 0.05, 0.9]),
}


def warped(name, limit, logits):
    """What transformers makes of logits, NumPy in and out."""
    import torch
    from transformers import generation

    maker = getattr(generation, WARPERS[name][0])
    warper = maker(limit, device="cpu") if name == "eta_cut" else maker(limit)
    return warper(None, torch.from_numpy(np.array(logits))).numpy()


@pytest.mark.oracle
@pytest.mark.parametrize("name", WARPERS)
def test_a_cut_is_that_of_transformers_where_no_two_logits_are_equal(name):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 30))
    logits[::2, 5:25:2] = -np.inf
    for limit in WARPERS[name][1]:
        found, expected = getattr(cuts, name)(logits, limit), warped(name, limit, logits)
        if name == "temperature":  # ours takes the largest to 0 first
            expected = expected - np.max(expected, axis=1, keepdims=True)
            np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("name", WARPERS.keys() - {"temperature"})
def test_among_equals_a_cut_keeps_no_others_than_transformers_and_only_as_many_as_it_must(name):
    logits = np.random.default_rng(1).integers(-8, 9, (60, 12)) / 4
    for limit in WARPERS[name][1]:
        ours, theirs = (np.isfinite(z) for z in (getattr(cuts, name)(logits, limit), warped(name, limit, logits)))
        if name in ("min_p", "epsilon_cut", "eta_cut"):
            np.testing.assert_array_equal(ours, theirs)
        elif name == "top_p":  # which of the equals at its edge transformers keeps is left to a sort that is not stable
            np.testing.assert_array_equal(np.sort(np.where(ours, logits, -99)), np.sort(np.where(theirs, logits, -99)))
        else:
            assert np.all(theirs | ~ours)
            for row, more in zip(
                logits, theirs & ~ours, strict=True
            ):  # what theirs keep beyond ties with a lower id that ours keep
                assert all(any(row[i] == row[j] for j in range(i)) for i in np.flatnonzero(more))
