"""What a checkpoint says about conversations."""

import json

import pytest

from refllm.checkpoints import chat_files
from refllm.tokenizer import train_bpe

BPE = train_bpe("low lower lowest", 262, special_tokens=["<|endoftext|>", "<|im_end|>"])


def written(folder, name, **fields):
    (folder / name).write_text(json.dumps(fields))


def test_what_ends_an_answer_is_told_by_the_tokenizer_and_both_configurations(tmp_path):
    assert chat_files.read(tmp_path, BPE) == ({}, {}, {BPE.eos})
    written(tmp_path, "config.json", eos_token_id=3)
    assert chat_files.read(tmp_path, BPE).ends == {BPE.eos, 3}
    written(tmp_path, "generation_config.json", eos_token_id=[4, 5], bos_token_id=1)
    assert chat_files.read(tmp_path, BPE).ends == {BPE.eos, 3, 4, 5}
    written(tmp_path, "generation_config.json", eos_token_id=None)
    assert chat_files.read(tmp_path, BPE).ends == {BPE.eos, 3}
    written(tmp_path, "tokenizer_config.json", eos_token="<|im_end|>")
    assert chat_files.read(tmp_path, BPE).ends == {BPE.eos, 3, BPE.id_of("<|im_end|>")}
    written(tmp_path, "tokenizer_config.json", eos_token="unknown")
    assert chat_files.read(tmp_path, BPE).ends == {BPE.eos, 3}


def test_templates_and_their_tokens_come_from_the_tokenizers_files(tmp_path):
    written(tmp_path, "tokenizer_config.json", chat_template="{{ bos_token }}", bos_token="<s>")
    assert chat_files.read(tmp_path, BPE)[:2] == ({"default": "{{ bos_token }}"}, {"bos_token": "<s>"})


@pytest.mark.parametrize("given", ["</s>", [1, "2"], True, {"id": 1}])
def test_an_end_that_is_no_id_is_refused(given, tmp_path):
    written(tmp_path, "generation_config.json", eos_token_id=given)
    with pytest.raises(ValueError, match=r"generation_config.json has eos_token_id=.*; it must be a whole number"):
        chat_files.read(tmp_path, BPE)


def test_a_gguf_file_holds_its_template(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf writes the file")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_chat_template("{{ messages }}")
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert chat_files.read(tmp_path / "model.gguf", BPE) == ({"default": "{{ messages }}"}, {}, {BPE.eos, 2, 7})


def test_another_file_says_nothing(tmp_path):
    (tmp_path / "model.bin").write_bytes(bytes(28))
    assert chat_files.read(tmp_path / "model.bin", BPE) == ({}, {}, {BPE.eos})
