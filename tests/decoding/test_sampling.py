"""Samplers against their definitions in plain Python, on every backend."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.decoding import sampling
from refllm.decoding.cuts import temperature, top_k, top_p
from refllm.decoding.sampling import Sampler, draw, greedy, sample, uniforms

EPS = 2.0**-23
# exact eighths from a short range: ties are common, and every backend reads the same numbers
LOGITS = st.lists(st.integers(-40, 40), min_size=1, max_size=24).map(lambda n: np.array(n, dtype=np.float32) / 8)
UNIFORM = st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)


def on(backend, values):
    return backend.xp.from_numpy(np.asarray(values, dtype=np.float32))


def one_row(backend, function, logits, *args):
    return backend.xp.to_numpy(function(on(backend, logits[None, :]), *args))[0]


def probabilities(logits):
    """softmax in float64, by its definition."""
    weights = [math.exp(x - max(logits)) for x in logits.astype(float)]
    return [w / math.fsum(weights) for w in weights]


def ranked(logits):
    """Ids from the likeliest down, the lower first among equals."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def rounding(logits):
    """How far a float32 sum of these probabilities may lie from the exact one: every term, its exponential, and the total."""
    return EPS * (2 * len(logits) + 10 + float(np.max(np.abs(logits - np.max(logits)))))


@given(LOGITS)
def test_greedy_takes_the_lowest_id_of_the_largest_logit(backend, logits):
    assert one_row(backend, greedy, logits) == list(logits).index(max(logits))


@given(LOGITS, st.integers(1, 30))
def test_top_k_keeps_the_k_largest_and_the_lower_ids_among_equals(backend, logits, k):
    kept = set(ranked(logits)[:k])
    expected = [x if i in kept else -np.inf for i, x in enumerate(logits)]
    np.testing.assert_array_equal(one_row(backend, top_k, logits, k), expected)


@given(LOGITS, st.integers(1, 1000).map(lambda n: n / 1000))
def test_top_p_keeps_the_fewest_that_reach_p_with_the_one_that_crosses(backend, logits, p):
    result = one_row(backend, top_p, logits, p)
    kept = [i for i in range(len(logits)) if result[i] == logits[i]]
    assert all(result[i] == -np.inf for i in range(len(logits)) if i not in kept)
    order, q = ranked(logits), probabilities(logits)
    assert kept == sorted(order[: len(kept)])
    reached = math.fsum(q[i] for i in kept)
    assert kept
    assert reached >= p - rounding(logits) or len(kept) == len(logits)
    assert reached - q[order[len(kept) - 1]] < p + rounding(logits) or len(kept) == 1 or p == 1


@given(LOGITS, UNIFORM)
def test_a_draw_inverts_the_distribution_function(backend, logits, u):
    xp = backend.xp
    token = int(xp.to_numpy(draw(on(backend, logits[None, :]), on(backend, [u])))[0])
    q = probabilities(logits)
    assert math.fsum(q[:token]) - rounding(logits) <= u
    assert u < math.fsum(q[: token + 1]) + rounding(logits)


@given(LOGITS, st.integers(0, 2), UNIFORM)
def test_a_token_that_was_cut_is_never_drawn(backend, logits, cut, u):
    logits = np.where(np.arange(len(logits)) % 3 == cut, np.float32(-np.inf), logits)
    if np.all(np.isinf(logits)):
        return
    for uniform in (u, 0.0, 1 - 2.0**-24, 1.0):  # 1 is what a wider uniform may round to
        token = int(backend.xp.to_numpy(draw(on(backend, logits[None, :]), on(backend, [uniform])))[0])
        assert np.isfinite(logits[token])


def test_a_scan_that_is_not_quite_rising_never_draws_a_cut_token(monkeypatch):
    """Parallel scans round each prefix in an order of its own, so a later one may come out an ulp below an earlier."""
    numpy = load("numpy")
    logits = np.where(np.arange(64) % 2 == 0, np.float32(-np.inf), np.float32(0))
    wobble = np.where(np.arange(64) % 4 < 2, np.float32(1 - EPS), np.float32(1 + EPS))
    exact = numpy.xp.cumulative_sum
    monkeypatch.setitem(numpy.xp.__dict__, "cumulative_sum", lambda x, axis: exact(x, axis=axis) * wobble)
    edges = np.float32(np.arange(33) / 32) * np.float32([[1 - EPS], [1], [1 + EPS]])
    tokens = draw(np.broadcast_to(logits, (99, 64)), np.clip(edges, 0, 1).reshape(-1))
    assert np.all(tokens % 2 == 1)


@given(LOGITS, st.floats(0.05, 20))
def test_temperature_divides_the_distance_to_the_largest_logit(backend, logits, t):
    expected = (logits.astype(np.float64) - max(logits)) / np.float32(t)
    assert np.all(np.abs(one_row(backend, temperature, logits, t) - expected) <= 4 * EPS * np.abs(expected))


@given(LOGITS, UNIFORM)
def test_one_kept_token_or_temperature_zero_is_greedy(backend, logits, u):
    rows, numbers = on(backend, logits[None, :]), on(backend, [u])
    first = one_row(backend, greedy, logits)
    for sampler in (Sampler(0.0), Sampler(1.0, top_k=1), Sampler(1.0, top_p=1e-6), Sampler(0.0, top_k=3, top_p=0.5)):
        assert int(backend.xp.to_numpy(sample(rows, numbers, sampler)[0])[0]) == first


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_smallest_temperature_overflows_to_greedy_and_not_to_nan(backend):
    logits = np.array([[1.0, 3.0, 2.0]], dtype=np.float32)
    assert int(backend.xp.to_numpy(sample(on(backend, logits), on(backend, [0.9]), Sampler(1e-45))[0])[0]) == 1


