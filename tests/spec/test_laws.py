"""Laws of the specification that no other test states. Every test here is a law of a page, by its name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding.cuts import top_k, top_p
from refllm.layers.attention import Mask, attention, visible
from refllm.layers.blockwise_attention import blockwise_attention
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.dropout import dropout
from refllm.layers.embedding import embedding, embedding_backward
from refllm.layers.geglu import geglu
from refllm.layers.gelu import gelu_erf, gelu_tanh
from refllm.layers.layer_norm import layer_norm, layer_norm_backward
from refllm.layers.linear import linear
from refllm.layers.mlp import mlp
from refllm.layers.rms_norm import rms_norm, rms_norm_backward
from refllm.layers.softmax import softmax, softmax_backward
from refllm.layers.swiglu import silu, swiglu
from refllm.models import llama

EXACT = 1e-12  # of float64, relative to the largest number of the tensor or to 1, as in spec/accuracy.md
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


def numbers(seed, *shape):
    """Multiples of 1/32 between ±3, float64."""
    return np.random.default_rng(seed).integers(-96, 97, shape) / 32


def assert_equal(found, expected):
    error, bound = np.abs(found - expected), EXACT * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert np.all(error <= bound), f"{found} is not {expected}"


# Layers


@given(seeds, sizes)
def test_the_gradient_of_rms_norm_is_orthogonal_to_x(seed, D):
    x, gain, dy = numbers(seed, 3, D) + 4, numbers(seed + 1, D), numbers(seed + 2, 3, D)
    dx, _ = rms_norm_backward(dy, rms_norm(x, gain, 0.0)[1])
    assert_equal(np.sum(dx * x, axis=-1), np.zeros(3))


@given(seeds, st.integers(2, 5))
def test_the_gradient_of_layer_norm_is_orthogonal_to_x_and_to_ones(seed, D):
    x, gain, dy = numbers(seed, 3, D), numbers(seed + 1, D), numbers(seed + 2, 3, D)
    x = x + np.arange(D) * 8  # no two numbers of a position are equal
    dx, _, _ = layer_norm_backward(dy, layer_norm(x, gain, gain, 0.0)[1])
    assert_equal(np.sum(dx * x, axis=-1), np.zeros(3))
    assert_equal(np.sum(dx, axis=-1), np.zeros(3))


@given(seeds, sizes, sizes, st.sampled_from([-2.0, 0.5, 3.0]))
def test_a_linear_map_keeps_sums_and_multiples(seed, D, F, a):
    x, z, weight = numbers(seed, 2, D), numbers(seed + 1, 2, D), numbers(seed + 2, D, F)
    assert_equal(linear(a * x + z, weight)[0], a * linear(x, weight)[0] + linear(z, weight)[0])


@given(seeds, sizes, sizes, sizes)
def test_two_linear_maps_are_one(seed, D, F, E):
    x, first, second = numbers(seed, 2, D), numbers(seed + 1, D, F), numbers(seed + 2, F, E)
    assert_equal(linear(linear(x, first)[0], second)[0], linear(x, first @ second)[0])


@given(seeds, sizes, sizes)
def test_an_embedding_is_a_product_with_one_hot_rows(seed, V, D):
    tokens = np.random.default_rng(seed).integers(0, V, (2, 6))
    table, dy = numbers(seed, V, D), numbers(seed + 1, 2, 6, D)
    one_hot = (tokens[..., None] == np.arange(V)).astype(np.float64)
    y, saved = embedding(tokens, table)
    assert_equal(y, one_hot @ table)
    assert_equal(embedding_backward(dy, saved), one_hot.reshape(-1, V).T @ dy.reshape(-1, D))


def test_a_token_that_does_not_occur_gets_no_gradient():
    _, saved = embedding(np.asarray([[1, 3, 1]]), numbers(0, 5, 2))
    dtable = embedding_backward(np.ones((1, 3, 2)), saved)
    assert np.array_equal(dtable, [[0, 0], [2, 2], [0, 0], [1, 1], [0, 0]])


@given(seeds, sizes)
def test_softmax_rows_are_probabilities(seed, S):
    p, _ = softmax(numbers(seed, 3, S) * 100)
    assert np.all(p >= 0)
    assert_equal(np.sum(p, axis=-1), np.ones(3))


@given(seeds, sizes)
def test_the_gradient_of_softmax_sums_to_zero(seed, S):
    _, saved = softmax(numbers(seed, 3, S))
    assert_equal(np.sum(softmax_backward(numbers(seed + 1, 3, S), saved), axis=-1), np.zeros(3))


@pytest.mark.parametrize("gelu", [gelu_erf, gelu_tanh])
def test_a_gelu_minus_its_mirror_image_is_x(gelu):
    x = np.linspace(-9, 9, 37)
    assert_equal(gelu(x)[0] - gelu(-x)[0], x)


def test_silu_minus_its_mirror_image_is_its_argument():
    a = np.linspace(-40, 40, 41)
    assert_equal(silu(a)[0] - silu(-a)[0], a)


@given(seeds, sizes, sizes)
def test_swiglu_is_linear_in_its_ungated_half(seed, D, F):
    x, gate, up, down = (numbers(seed + i, *shape) for i, shape in enumerate([(2, D), (D, F), (D, F), (F, D)]))
    assert_equal(swiglu(x, gate, 2 * up, down)[0], 2 * swiglu(x, gate, up, down)[0])


@given(seeds, sizes, sizes)
def test_geglu_is_linear_in_its_ungated_half(seed, D, F):
    x, gate, up, down = (numbers(seed + i, *shape) for i, shape in enumerate([(2, D), (D, F), (D, F), (F, D)]))
    assert_equal(geglu(x, gate, 2 * up, down)[0], 2 * geglu(x, gate, up, down)[0])


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
@given(seeds, st.permutations(range(4)))
def test_the_mlp_treats_each_position_alone(activation, seed, order):
    weights = (numbers(seed, 3, 5), numbers(seed + 1, 5), numbers(seed + 2, 5, 3), numbers(seed + 3, 3), activation)
    x = numbers(seed + 4, 4, 3)
    assert_equal(mlp(x[order], *weights)[0], mlp(x, *weights)[0][order])


@given(seeds, st.permutations(range(5)))
def test_the_order_of_hidden_features_does_not_matter(seed, order):
    x, up, up_bias, down, bias = (numbers(seed + i, *s) for i, s in enumerate([(4, 3), (3, 5), (5,), (5, 3), (3,)]))
    permuted = mlp(x, up[:, order], up_bias[order], down[order], bias, "gelu_tanh")[0]
    assert_equal(permuted, mlp(x, up, up_bias, down, bias, "gelu_tanh")[0])


@pytest.mark.parametrize("attend", [attention, lambda *a: blockwise_attention(*a, 2)], ids=["whole", "in blocks"])
@given(seeds, st.integers(1, 3), st.integers(0, 2), st.booleans(), st.sampled_from([None, 1, 2]))
def test_attention_stays_within_the_values_seen(attend, seed, T, past, causal, window):
    S, mask = T + past, Mask(past, causal, window, None)
    q, k, v = numbers(seed, 1, 2, T, 3), numbers(seed + 1, 1, 1, S, 3), numbers(seed + 2, 1, 1, S, 3)
    y, _ = attend(q, k, v, mask, 1.0)
    seen = np.broadcast_to(visible(mask, T, S, np), (T, S))
    for t in range(T):
        values = v[0, 0, seen[t]]
        assert np.all(y[0, :, t] >= np.min(values, axis=0) - EXACT * 3)
        assert np.all(y[0, :, t] <= np.max(values, axis=0) + EXACT * 3)


def test_dropout_of_rate_zero_changes_nothing():
    x = numbers(0, 3, 4)
    assert np.array_equal(dropout(x, np.zeros((3, 4)), 0.0)[0], x)


# Models


def small_llama(seed, **changes):
    sizes = {"vocab_size": 7, "d_model": 8, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 2, "d_ff": 5}
    config = llama.Config(**sizes, max_positions=8, **changes)
    return {n: numbers(seed + i, *shape) / 4 for i, (n, shape) in enumerate(llama.parameter_shapes(config).items())}, config


def gradients(params, tokens, config):
    output = llama.forward(params, tokens, config)
    loss, judged = cross_entropy(output.logits, np.roll(tokens, -1, axis=1))
    return llama.backward(cross_entropy_backward(np.ones_like(loss), judged), output.saved)


@given(seeds)
def test_a_tied_embedding_collects_both_gradients(seed):
    params, tied = small_llama(seed, tied=True)
    _, untied = small_llama(seed, tied=False)
    tokens = np.random.default_rng(seed).integers(0, 7, (2, 5))
    apart = gradients(params | {"lm_head": params["embedding"].T.copy()}, tokens, untied)
    assert_equal(gradients(params, tokens, tied)["embedding"], apart["embedding"] + apart["lm_head"].T)


@given(seeds, st.integers(5, 9))
def test_a_window_as_long_as_the_sequence_changes_nothing(seed, window):
    params, config = small_llama(seed)
    _, windowed = small_llama(seed, window=window)
    tokens = np.random.default_rng(seed).integers(0, 7, (2, 5))
    assert_equal(llama.forward(params, tokens, windowed).logits, llama.forward(params, tokens, config).logits)


# Decoding


@given(seeds, sizes)
def test_top_k_of_all_and_top_p_of_one_cut_nothing(seed, V):
    logits = numbers(seed, 2, V)
    assert np.array_equal(top_k(logits, V), logits)
    assert np.array_equal(top_k(logits, V + 1), logits)
    assert np.array_equal(top_p(logits, 1.0), logits)


# The array API


def test_a_host_round_trip_changes_nothing(backend):
    xp = backend.xp
    for a in (np.float32([[0.5, -1.25], [3.0, 1e30]]), np.int32([1, -2]), np.asarray([True, False]), np.int64([2**40])):
        there = xp.from_numpy(a)
        back = xp.to_numpy(there)
        assert back.dtype == a.dtype
        assert np.array_equal(back, a)
        back[...] = 0
        assert np.array_equal(xp.to_numpy(there), a)


@given(seeds, sizes, sizes, st.integers(1, 9))
def test_scatter_add_is_a_product_with_one_hot_rows(backend, seed, V, D, n):
    xp, rng = backend.xp, np.random.default_rng(seed)
    y, indices, rows = numbers(seed, V, D), rng.integers(0, V, n), numbers(seed + 1, n, D)
    expected = y + (indices[:, None] == np.arange(V)).T @ rows  # exact: multiples of 1/32
    found = xp.scatter_add(xp.from_numpy(np.float32(y)), xp.from_numpy(np.int32(indices)), xp.from_numpy(np.float32(rows)))
    assert np.array_equal(xp.to_numpy(found), expected)


@given(seeds, st.integers(0, 3), st.integers(1, 3), st.integers(0, 3))
def test_what_is_written_is_read_back(backend, seed, start, length, after):
    xp = backend.xp
    buffer, value = np.float32(numbers(seed, 2, start + length + after)), np.float32(numbers(seed + 1, 2, length))
    found = xp.to_numpy(xp.write(xp.from_numpy(buffer), start, xp.from_numpy(value), 1))
    assert np.array_equal(found[:, start : start + length], value)
    assert np.array_equal(found[:, :start], buffer[:, :start])
    assert np.array_equal(found[:, start + length :], buffer[:, start + length :])


@given(seeds, st.integers(1, 8))
def test_primitives_equal_their_definitions(backend, seed, n):
    xp, rng, define = backend.xp, np.random.default_rng(seed), definitions()
    values, keep = rng.integers(-9, 9, n, dtype=np.int32), rng.random(n) < 0.5
    starts = np.int32(np.flatnonzero(np.r_[True, rng.random(n - 1) < 0.5]))
    matrix, rows, indices = (
        np.float32(numbers(seed, 3, 2)),
        np.float32(numbers(seed + 1, n, 2)),
        rng.integers(0, 3, n, dtype=np.int32),
    )

    def check(name, *arrays):
        expected = define[name](*(a.tolist() if isinstance(a, np.ndarray) else a for a in arrays))
        found = getattr(xp, name)(*(xp.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays))
        assert xp.to_numpy(found).tolist() == expected

    check("segment_min", values, starts)
    check("compress", values, keep)
    check("cumulative_max", values)
    check("scatter_add", matrix, indices, rows)
    check("write", matrix, 1, rows[:2], 0)


@given(seeds, st.integers(1, 9), st.booleans())
def test_gathering_by_argsort_sorts(backend, seed, n, descending):
    xp = backend.xp
    x = np.random.default_rng(seed).integers(0, 4, (2, n)).astype(np.float32)  # with many equal values
    a = xp.from_numpy(x)
    order = xp.argsort(a, axis=-1, descending=descending, stable=True)
    found = xp.to_numpy(xp.take_along_axis(a, order, axis=-1))
    assert np.array_equal(found, xp.to_numpy(xp.sort(a, axis=-1, descending=descending)))
    order = xp.to_numpy(order).astype(np.int64)
    equal = found[:, 1:] == found[:, :-1]
    assert np.all(order[:, 1:][equal] > order[:, :-1][equal])


@given(seeds, st.integers(1, 9))
def test_the_last_cumulative_sum_is_the_sum(backend, seed, n):
    xp = backend.xp
    a = xp.from_numpy(np.random.default_rng(seed).integers(-99, 99, (2, n), dtype=np.int32))
    assert np.array_equal(xp.to_numpy(xp.cumulative_sum(a, axis=1))[:, -1], xp.to_numpy(xp.sum(a, axis=1)))


@given(seeds, sizes, sizes, sizes)
def test_matmul_broadcasts_its_leading_axes(backend, seed, n, m, k):
    xp = backend.xp
    a, b = np.float32(numbers(seed, 2, 3, n, m)), np.float32(numbers(seed + 1, 3, m, k))
    found = xp.to_numpy(xp.matmul(xp.from_numpy(a), xp.from_numpy(b)))
    for i, j in np.ndindex(2, 3):  # exact: sums of a few multiples of 1/1024
        assert np.array_equal(found[i, j], a[i, j].astype(np.float64) @ b[j])
