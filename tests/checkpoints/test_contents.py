"""What a checkpoint holds, told without reading its weights."""

import json
import struct
import time
from dataclasses import replace

import numpy as np
import pytest

from refllm import checkpoints
from refllm.bench import memory
from refllm.checkpoints import adapter
from refllm.checkpoints.contents import contents
from refllm.models import bert, gpt2, llama
from refllm.models.model import Model
from refllm.models.parameters import count
from refllm.training.config import LoraConfig
from refllm.training.lora import adapt

SMALL = llama.Config(vocab_size=31, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_head=4, d_ff=12, max_positions=32)


@pytest.fixture
def small():
    return Model.initialise("llama", SMALL, 0, "numpy")


def test_a_folder_is_told_by_its_dtypes(small, tmp_path):
    checkpoints.save(tmp_path, small, "bfloat16")
    found = contents(tmp_path)
    n = small.n_parameters
    assert (found.kind, found.architecture, found.config) == ("Hugging Face folder", llama, SMALL)
    assert found.stored == (("BF16", len(small.shapes), n, 2 * n),)
    assert contents(tmp_path / "config.json") == found


def test_a_folder_in_shards_is_told_as_a_whole(small, tmp_path):
    checkpoints.save(tmp_path, small, "float32", max_shard_size=2000)
    assert not (tmp_path / "model.safetensors").exists()
    found = contents(tmp_path)
    assert found.kind == "Hugging Face folder, sharded"
    assert found.stored == (("F32", len(small.shapes), small.n_parameters, 4 * small.n_parameters),)


def test_a_configuration_without_weights_suffices(small, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(llama.hugging_face_config(SMALL)))
    found = contents(tmp_path)
    assert (found.kind, found.config, found.stored) == ("configuration without weights", SMALL, ())


def test_an_adapter_is_told_with_the_model_that_it_adapts(small, tmp_path):
    checkpoints.save(tmp_path / "base", small, "bfloat16")
    lora = LoraConfig(3, ("q",))
    params = adapt(llama, SMALL, small.params, lora).initialise(SMALL, 0)
    adapter.write(tmp_path / "adapter", small, params, lora, "../base")
    found, base = contents(tmp_path / "adapter"), contents(tmp_path / "base")
    assert found.kind == f"adapter of {tmp_path}/adapter/../base, a Hugging Face folder"
    assert found.config == SMALL
    assert found.stored == (*base.stored, ("F32", 4, 2 * 3 * (8 + 8), 4 * 2 * 3 * (8 + 8)))


def test_a_file_of_llama2c_is_told_by_its_version(data):
    found = contents(data / "stories260K.bin")
    assert found.kind == "llama2.c checkpoint, version 0"
    assert found.config.d_model == 64
    assert found.stored == (("F32", 47, 260_032, 1_056_540),)


@pytest.mark.parametrize(("name", "module"), [("gpt2-xl", gpt2), ("gpt3-175b", gpt2), ("bert-base", bert)])
def test_a_published_size_is_told_by_its_name(name, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = contents(name)
    assert (found.kind, found.architecture, found.config) == ("published size", module, module.SIZES[name])


def test_what_is_neither_a_path_nor_a_name_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no-model is neither there nor the name of a published size; .* gpt2-xl"):
        contents(tmp_path / "no-model")


def test_a_configuration_of_endless_layers_is_refused(tmp_path):
    fields = llama.hugging_face_config(SMALL) | {"num_hidden_layers": 10**9}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="num_hidden_layers=1000000000"):
        contents(tmp_path)


def test_no_weight_is_read(tmp_path):
    """Two gigabytes of zeros, which the file system does not store, are neither read nor held in memory."""
    config = llama.Config(32_000, 2048, 9, 16, 16, 128, 5504, 2048)
    (tmp_path / "config.json").write_text(json.dumps(llama.hugging_face_config(config)))
    shapes, header, end = llama.parameter_shapes(config), {}, 0
    for ours, (theirs, transposed) in llama.hugging_face_names(config).items():
        shape = shapes[ours][::-1] if transposed else shapes[ours]
        header[theirs] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + 4 * int(np.prod(shape))]}
        end = header[theirs]["data_offsets"][1]
    head = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
    assert end == 4 * count(shapes) > 2e9
    memory.forget_peak()
    before, began = memory.resident(), time.perf_counter()
    found = contents(tmp_path)
    assert found.stored[0].bytes == end
    assert memory.peak() - before < 1e8
    assert time.perf_counter() - began < 1


def test_a_gguf_file_is_told_by_its_types(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf writes the file")
    config, rng = replace(SMALL, d_model=32, d_ff=32), np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_value_length(config.d_head)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_context_length(config.max_positions)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    short = {"attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v", "attention.o": "attn_output"}
    short |= {"attention_norm": "attn_norm", "embedding": "token_embd", "norm": "output_norm", "lm_head": "output"}
    short |= {"ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down", "ffn_norm": "ffn_norm"}
    for name, shape in llama.parameter_shapes(config).items():
        *layer, kind = name.removeprefix("layers.").split(".", 1) if name.startswith("layers.") else (name,)
        values = rng.standard_normal(shape[::-1] if name != "embedding" else shape).astype(np.float32)
        theirs = "".join(f"blk.{i}." for i in layer) + f"{short[kind]}.weight"
        if kind == "ffn.up":
            kind_of = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, gguf.quants.quantize(values, kind_of), raw_dtype=kind_of)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, n = contents(tmp_path / "model.gguf"), count(llama.parameter_shapes(config))
    assert (found.kind, found.config.d_model, found.tokenizer) == ("GGUF file", 32, None)
    quantised = config.n_layers * config.d_model * config.d_ff
    assert found.stored == (("F32", 19, n - quantised, 4 * (n - quantised)), ("Q8_0", 2, quantised, quantised * 34 // 32))
    assert contents(tmp_path) == found
