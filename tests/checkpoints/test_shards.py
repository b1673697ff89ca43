"""Tensors in several files: cut and joined as transformers does it, replaced whole, and no file opened but those beside them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.checkpoints import shards, tensor_file
from refllm.checkpoints.shards import INDEX, WEIGHTS
from refllm.checkpoints.tensor_file import Tensor, of_array

TENSORS = {name: np.full(n, i, np.float32) for i, (name, n) in enumerate({"a": 4, "b": 2, "c": 9, "d": 1}.items())}


def write(folder, tensors=TENSORS, largest=24):
    shards.write(folder, {name: of_array(a) for name, a in tensors.items()}, largest)


def assert_holds(folder, tensors=TENSORS):
    read = shards.read(folder)
    assert read.keys() == tensors.keys()
    for name, a in tensors.items():
        np.testing.assert_array_equal(read[name].values(), a)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tensors_are_cut_where_a_file_would_be_too_large_and_joined_again(tmp_path):
    write(tmp_path)
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert names(tmp_path) == [*files, INDEX]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index == {
        "metadata": {"total_size": 64},
        "weight_map": {"a": files[0], "b": files[0], "c": files[1], "d": files[2]},
    }
    assert_holds(tmp_path)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=9), largest=st.integers(1, 40))
def test_every_part_is_as_large_as_allowed_or_one_tensor(sizes, largest):
    tensors = {str(i): Tensor("F32", (n,), lambda: None) for i, n in enumerate(sizes)}
    parts = shards.split(tensors, largest)
    assert [name for part in parts for name in part] == list(tensors)
    bytes_of = [sum(map(tensor_file.size_of, part.values())) for part in parts]
    assert all(size <= largest or len(part) == 1 for size, part in zip(bytes_of, parts, strict=True))
    for size, following in zip(bytes_of, parts[1:], strict=False):
        assert size + tensor_file.size_of(next(iter(following.values()))) > largest


def test_files_of_an_older_model_are_removed_and_others_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path)
    write(tmp_path, largest=1000)
    assert names(tmp_path) == [WEIGHTS, "notes.txt"]
    assert_holds(tmp_path)
    write(tmp_path, largest=40)
    assert names(tmp_path) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX, "notes.txt"]
    assert_holds(tmp_path)


def test_an_interrupted_write_leaves_all_old_files_whole(tmp_path):
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop():
        raise KeyboardInterrupt

    changed = {name: of_array(a + 1) for name, a in TENSORS.items()} | {"d": Tensor("F32", (1,), stop)}
    for largest in (24, 1000):
        with pytest.raises(KeyboardInterrupt):
            shards.write(tmp_path, changed, largest)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_progress_is_told_in_bytes(tmp_path):
    told = []
    shards.write(tmp_path, {name: of_array(a) for name, a in TENSORS.items()}, 24, told.append)
    assert told == [16, 8, 36, 4]


@pytest.mark.parametrize(
    ("size", "n"),
    [(7, 7), ("7", 7), ("5GB", 5 * 10**9), ("1.5 kb", 1500), ("2MiB", 2 << 20), ("1KiB", 1024), ("3TB", 3 * 10**12)],
)
def test_sizes_are_read(size, n):
    assert shards.size_in_bytes(size) == n


@pytest.mark.parametrize("size", ["", "GB", "0", 0, -1, "-5GB", "5XB", "5 potatoes", "nan", "infGB", "1e400"])
def test_what_is_no_size_is_refused_with_a_sentence(size):
    with pytest.raises(
        ValueError, match="is no size of a file; write bytes, or a number with KB, MB, GB, MiB or GiB, such as 5GB."
    ):
        shards.size_in_bytes(size)


def index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "config.json",
        "",
        "x\0.safetensors",
    ],
)
def test_a_file_elsewhere_is_never_opened(tmp_path, shard):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.safetensors", folder / "sub" / "x.safetensors"):
        tensor_file.write(path, {"a": of_array(np.ones(2))})
    index(folder, {"a": shard})
    with pytest.raises(
        ValueError, match=r"index.json names .*; a shard is a .safetensors file beside it, and no other is opened."
    ):
        shards.read(folder)


SHARD = "model-00001-of-00003.safetensors"
WHERE = {"a": SHARD, "b": SHARD, "c": "model-00002-of-00003.safetensors", "d": "model-00003-of-00003.safetensors"}


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({**WHERE, "e": SHARD}, f"says that e lies in {SHARD}, which does not hold it"),
        ({n: f for n, f in WHERE.items() if n != "b"}, f"{SHARD} holds b, but {INDEX} does not speak of it"),
        ({**WHERE, "b": WHERE["c"]}, f"{SHARD} holds b, but {INDEX} says that it lies in {WHERE['c']}"),
        ({}, "does not say in which shard each tensor lies"),
        ({"a": 3}, "does not say in which shard each tensor lies"),
        (["a"], "does not say in which shard each tensor lies"),
    ],
)
def test_an_index_that_lies_is_refused_with_a_sentence(tmp_path, weight_map, sentence):
    write(tmp_path)
    index(tmp_path, weight_map)
    with pytest.raises(ValueError, match=sentence):
        shards.read(tmp_path)


def test_a_pickle_is_never_read_and_how_to_convert_it_is_said(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n")
    with pytest.raises(
        FileNotFoundError, match=r"pytorch_model.bin is not read: it is a pickle, .*\.save_pretrained\(folder\)\."
    ):
        shards.read(tmp_path)


@pytest.mark.oracle
def test_transformers_and_refllm_read_each_others_shards(tmp_path):
    import torch
    import transformers

    import refllm

    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    theirs = transformers.LlamaForCausalLM(config).double()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")
    assert (tmp_path / "theirs" / INDEX).is_file()
    model = refllm.load(tmp_path / "theirs", "numpy")
    refllm.save(tmp_path / "ours", model, max_shard_size="10KB")
    assert (tmp_path / "ours" / INDEX).is_file()
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float64).state_dict()
    for name, a in theirs.state_dict().items():
        np.testing.assert_array_equal(back[name].numpy(), a.numpy())
        np.testing.assert_array_equal(model.export(model.params)[name], a.numpy())
