"""Rotary positions: gradients, distance alone matters, both pairings, Llama 3.1's frequencies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import normals
from refllm.layers.rope import (
    LinearScaling,
    Llama3Scaling,
    YarnScaling,
    rope,
    rope_amplitude,
    rope_angles,
    rope_backward,
    rope_frequencies,
    rope_interleaved,
    rope_interleaved_backward,
)
from refllm.models import llama

BOTH = pytest.mark.parametrize(
    ("turn", "backward"), [(rope, rope_backward), (rope_interleaved, rope_interleaved_backward)], ids=["rope", "interleaved"]
)
LLAMA_3_1 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)


def angles(positions, K, theta=10_000.0):
    return rope_angles(np.asarray(positions, dtype=np.int32), rope_frequencies(K, theta), np.float64)


@BOTH
@given(st.data())
def test_gradients_equal_the_complex_step(turn, backward, data):
    B, H, T, K = (data.draw(st.integers(1, n)) for n in (2, 3, 4, 3))
    x = data.draw(normals((B, H, T, 2 * K)))
    if data.draw(st.booleans()):
        cos, sin = angles(np.arange(T) + 3, 2 * K)
    else:  # positions that differ by row
        cos, sin = (a[:, None] for a in angles(np.arange(B)[:, None] + np.arange(T), 2 * K))
    assert gradient_error(lambda x: turn(x, cos, sin), backward, (x,)) <= 1e-12


@BOTH
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), normals((2, 1, 1, 1, 8)))
def test_products_of_turned_queries_and_keys_depend_on_the_distance_alone(turn, backward, first, second, shift, qk):
    q, k = qk.astype(np.float64)

    def product(query, key):
        return np.sum(turn(q, *angles([query], 8))[0] * turn(k, *angles([key], 8))[0])

    # the angles, up to 1000 radians, are rounded to half a ulp of 1000: 6e-14
    np.testing.assert_allclose(
        product(first + shift, second + shift), product(first, second), rtol=0, atol=1e-12 * np.sum(np.abs(q * k)) + 1e-11
    )


@BOTH
def test_turning_keeps_lengths_and_position_zero_stays(turn, backward):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    y, _ = turn(x, *angles(range(5), 8))
    np.testing.assert_allclose(np.sum(y * y, axis=-1), np.sum(x * x, axis=-1), rtol=1e-14)
    np.testing.assert_array_equal(y[:, :, 0], x[:, :, 0])


def test_the_two_pairings_are_one_rotation_of_permuted_features():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    cos, sin = angles(range(5), 8)
    order = [0, 4, 1, 5, 2, 6, 3, 7]  # pairs (i, i + 4) beside each other
    np.testing.assert_array_equal(rope_interleaved(x[..., order], cos, sin)[0], rope(x, cos, sin)[0][..., order])


def test_interleaved_pairs_are_complex_numbers_times_powers_of_i():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    turned = x.view(np.complex128) * np.exp(1j * np.arange(5)[:, None] * np.array(rope_frequencies(8, 10_000.0)))
    y, _ = rope_interleaved(x, *angles(range(5), 8))
    np.testing.assert_allclose(y.view(np.complex128), turned, rtol=0, atol=1e-14)


@pytest.mark.oracle
@BOTH
def test_they_agree_with_torch(turn, backward, assert_agrees_with_torch):
    import torch

    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    cos, sin = angles(range(5), 8)

    def theirs(x):
        if turn is rope:
            from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

            both = [torch.tensor(np.concatenate([a, a], axis=-1))[None] for a in (cos, sin)]
            return apply_rotary_pos_emb(x, x, *both)[0]
        pairs = torch.view_as_complex(x.reshape(2, 3, 5, 4, 2))
        return torch.view_as_real(pairs * torch.complex(torch.tensor(cos), torch.tensor(sin))).reshape(x.shape)

    assert_agrees_with_torch(lambda x: turn(x, cos, sin), backward, (x,), theirs)


SCALINGS = [
    *(None, LLAMA_3_1, Llama3Scaling(32.0, 1.0, 4.0, 8192), LinearScaling(4.0)),
    *(YarnScaling(4.0, 32_768), YarnScaling(40.0, 4096, 16.0, 2.0, 1.3, whole=False), YarnScaling(2.0, 16)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("scaling", SCALINGS)
def test_frequencies_and_amplitude_agree_with_transformers(scaling, transformers_in_float64):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    spelled = {"rope_theta": 500_000.0} | (llama.scaling_fields(scaling) or {"rope_type": "default"})
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, max_position_embeddings=131_072, rope_parameters=spelled)
    if scaling is None:
        theirs, amplitude = LlamaRotaryEmbedding(config).inv_freq, 1.0
    else:
        theirs, amplitude = ROPE_INIT_FUNCTIONS[scaling.kind](config, "cpu")
    np.testing.assert_allclose(rope_frequencies(128, 500_000.0, scaling), theirs.numpy(), rtol=1e-14)
    assert rope_amplitude(scaling) == amplitude


def test_scaled_frequencies_are_those_of_llama_3_1_by_wavelength():
    for f, slowed in zip(rope_frequencies(128, 500_000.0), rope_frequencies(128, 500_000.0, LLAMA_3_1), strict=True):
        wavelength = 2 * np.pi / f  # in positions
        if wavelength < 8192 / 4:
            expected = f
        elif wavelength > 8192 / 1:
            expected = f / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * f / 8 + smooth * f
        np.testing.assert_allclose(slowed, expected, rtol=1e-14)


def test_scaling_slows_low_frequencies_and_keeps_high_ones():
    plain, slowed = rope_frequencies(128, 500_000.0), rope_frequencies(128, 500_000.0, LLAMA_3_1)
    assert slowed[0] == plain[0]
    assert slowed[-1] == plain[-1] / 8
    assert all(f / 8 <= s <= f for f, s in zip(plain, slowed, strict=True))
    assert slowed == sorted(slowed, reverse=True)


def test_angles_of_rows_with_their_own_positions_have_a_row_each(backend):
    xp = backend.xp
    positions = xp.from_numpy(np.array([[0, 1, 2], [5, 6, 7]], dtype=np.int32))
    cos, sin = rope_angles(positions, rope_frequencies(4, 100.0), xp.float32)
    exact = np.array([[0, 1, 2], [5, 6, 7]])[..., None] * np.array([1.0, 0.1])
    assert np.all(np.abs(xp.to_numpy(cos) - np.cos(exact)) <= 2.0**-23 * (1 + exact))
    assert np.all(np.abs(xp.to_numpy(sin) - np.sin(exact)) <= 2.0**-23 * (1 + exact))
