"""Which kind of tokenizer a file or a folder holds."""

import base64
import json
import shutil

import pytest

from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.byte_level import to_characters
from refllm.tokenizer.formats.files import KINDS, in_folder
from refllm.tokenizer.formats.hugging_face import to_document
from refllm.tokenizer.words.patterns import GPT2

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


FORMATS = {
    "tokenizer.json": lambda trained: json.dumps(to_document(trained)),
    "vocab.json": lambda trained: json.dumps({to_characters(token): id for id, token in trained.model.vocabulary.items()}),
    "merges.txt": lambda trained: "\n".join(
        " ".join(to_characters(trained.bytes_of(id)) for id in pair) for pair in trained.model.pairs()
    ),
    "r50k_base.tiktoken": lambda trained: "\n".join(
        f"{base64.b64encode(token).decode()} {id}" for id, token in trained.model.vocabulary.items()
    ),
    "vocab.txt": lambda trained: "[PAD]\n[UNK]\nonce\n##s",
}


@pytest.mark.parametrize(
    ("names", "opened"),
    [
        (["tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"], "tokenizer.json"),
        (["vocab.json", "merges.txt", "vocab.txt"], "vocab.json"),
        (["vocab.txt", "r50k_base.tiktoken"], "vocab.txt"),
        (["r50k_base.tiktoken"], "r50k_base.tiktoken"),
    ],
)
def test_of_several_files_in_a_folder_one_is_opened(trained, tmp_path, names, opened):
    for name in names:
        (tmp_path / name).write_text(FORMATS[name](trained), encoding="utf-8")
    assert in_folder(tmp_path) == tmp_path / opened
    assert Tokenizer.load(tmp_path).encode("once") == Tokenizer.load(tmp_path / opened).encode("once")


def test_of_several_rank_files_none_is_chosen(trained, tmp_path):
    for name in ("p50k_base.tiktoken", "r50k_base.tiktoken"):
        (tmp_path / name).write_text(FORMATS["r50k_base.tiktoken"](trained), encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds p50k_base\.tiktoken, r50k_base\.tiktoken; pass the path of one of them\.$"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_vocabulary_and_its_merges_find_each_other(trained, tmp_path, name):
    for each in ("vocab.json", "merges.txt"):
        (tmp_path / each).write_text(FORMATS[each](trained), encoding="utf-8")
    assert Tokenizer.load(tmp_path / name).encode(SENTENCE) == trained.encode(SENTENCE)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "r50k_base.tiktoken"])
def test_a_file_is_known_by_its_content(trained, tmp_path, name):
    (tmp_path / name).write_text(FORMATS[name](trained), encoding="utf-8")
    (tmp_path / "other").write_text(FORMATS[name](trained), encoding="utf-8")
    pattern = GPT2 if name.endswith("tiktoken") else None
    assert Tokenizer.load(tmp_path / "other", pattern=pattern).encode("once") == Tokenizer.load(tmp_path / name).encode("once")


def test_a_config_beside_tokenizer_json_tells_the_ends(trained, tmp_path):
    added = [AddedToken(2000, "<begin>", True), AddedToken(2001, "<end>", True)]
    Tokenizer(trained.model, added, bos=2000, eos=2001).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert (Tokenizer.load(tmp_path).bos, Tokenizer.load(tmp_path).eos) == (2000, 2001)
    config = {"bos_token": {"content": "<end>"}, "eos_token": "<end>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert (Tokenizer.load(tmp_path).bos, Tokenizer.load(tmp_path).eos) == (None, 2001)
    Tokenizer(trained.model, added, bos=2001, eos=2001).save(tmp_path)
    assert (Tokenizer.load(tmp_path).bos, Tokenizer.load(tmp_path).eos) == (2001, 2001)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not whole JSON"):
        Tokenizer.load(tmp_path)


def test_ends_that_no_added_token_is_are_not_saved(trained, tmp_path):
    with pytest.raises(ValueError, match=r"^bos or eos is the id of no added token; a tokenizer\.json cannot hold that\.$"):
        Tokenizer(trained.model, bos=5).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tekken", "mistral_v3", "bert", "p50k_base"])
def test_real_files_are_known(packaged, name):
    tokenizer = Tokenizer.load(packaged(name))
    assert len(tokenizer) > 30_000
    assert tokenizer.decode(tokenizer.encode(SENTENCE)).lower().replace(" '", "'").replace("' ", "'") == SENTENCE.lower()
