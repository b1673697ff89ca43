"""First values of parameters, and the names that they go by."""

import numpy as np
import pytest

from refllm.array_api import generator
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model
from refllm.models.parameters import count, initial_values, under, within

CONFIGS = {
    "bert": architecture("bert").Config(vocab_size=300, d_model=64, n_layers=2, n_heads=2, max_positions=50, d_ff=256),
    "gemma": architecture("gemma").Config(
        vocab_size=300,
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=170,
        query_pre_attn_scalar=16,
        max_positions=50,
    ),
    "gpt2": architecture("gpt2").Config(vocab_size=300, d_model=64, n_layers=2, n_heads=2, max_positions=50, d_ff=256),
    "llama": architecture("llama").Config(
        vocab_size=300, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_head=16, d_ff=170, max_positions=50
    ),
    "mixtral": architecture("mixtral").Config(
        vocab_size=300,
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=60,
        n_experts=3,
        top_k=2,
        max_positions=50,
    ),
}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def test_a_block_taken_out_by_its_prefix_goes_back_under_it():
    tensors = {"layers.0.q": 1, "layers.0.k": 2, "layers.1.q": 3, "norm": 4}
    block = within(tensors, "layers.0.", ["q", "k"])
    assert block == {"q": 1, "k": 2}
    assert under("layers.0.", block) == {"layers.0.q": 1, "layers.0.k": 2}


@every_architecture
def test_first_values_are_normal_of_deviation_two_hundredths_gains_one_and_biases_zero(name):
    config = CONFIGS[name]
    values = architecture(name).initialise(config, seed=7)
    assert {n: v.shape for n, v in values.items()} == architecture(name).parameter_shapes(config)
    for n, v in values.items():
        assert v.dtype == np.float32
        if v.ndim == 1:
            assert np.all(v == (0 if n.endswith("bias") or name == "gemma" else 1)), n  # Gemma's gains are deviations from one
        else:
            residual = n.endswith(("attention.o", "ffn.down", "experts.down")) and name != "bert"  # which normalises every sum
            deviation = 0.02 / np.sqrt(2 * 2) if residual else 0.02
            # the sample deviation of N normal numbers lies within 5/√(2N) of the true one, all but once in a million times
            assert abs(np.std(v) / deviation - 1) < 5 / np.sqrt(2 * v.size), n
            assert abs(np.mean(v)) < 5 * deviation / np.sqrt(v.size), n


@every_architecture
def test_the_same_seed_gives_the_same_first_values_on_every_backend(name, backend):
    expected = architecture(name).initialise(CONFIGS[name], seed=3)
    model = Model.initialise(name, CONFIGS[name], 3, backend)
    for n, values in expected.items():
        np.testing.assert_array_equal(backend.xp.to_numpy(model.params[n]), values)


@every_architecture
def test_another_seed_and_another_matrix_have_other_values(name):
    first, second = (architecture(name).initialise(CONFIGS[name], seed) for seed in (0, 1))
    assert np.all(first["embedding"][:, :8] != second["embedding"][:, :8])
    assert np.all(first["layers.0.attention.o"] != first["layers.1.attention.o"])


def test_first_values_are_addressed_by_the_seed_and_the_place_in_the_table():
    shapes = {"embedding": (2, 3), "norm": (3,), "layers.0.attention.o": (3, 2)}
    values = initial_values(shapes, seed=4, gains=("norm",), residual=("attention.o",), n_layers=8)
    for i, name, deviation in ((0, "embedding", 0.02), (2, "layers.0.attention.o", 0.005)):
        normal = generator(4, "init", i).standard_normal(shapes[name], dtype=np.float32)
        np.testing.assert_array_equal(values[name], normal * np.float32(deviation))
    assert count(shapes) == 15
