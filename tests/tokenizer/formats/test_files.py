"""Which kind of tokenizer a file or a folder holds."""

import shutil

import pytest

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.formats.files import KINDS

SENTENCE = "Once upon a time, it's so."


def test_a_folder_with_gpt2s_files_is_opened(gpt2, data, tmp_path):
    shutil.copy(data / "gpt2-encoder.json", tmp_path / "vocab.json")
    shutil.copy(data / "gpt2-vocab.bpe", tmp_path / "merges.txt")
    assert Tokenizer.load(tmp_path).encode(SENTENCE) == gpt2.encode(SENTENCE)


@pytest.mark.parametrize(("source", "name"), [("llama2-tokenizer.model", "tokenizer.model"), ("tok512.bin", "tokenizer.bin")])
def test_a_folder_with_a_llamas_file_is_opened(data, tmp_path, source, name):
    shutil.copy(data / source, tmp_path / name)
    assert Tokenizer.load(tmp_path).encode(SENTENCE) == Tokenizer.load(data / source).encode(SENTENCE)


def test_tokenizer_json_comes_before_other_files(trained, data, tmp_path):
    shutil.copy(data / "llama2-tokenizer.model", tmp_path / "tokenizer.model")
    trained.save(tmp_path)
    assert Tokenizer.load(tmp_path).vocab_size == trained.vocab_size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, "missing.json is not there; a tokenizer's file, or a folder that holds one, is needed."),
        ("list.json", b"[1, 2]", "list.json holds a JSON list; a tokenizer.json holds an object."),
        ("junk.json", b"\xff\xfe\x00", f"junk.json is not a tokenizer's file of a kind that is known: {KINDS}."),
        ("empty.json", b"", f"empty.json is not a tokenizer's file of a kind that is known: {KINDS}."),
        (
            "vocab.json",
            b'{"a": 0}',
            "vocab.json is no tokenizer.json: it has no 'model'. For a vocab.json pass its merges.txt too",
        ),
        ("folder", ..., f"folder holds no tokenizer; it needs one of: {KINDS}."),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_sentence(tmp_path, name, content, message):
    if content is ...:
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Tokenizer.load(tmp_path / name)
    assert message in str(error.value)
