"""A checkpoint is known by what decides its numbers."""

import hashlib

import pytest

from refllm.checkpoints.fingerprint import sha256


def test_a_files_fingerprint_is_its_hash(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    assert sha256(tmp_path / "model.bin") == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model-00002-of-00002.safetensors", "adapter_model.safetensors"]
)
def test_a_folders_fingerprint_changes_with_every_file_that_decides_a_number(name, tmp_path):
    for file in ("config.json", "model-00001-of-00002.safetensors", name):
        (tmp_path / file).write_bytes(b"0")
    before = sha256(tmp_path)
    (tmp_path / name).write_bytes(b"1")
    assert sha256(tmp_path) != before
    (tmp_path / name).write_bytes(b"0")
    assert sha256(tmp_path) == before


def test_a_folders_fingerprint_does_not_change_with_its_run(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"0")
    before = sha256(tmp_path)
    for name in ("training_state.safetensors", "tokenizer.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(b"1")
    assert sha256(tmp_path) == before


def test_a_checkpoint_that_is_not_there_has_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "none")
