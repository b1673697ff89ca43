"""The mixture of experts: its gradients, what it costs, whom a choice concerns, and the loss that spreads the choices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.host_syncs import count_host_syncs
from refllm.conformance.strategies import normals, truths
from refllm.layers.mixture_of_experts import (
    LEAST,
    SHARE,
    by_place,
    by_time,
    grouped_by_expert,
    load_balancing_loss,
    load_balancing_loss_backward,
    mixture_of_experts,
    mixture_of_experts_backward,
    top_experts,
)
from refllm.layers.swiglu import swiglu

shapes = st.sampled_from([(), (1,), (3,), (2, 3), (3, 1, 2), (2, 20)])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def mixtures(draw, shapes=shapes):
    """The arguments of a mixture, float64, logits without ties."""
    rng, shape = np.random.default_rng(draw(seeds)), draw(shapes)
    D, F, E = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    sizes = ((*shape, D), (*shape, E), (E, D, F), (E, D, F), (E, F, D))
    return (*(rng.standard_normal(s) for s in sizes), draw(st.integers(1, E)))


def by_all_experts(x, logits, gate, up, down, top_k):
    """The same without a choice: every expert answers everywhere, and those not chosen weigh nothing."""
    rank = np.argsort(np.argsort(-logits, axis=-1, kind="stable"), axis=-1)
    weights = np.where(rank < top_k, np.exp(logits), 0)
    weights = weights / np.sum(weights, axis=-1, keepdims=True)
    answers = np.stack([swiglu(x, *matrices)[0] for matrices in zip(gate, up, down, strict=True)], axis=-1)
    return np.sum(answers * weights[..., None, :], axis=-1)


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


@given(mixtures())
def test_every_position_gets_the_weighted_answers_of_its_best_experts(arguments):
    assert relative(mixture_of_experts(*arguments)[0], by_all_experts(*arguments)) <= 1e-12


@given(mixtures(st.sampled_from([(), (2,), (2, 2)])))
def test_gradients_equal_the_complex_step(arguments):
    assert gradient_error(mixture_of_experts, mixture_of_experts_backward, arguments) <= 1e-12


@given(normals((2, 3, 4)), st.none() | truths((2, 3)), st.integers(1, 4))
def test_the_balancing_losss_gradient_equals_the_complex_step(logits, valid, top_k):
    assert gradient_error(load_balancing_loss, load_balancing_loss_backward, (logits, valid, top_k)) <= 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (8, 2), (3, 2)])
def test_both_agree_with_torchs_autograd(assert_agrees_with_torch, n_experts, top_k):
    import torch
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    rng, E = np.random.default_rng(0), n_experts
    x, logits, gate, up, down = (rng.standard_normal(s) for s in ((2, 9, 5), (2, 9, E), (E, 5, 7), (E, 5, 7), (E, 7, 5)))

    def theirs(x, logits, gate, up, down):
        values, chosen = torch.topk(logits, top_k, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(values, dim=-1))
        a, b = torch.einsum("btd,edf->btef", x, gate), torch.einsum("btd,edf->btef", x, up)
        return torch.einsum("btef,efd,bte->btd", torch.nn.functional.silu(a) * b, down, weights)

    def layers_apart(logits, valid=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "float32", torch.float64)
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return load_balancing_loss_func(tuple(logits), E, top_k, None if valid is None else valid[0].long())

    def forward(*arguments):
        return mixture_of_experts(*arguments, top_k)

    def balance(logits, valid=None):
        loss, saved = load_balancing_loss(logits, valid, top_k)
        return np.asarray(loss), saved

    assert_agrees_with_torch(forward, mixture_of_experts_backward, (x, logits, gate, up, down), theirs)
    assert_agrees_with_torch(balance, load_balancing_loss_backward, (logits,), layers_apart)
    valid = np.broadcast_to(rng.random(9) < 0.6, (2, 9))
    assert_agrees_with_torch(balance, load_balancing_loss_backward, (logits, valid), layers_apart)


def test_of_equal_logits_the_lower_expert_is_chosen(backend):
    xp = backend.xp
    logits = np.float32([[0, 0, 0, 0, 0], [1, 2, 2, 2, 1], [-0.0, 0, -1, 0, 0], [5, 1, 5, 1, 5]])
    chosen = xp.to_numpy(top_experts(xp.from_numpy(logits), 3))
    assert chosen.tolist() == [[0, 1, 2], [1, 2, 3], [0, 1, 3], [0, 2, 4]]
    x, logits = np.ones((2, 1), dtype=np.float32), np.float32([40 * [0], 8 * [0, 1, 1, 0, 0]])
    ones, named = np.ones((40, 1, 1), dtype=np.float32), np.arange(40, dtype=np.float32).reshape(40, 1, 1)
    y, _ = mixture_of_experts(*(xp.from_numpy(a) for a in (x, logits, ones, ones, named)), 5)  # the answer tells who gave it
    np.testing.assert_allclose(xp.to_numpy(y)[:, 0], np.float32([2, (1 + 2 + 6 + 7 + 11) / 5]) / (1 + np.exp(-1)), rtol=1e-6)


@given(st.data(), st.integers(1, 40), st.integers(1, 9))
def test_every_choice_has_a_slot_with_its_expert_and_earlier_positions_stand_before_later(backend, data, N, n_experts):
    top_k = data.draw(st.integers(1, n_experts))
    logits = np.random.default_rng(data.draw(seeds)).standard_normal((N, n_experts)) * [1, 9][data.draw(st.booleans())]
    chosen = np.int32(np.argsort(-logits, axis=-1)[:, :top_k])
    groups = grouped_by_expert(backend.xp.from_numpy(chosen), n_experts)
    sources, slots, experts = (backend.xp.to_numpy(a) for a in groups[:3])
    assert sources.shape == (len(experts) * groups.size,)
    np.testing.assert_array_equal(sources[slots], np.arange(N * top_k))
    assert np.sum(sources < N * top_k) == N * top_k
    np.testing.assert_array_equal(experts[slots // groups.size], chosen.reshape(-1))
    assert set(experts) <= set(chosen.reshape(-1))
    for expert in range(n_experts):
        mine = slots[chosen.reshape(-1) == expert]
        np.testing.assert_array_equal(mine, np.arange(len(mine)) + (mine[0] if len(mine) else 0))


@given(shapes.filter(bool))
def test_positions_are_counted_by_time_and_put_back_in_their_places(shape):
    x = np.arange(2 * math.prod(shape)).reshape(*shape, 2)
    counted, time = by_time(x), np.broadcast_to(np.arange(shape[-1]), shape)
    assert counted.shape == (x.size // 2, 2)
    assert np.all(np.diff(by_time(time[..., None])[:, 0]) >= 0)
    np.testing.assert_array_equal(by_place(counted, x.shape), x)


@given(st.integers(1, 5000), st.integers(1, 64), st.data())
def test_the_cost_follows_the_experts_chosen(N, n_experts, data):
    top_k = data.draw(st.integers(1, min(n_experts, 8)))
    chosen = np.int32(np.arange(N)[:, None] * top_k + np.arange(top_k)) % n_experts
    groups = grouped_by_expert(chosen, n_experts)
    n = N * top_k
    assert len(groups.sources) <= n * (1 + 1 / SHARE) + (LEAST - 1) * min(n, n_experts)
    assert len(groups.experts) <= n / groups.size + n_experts
    if N == 1:
        assert sorted(groups.experts) == sorted(chosen[0])


@pytest.mark.parametrize("T", [1, 3, 40])
def test_experts_that_nobody_chooses_are_not_read(backend, T):
    xp, rng = backend.xp, np.random.default_rng(0)
    logits = rng.standard_normal((2, T, 6))
    logits[..., [1, 4]] -= 99
    chosen = set(np.argsort(-logits, axis=-1)[..., :2].reshape(-1).tolist())
    experts = [rng.standard_normal(s) for s in ((6, 3, 4), (6, 3, 4), (6, 4, 3))]
    poisoned = [np.where([[[e not in chosen]] for e in range(6)], np.nan, w) for w in experts]
    x, dy = rng.standard_normal((2, 2, T, 3))

    def computed(experts):
        arrays = [xp.from_numpy(np.float32(a)) for a in (x, logits, *experts)]
        y, saved = mixture_of_experts(*arrays, 2)
        return [xp.to_numpy(a) for a in (y, *mixture_of_experts_backward(xp.from_numpy(np.float32(dy)), saved))]

    for clean, found in zip(computed(experts), computed(poisoned), strict=True):
        np.testing.assert_array_equal(found, clean)


@given(seeds, st.sampled_from([(2,), (2, 5), (3, 17), (40,)]), st.sampled_from([(2, 3), (65, 37)]), st.data())
def test_what_later_positions_are_changes_no_bit_of_an_earlier_answer(backend, seed, shape, sizes, data):
    (D, F), E, top_k = sizes, 5, data.draw(st.integers(1, 3))
    rng, t = np.random.default_rng(seed), data.draw(st.integers(1, shape[-1] - 1), label="t")
    x, logits, *experts = (rng.standard_normal(s) for s in ((*shape, D), (*shape, E), (E, D, F), (E, D, F), (E, F, D)))

    def answers(x, logits):
        y, _ = mixture_of_experts(*(backend.xp.from_numpy(np.float32(a)) for a in (x, logits, *experts)), top_k)
        return backend.xp.to_numpy(y)[..., :t, :]

    others = [np.concatenate([a[..., :t, :], rng.standard_normal(a[..., t:, :].shape)], axis=-2) for a in (x, logits)]
    np.testing.assert_array_equal(answers(x, logits), answers(*others))


def test_no_choice_makes_the_host_wait():
    rng = np.random.default_rng(0)
    with count_host_syncs() as syncs:
        xp = syncs.backend.xp
        sizes = ((2, 7, 4), (2, 7, 5), (5, 4, 3), (5, 4, 3), (5, 3, 4))
        arrays = [xp.from_numpy(np.float32(rng.standard_normal(s))) for s in sizes]
        y, saved = mixture_of_experts(*arrays, 2)
        mixture_of_experts_backward(y, saved)
        loss, saved = load_balancing_loss(arrays[1], None, 2)
        load_balancing_loss_backward(loss, saved)
        assert syncs.count == 0, syncs.places


@given(mixtures(), seeds)
def test_the_order_of_the_experts_does_not_matter(arguments, seed):
    x, logits, gate, up, down, top_k = arguments
    order = np.random.default_rng(seed).permutation(len(gate))
    permuted = mixture_of_experts(x, logits[..., order], gate[order], up[order], down[order], top_k)[0]
    assert relative(permuted, mixture_of_experts(*arguments)[0]) <= 1e-12


@given(mixtures())
def test_equal_experts_answer_as_one(arguments):
    x, logits, gate, up, down, top_k = arguments
    alike = [np.broadcast_to(w[:1], w.shape).copy() for w in (gate, up, down)]
    assert relative(mixture_of_experts(x, logits, *alike, top_k)[0], swiglu(x, gate[0], up[0], down[0])[0]) <= 1e-12


@given(mixtures(), seeds)
def test_a_choice_of_one_passes_no_gradient_to_its_logits(arguments, seed):
    y, saved = mixture_of_experts(*arguments[:-1], 1)
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    np.testing.assert_array_equal(mixture_of_experts_backward(dy, saved)[1], 0)


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (8, 2), (3, 3)])
def test_even_choices_cost_top_k_and_equal_ones_up_to_the_number_of_experts(n_experts, top_k):
    even = np.zeros((n_experts, n_experts))
    for n in range(n_experts):
        even[n, (n + np.arange(top_k)) % n_experts] = 50.0
    assert abs(load_balancing_loss(even, None, top_k)[0] - top_k) <= 1e-12
    same = np.broadcast_to(50.0 * (np.arange(n_experts) == 0), (7, n_experts))
    assert abs(load_balancing_loss(same, None, top_k)[0] - n_experts) <= 1e-12


@given(normals((3, 5, 4)), truths((3, 5)), st.integers(1, 4))
def test_positions_that_do_not_count_change_no_balance(logits, valid, top_k):
    logits = np.float64(logits)
    for counted in (valid, np.zeros_like(valid)):
        loss, saved = load_balancing_loss(logits, counted, top_k)
        np.testing.assert_array_equal(load_balancing_loss_backward(np.asarray(1.0), saved)[~counted], 0)
    assert loss == 0
    loss, _ = load_balancing_loss(logits, valid, top_k)
    alone = load_balancing_loss(logits[valid], None, top_k)[0] if valid.any() else 0.0
    assert abs(loss - alone) <= 1e-12
