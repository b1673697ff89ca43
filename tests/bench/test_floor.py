"""The floor counts the bytes that the arrays have and the operations of the products; how fast a machine is, no test says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.bench import floor
from refllm.decoding import new_cache
from refllm.decoding.generate import prefill
from refllm.layers.cache_blocks import bytes_of
from refllm.models import gpt2, llama, mixtral
from refllm.models.model import Model

CONFIGS = {
    "gpt2": gpt2.Config(vocab_size=11, d_model=6, n_layers=2, n_heads=3, max_positions=16, d_ff=5),
    "llama": llama.Config(11, 6, 2, 4, 2, 4, 5, 16),
    "llama, tied": llama.Config(11, 6, 3, 2, 1, 2, 9, 16, tied=True),
    "llama, windowed": llama.Config(11, 6, 3, 2, 1, 2, 9, 16, window=4, full_layers=(1,)),
    "mixtral": mixtral.Config(11, 6, 2, 2, 1, 2, 5, n_experts=3, top_k=3, max_positions=16),
}
SPEEDS = floor.Speeds(bandwidth=1e9, matrix=1e12)


def model(name, dtype="float32"):
    made = Model.initialise(name.partition(",")[0], CONFIGS[name], 0, "numpy")
    return Model(made.architecture, made.config, {n: p.astype(dtype) for n, p in made.params.items()})


def counted_bytes(of, rows):
    """Bytes of the model's arrays, of the tables only so many rows, save where one is the head."""
    return sum(
        p[:rows].nbytes if n.endswith("embedding") and ("lm_head" in of.params or n != "embedding") else p.nbytes
        for n, p in of.params.items()
    )


def kept(of, length, quantised):
    """Bytes of one row's keys and values at a length, of the blocks themselves, cut to what the windows see."""
    layers = new_cache(of, 1, 16, quantised=quantised, size=1).layers
    seen = [min(length, layer.window or length) for layer in layers]
    return sum(bytes_of(block) for layer, n in zip(layers, seen, strict=True) for pair in layer.spare[:n] for block in pair)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(length=st.integers(1, 16), rows=st.integers(1, 3), quantised=st.booleans())
def test_a_token_moves_the_bytes_of_the_arrays(name, dtype, length, rows, quantised):
    of = model(name, dtype)
    expected = counted_bytes(of, rows) + rows * kept(of, length, quantised)
    assert floor.token_work(of, length, rows, quantised).bytes == expected


@pytest.mark.parametrize("name", CONFIGS)
@given(st.integers(1, 16), st.booleans())
def test_a_prefill_moves_the_parameters_once_and_writes_the_cache(name, n_tokens, quantised):
    of = model(name)
    keys = of.config.n_layers * n_tokens * floor.layer_bytes(of, quantised)
    assert floor.prefill_work(of, n_tokens, quantised).bytes == counted_bytes(of, n_tokens) + keys


def test_experts_that_a_token_does_not_go_through_are_not_read():
    few = mixtral.Config(11, 6, 2, 2, 1, 2, 5, n_experts=3, top_k=1, max_positions=16)
    of = Model.initialise("mixtral", few, 0, "numpy")
    unread = sum(p[1:].nbytes for n, p in of.params.items() if "experts" in n)
    assert unread > 0
    assert floor.parameter_bytes(of, 1) == counted_bytes(of, 1) - unread


@pytest.fixture
def products(monkeypatch):
    """A list that gets the operations of every matrix product of NumPy, by the readable bodies."""
    numpy, found = load("numpy"), []
    plain = numpy.xp.matmul

    def counting(x1, x2):
        y = plain(x1, x2)
        found.append(2 * y.size * x1.shape[-1])
        return y

    monkeypatch.setattr(numpy.xp, "matmul", counting)
    with kernels(numpy, {}):
        yield found


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama, tied"])
def test_the_operations_are_those_of_the_products(name, products):
    """The readable attention multiplies queries with later keys too, so the prompt is read token by token here."""
    of = model(name)
    cache = new_cache(of, 2, 7)
    for length in range(1, 8):
        products.clear()
        _, cache = prefill(of, of.tokens([[1], [2]]), cache)
        assert sum(products) == floor.token_work(of, length, 2).operations
    steps = sum(floor.token_work(of, length).operations for length in range(1, 8))
    heads = 6 * 2 * of.config.d_model * of.config.vocab_size  # a prefill asks for the logits of its last position only
    assert floor.prefill_work(of, 7).operations == steps - heads


@given(st.integers(1, 16))
def test_a_window_bounds_the_pairs_of_a_prefill(n_tokens):
    of = model("llama, windowed")
    wide = Model.initialise("llama", llama.Config(11, 6, 3, 2, 1, 2, 9, 16), 0, "numpy")
    unseen = 2 * sum(max(0, t - 4) for t in range(1, n_tokens + 1)) * 4 * of.config.n_heads * of.config.d_head
    assert floor.prefill_work(wide, n_tokens).operations - floor.prefill_work(of, n_tokens).operations == unseen


def test_the_floor_is_the_slower_of_reading_and_computing():
    reading, computing = floor.Floor(floor.Work(10**9, 10**9), SPEEDS), floor.Floor(floor.Work(10**6, 10**12), SPEEDS)
    assert (reading.seconds, reading.computing) == (1.0, 1e-3)
    assert (computing.seconds, computing.reading) == (1.0, 1e-3)


def test_the_speeds_are_measured_once_for_a_backend_and_dtype(monkeypatch, backend):
    monkeypatch.setattr(floor, "_MEASURED", {})
    monkeypatch.setattr(floor, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(floor, "LARGE", 2**20)
    of = Model.initialise("llama", CONFIGS["llama"], 0, backend)
    first = floor.speeds(of)
    assert min(first) > 0
    assert floor.speeds(of) is first
    assert floor.token_floor(of, 3) == (floor.token_work(of, 3), first)
    assert floor.prefill_floor(of, 3) == (floor.prefill_work(of, 3), first)
    assert set(floor._MEASURED) == {(backend, "float32")}
