"""`refllm bench tokenizer`: every side gives the same ids, and says how long it took."""

import json

import pytest

from refllm.bench.duel import Result, Side, check_agreement
from refllm.bench.tokenizer_sides import digest
from refllm.cli.doors import run
from refllm.tokenizer import train_bpe

WORK = ["load", "prompt", "code", "mix", "word", "decode", "batch"]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "tokenizer.json"
    train_bpe("a function returns the value of an expression; an expression is evaluated when it is met. " * 20, 300).save(path)
    return path


def test_our_side_alone_is_timed(tokenizer_file, capsys):
    assert run(["bench", "tokenizer", str(tokenizer_file), "--megabytes", "0.02", "--runs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["timed"] for row in found["rows"]] == WORK
    assert all(row["seconds"] > 0 for row in found["rows"])
    assert found["figures"]["refllm"]["input_bytes_per_token"] > 1


def test_sides_with_other_ids_are_refused():
    assert digest([1, 2, 3]) == digest((1, 2, 3)) != digest([1, 3, 2])
    ours, theirs = (Result(Side(name, name), {"ids of code": digest(ids)}) for name, ids in (("a", [1, 2]), ("b", [2, 1])))
    check_agreement([ours, ours])
    with pytest.raises(ValueError, match="b does not compute what a does: its ids of code"):
        check_agreement([ours, theirs])


def test_training_is_timed_on_the_documents_given(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("one two three " * 100)
    arguments = ["bench", "tokenizer-training", "--vocab-size", "270", "--text", str(path), "--runs", "1", "--json"]
    assert run(arguments) == 0
    assert [row["timed"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["training"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--against", "nltk"],
            "--against 'nltk' is not a peer that refllm knows; there are tiktoken, tokenizers, ",
        ),
        (["--against", "sentencepiece"], "is no tokenizer.model, the only kind that sentencepiece opens."),
    ],
)
def test_a_peer_that_cannot_be_is_refused_in_one_sentence(tokenizer_file, arguments, sentence, capsys):
    assert run(["bench", "tokenizer", str(tokenizer_file), *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_without_a_tokenizer_one_is_trained_on_the_code(capsys):
    assert run(["bench", "tokenizer", "--megabytes", "0.02", "--runs", "1"]) == 0
    assert "input bytes per token" in capsys.readouterr().out


def test_an_absent_peer_is_named(tokenizer_file, monkeypatch, capsys):
    monkeypatch.setattr("refllm.cli.bench_run.find_spec", lambda name: None)
    assert run(["bench", "tokenizer", str(tokenizer_file), "--against", "tiktoken", "--megabytes", "0.02"]) == 2
    assert "pip install 'refllm[bench]'" in capsys.readouterr().err


@pytest.mark.oracle
def test_tiktoken_and_tokenizers_give_our_ids(gpt2_folder, capsys):
    arguments = ["bench", "tokenizer", str(gpt2_folder), "--against", "tiktoken,tokenizers", "--megabytes", "0.05"]
    assert run([*arguments, "--runs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_step"]["tiktoken"] == found["first_step"]["refllm"] == found["first_step"]["tokenizers"]


@pytest.mark.oracle
def test_sentencepiece_gives_our_ids(data, capsys):
    arguments = ["bench", "tokenizer", str(data / "llama2-tokenizer.model"), "--against", "sentencepiece"]
    assert run([*arguments, "--megabytes", "0.05", "--runs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_step"]["sentencepiece"] == found["first_step"]["refllm"]


@pytest.mark.oracle
def test_tokenizers_learns_our_merges(tmp_path, capsys):
    arguments = ["bench", "tokenizer-training", "--vocab-size", "600", "--megabytes", "0.2", "--runs", "1", "--json"]
    assert run([*arguments, "--against", "tokenizers"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_step"]["tokenizers"] == found["first_step"]["refllm"]


@pytest.fixture
def gpt2_folder(data, tmp_path):
    """GPT-2's vocabulary in a folder, as Hugging Face keeps it."""
    (tmp_path / "vocab.json").symlink_to(data / "gpt2-encoder.json")
    (tmp_path / "merges.txt").symlink_to(data / "gpt2-vocab.bpe")
    return tmp_path
