"""Parameters in a file: opened without being read, each read once when it is used, and never changed."""

import json
import os
import weakref

import numpy as np
import pytest

from refllm import checkpoints
from refllm.array_api import load
from refllm.checkpoints import tensor_file
from refllm.checkpoints.hugging_face import write_model
from refllm.checkpoints.lazy import LazyParameters, once
from refllm.checkpoints.tensor_file import Tensor
from refllm.models import llama
from refllm.models.model import Model

CONFIG = llama.Config(vocab_size=9, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_head=4, d_ff=12, max_positions=16)


def counted(reads):
    """Tensors that write down when they are read."""

    def tensor(name, a):
        return Tensor("F32", a.shape, lambda: reads.append(name) or a)

    return {name: tensor(name, np.full((2, 3), i, np.float32)) for i, name in enumerate(("embedding", "b", "c"))}


def test_a_parameter_is_read_once_and_only_when_it_is_asked_for(backend):
    reads = []
    params = LazyParameters(counted(reads), backend, backend.xp.float32)
    assert list(params) == ["embedding", "b", "c"]
    assert len(params) == 3
    assert "c" in params
    assert "d" not in params
    assert params.stored == "float32"
    assert reads == []
    np.testing.assert_array_equal(backend.xp.to_numpy(params["b"]), np.ones((2, 3)))
    assert params["b"] is params["b"]
    assert reads == ["b"]
    assert repr(params) == "<3 parameters, 1 of them in memory>"
    once(params, "c")
    assert once(params, "b") is params["b"]
    assert reads == ["b", "c"]
    assert repr(params) == "<3 parameters, 1 of them in memory>"
    with pytest.raises(KeyError):
        params["d"]


def test_an_opened_model_holds_nothing_in_memory(tmp_path):
    checkpoints.save(tmp_path, Model.initialise("llama", CONFIG, 0, "numpy"))
    model = checkpoints.load(tmp_path, "numpy")
    assert repr(model.params) == "<21 parameters, 0 of them in memory>"
    assert model.n_parameters == sum(p.size for p in model.params.values())


def test_numpy_sees_the_file_itself_and_cannot_change_it(tmp_path):
    checkpoints.save(tmp_path, Model.initialise("llama", CONFIG, 0, "numpy"))
    for name, p in checkpoints.load(tmp_path, "numpy").params.items():
        assert not p.flags.owndata, name
        with pytest.raises(ValueError, match="read-only"):
            p[...] = 0
    for p in checkpoints.load(tmp_path, "numpy", dtype="float64").params.values():
        assert p.dtype == np.float64


def test_a_tensor_that_lies_at_an_odd_place_is_copied(tmp_path):
    numbers = np.frombuffer(bytes(1) + np.arange(6, dtype="<f4").tobytes(), np.uint8)[1:].view("<f4").reshape(2, 3)
    assert not numbers.flags.aligned
    params = LazyParameters({"a": tensor_file.of_array(numbers)}, load("numpy"), np.float32)
    assert params["a"].flags.aligned
    np.testing.assert_array_equal(params["a"], numbers)


def test_opening_gigabytes_takes_no_memory(tmp_path):
    """The file has a hole in it, so that it takes no room on the disk; its tensors are zeros."""
    width, hidden = 1 << 14, 1 << 15
    config = llama.Config(
        vocab_size=64, d_model=width, n_layers=1, n_heads=1, n_kv_heads=1, d_head=width, d_ff=hidden, max_positions=8
    )
    names, shapes, header, end = llama.hugging_face_names(config), llama.parameter_shapes(config), {}, 0
    for ours, (theirs, transposed) in names.items():
        shape = shapes[ours][::-1] if transposed else shapes[ours]
        begin, end = end, end + 4 * int(np.prod(shape))
        header[theirs] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)
    (tmp_path / "config.json").write_text(json.dumps(llama.hugging_face_config(config)))
    assert os.path.getsize(tmp_path / "model.safetensors") > 10_000_000_000
    backend = load("numpy")
    before = backend.xp.memory()[1]
    model = checkpoints.load(tmp_path, backend)
    assert not np.any(model.params["layers.0.ffn.down"][:, 5])
    assert not np.any(model.params["embedding"][5])
    assert backend.xp.memory()[1] - before < 100_000_000  # bytes: of 10 billion


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_in_a_file_computes_what_it_computes_in_memory(tmp_path, backend, dtype):
    if dtype not in backend.xp.dtypes():
        pytest.skip(f"{backend.name} does not compute in {dtype}")
    checkpoints.save(tmp_path, Model.initialise("llama", CONFIG, 0, "numpy"))
    lazy = checkpoints.load(tmp_path, backend, dtype)
    held = Model(llama, CONFIG, {n: backend.xp.asarray(p, copy=True) for n, p in lazy.params.items()})
    tokens, targets = [[1, 2, 3], [4, 5, 6]], [[2, 3, 4], [5, 6, 7]]
    to_numpy, eps = backend.xp.to_numpy, float(backend.xp.finfo(getattr(backend.xp, dtype)).eps)
    logits, gradients = lazy.logits(tokens), lazy.gradients(tokens, targets)
    near = {"rtol": 0, "atol": 64 * eps}  # products of transposed memory add up in another order: 12 numbers of at most 1
    np.testing.assert_allclose(to_numpy(logits), to_numpy(held.logits(tokens)), **near)
    for name, g in held.gradients(tokens, targets).items():
        np.testing.assert_allclose(to_numpy(gradients[name]), to_numpy(g), err_msg=name, **near)


def test_a_model_is_saved_over_the_file_it_lies_in(tmp_path):
    checkpoints.save(tmp_path, Model.initialise("llama", CONFIG, 0, "numpy"))
    before = (tmp_path / "model.safetensors").read_bytes()
    model = checkpoints.load(tmp_path, "numpy")
    seen = model.params["norm"]
    checkpoints.save(tmp_path, model)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    checkpoints.save(tmp_path, Model.initialise("llama", CONFIG, 1, "numpy"))
    np.testing.assert_array_equal(seen, np.ones(8))
    assert np.any(model.params["layers.0.attention.q"] != checkpoints.load(tmp_path).params["layers.0.attention.q"])


def test_saving_holds_one_parameter_at_a_time(tmp_path):
    made, alive = [], []

    def reading(shape):
        def values():
            a = np.ones(shape, np.float32)
            made.append(weakref.ref(a))
            return a

        return values

    tensors = {name: Tensor("F32", shape, reading(shape)) for name, shape in llama.parameter_shapes(CONFIG).items()}
    model = Model(llama, CONFIG, LazyParameters(tensors, load("numpy"), np.float32))
    write_model(tmp_path, model, told=lambda n: alive.append(sum(a() is not None for a in made)))
    assert len(alive) == 21
    assert max(alive) == 1


def test_saving_keeps_no_more_than_one_parameter_in_memory(tmp_path):
    checkpoints.save(tmp_path / "a", Model.initialise("llama", CONFIG, 0, "numpy"), dtype="bfloat16")
    model = checkpoints.load(tmp_path / "a", "numpy")
    checkpoints.save(tmp_path / "b", model)
    assert repr(model.params) == "<21 parameters, 0 of them in memory>"
    assert model.params.stored == "bfloat16"