def test_draws_are_as_frequent_as_their_probabilities(backend):
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.0], dtype=np.float32)
    n = 4000
    rows = on(backend, np.broadcast_to(logits, (n, 8)))
    drawn = backend.xp.to_numpy(sample(rows, on(backend, uniforms(7, 0, n)), Sampler(1.3))[0])
    expected = n * np.array(probabilities(logits / np.float32(1.3)))
    chi_square = float(np.sum((np.bincount(drawn, minlength=8) - expected) ** 2 / expected))
    assert chi_square < 24.32, "7 degrees of freedom stay below this with probability 0.999; the seed is fixed"


def test_cut_draws_are_as_frequent_as_what_is_left(backend):
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.0], dtype=np.float32)
    n, sampler = 4000, Sampler(1.0, top_k=5, top_p=0.8)
    drawn = backend.xp.to_numpy(sample(on(backend, np.broadcast_to(logits, (n, 8))), on(backend, uniforms(8, 0, n)), sampler)[0])
    kept = ranked(logits)[:5]  # ids 3 6 1 4 0; of their mass, 3 6 1 reach 0.8
    weights = np.zeros(8)
    weights[kept[:3]] = np.exp(logits[kept[:3]])
    assert np.sum(np.exp(logits[kept[:2]])) < 0.8 * np.sum(np.exp(logits[kept])) < np.sum(weights)
    expected = n * weights / np.sum(weights)
    counts = np.bincount(drawn, minlength=8)
    assert np.sum(counts[kept[3:]]) == 0
    used = expected > 0
    assert np.sum((counts[used] - expected[used]) ** 2 / expected[used]) < 13.82, "2 degrees of freedom, probability 0.999"


@given(st.lists(LOGITS, min_size=1, max_size=1), st.integers(0, 2**32), st.integers(0, 10**6))
def test_rows_of_a_batch_do_not_touch_each_other(backend, logits, seed, step):
    rows = np.stack([logits[0], logits[0][::-1], np.roll(logits[0], 1)])
    numbers, sampler, xp = uniforms(seed, step, 3), Sampler(0.8, top_k=9, top_p=0.9), backend.xp
    together = xp.to_numpy(sample(on(backend, rows), on(backend, numbers), sampler)[0])
    for b in range(3):
        alone, _ = sample(on(backend, rows[b : b + 1]), on(backend, numbers[b : b + 1]), sampler)
        assert int(xp.to_numpy(alone)[0]) == together[b]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_logits_that_are_no_numbers_are_told_by_a_token_of_minus_one(backend):
    rows = np.array([[0, 1, 2], [0, np.nan, 1], [0, np.inf, 1], [0, -np.inf, 1]], dtype=np.float32)
    for sampler in (Sampler(0.0), Sampler(1.0), Sampler(1.0, top_k=2, top_p=0.9)):
        tokens = backend.xp.to_numpy(sample(on(backend, rows), on(backend, [0.99] * 4), sampler)[0])
        assert list(tokens) == [2, -1, -1, 2]


def test_half_logits_are_summed_in_float32(backend):
    xp, n = backend.xp, 5000  # ones sum to 2048 in float16 and to 256 in bfloat16, so the upper half would never be drawn
    for dtype in {"float16", "bfloat16"} & xp.dtypes():
        logits = xp.zeros((1, n), dtype=getattr(xp, dtype))
        token = int(xp.to_numpy(draw(logits, on(backend, [0.75])))[0])
        assert abs(token - 3750) <= 2
        kept = np.isfinite(xp.to_numpy(xp.astype(top_p(logits, 0.9), xp.float32)))
        assert abs(np.sum(kept) - 4500) <= 2


def test_uniforms_depend_on_the_seed_and_the_step_and_not_on_the_batch():
    assert uniforms(3, 5, 4).dtype == np.float32
    np.testing.assert_array_equal(uniforms(3, 5, 4)[:2], uniforms(3, 5, 2))
    assert len({uniforms(seed, step, 1)[0] for seed in range(10) for step in range(10)}) == 100


def test_every_backend_draws_the_same_tokens(backend):
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(0, 3, (200, 50)) * 16).astype(np.float32) / 16
    numbers, sampler = uniforms(1, 0, 200), Sampler(0.7, top_k=20, top_p=0.95)
    reference, margin = load("numpy"), 1e-4  # of probability, far beyond what 50 terms of float32 can lose
    ours = backend.xp.to_numpy(sample(on(backend, logits), on(backend, numbers), sampler)[0])
    theirs, _ = sample(on(reference, logits), on(reference, numbers), sampler)
    for b in np.nonzero(ours != theirs)[0]:
        q = np.exp(np.float64(top_p(top_k(temperature(logits[b : b + 1], 0.7), 20), 0.95))[0])
        assert np.min(np.abs(np.cumsum(q) / np.sum(q) - numbers[b])) < margin
    assert np.mean(ours == theirs) > 0.99


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_a_sampler_refuses_what_is_no_setting(settings, names):
    with pytest.raises(ValueError, match=names):
        Sampler(**settings)


def test_samplers_change_none_of_their_arguments(backend):
    logits = np.array([[3.0, 1.0, 2.0]], dtype=np.float32)
    rows, numbers = on(backend, logits), on(backend, [0.5])
    sample(rows, numbers, Sampler(0.5, 2, 0.9))
    np.testing.assert_array_equal(backend.xp.to_numpy(rows), logits)
    assert sampling.sample(rows, numbers, Sampler(0.0))[0].shape == (1,)
