"""Texts to ids and back by the command line, byte for byte."""

import io
import json
import os
import select
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm.cli import doors
from refllm.cli.visible import visible
from refllm.tokenizer import Tokenizer, train_bpe

HARD = "Hello  wörld 😀\r\n\x00\ttabs\u2028 <|endoftext|>▁\n\nthe cat sat on the mat"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small tokenizer's file."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe("the cat sat on the mat. Hello wörld " * 9, 300).save(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return Tokenizer.load(path)


@pytest.fixture
def standard_input(monkeypatch):
    """A function that makes bytes what standard input holds."""

    def holds(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return holds


# -- there and back -----------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=20), max_size=3), json_too=st.booleans())
def test_detokenize_gives_back_every_byte_of_every_file(refllm, path, tmp_path, standard_input, texts, json_too):
    files = [tmp_path / f"{i}.txt" for i in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text.encode("utf-8", "replace"))
    if not files:
        standard_input(b"")
    ids = refllm("tokenize", "-t", path, *files, *["--json"] * json_too)
    assert ids.out.count("\n") == max(1, len(texts)), "a line for each document"
    standard_input(ids.out.encode())
    assert detokenized(refllm, path) == b"".join(file.read_bytes() for file in files)


def detokenized(refllm, path, *options):
    result = refllm("detokenize", "-t", path, *options)
    assert result.status == 0, result.err
    return result.out.encode()


@pytest.mark.parametrize("name", ["gpt2-encoder.json", "llama2-tokenizer.model"])
def test_a_pipe_of_both_gives_a_file_back(name, data, tmp_path):
    """Through real pipes, with a text that is long and ends without a newline."""
    text = (HARD + "\n").encode() * 900 + b"end"
    (tmp_path / "text.txt").write_bytes(text)
    if name == "gpt2-encoder.json":
        (tmp_path / "vocab.json").symlink_to(data / name)
        (tmp_path / "merges.txt").symlink_to(data / "gpt2-vocab.bpe")
    tokenizer = str(tmp_path if name == "gpt2-encoder.json" else data / name)
    code = "from refllm.cli import main; main()"
    command = [sys.executable, "-c", code]
    there = subprocess.Popen([*command, "tokenize", "-t", tokenizer, str(tmp_path / "text.txt")], stdout=subprocess.PIPE)
    back = subprocess.run([*command, "detokenize", "-t", tokenizer], stdin=there.stdout, capture_output=True, check=True)
    there.stdout.close()
    assert there.wait() == 0
    assert back.stdout.replace(b"\xe2\x96\x81", b" ") == text.replace(b"\xe2\x96\x81", b" "), "SentencePiece writes a space as ▁"


def test_lines_are_documents_of_their_own(refllm, path, tokenizer, standard_input):
    standard_input(b"the cat\r\n\nthe mat")
    ids = refllm("tokenize", "-t", path, "--lines").out
    assert [[int(id) for id in line.split()] for line in ids.splitlines()] == [
        tokenizer.encode(line) for line in ("the cat\r", "", "the mat")
    ]
    standard_input(ids.encode())
    assert detokenized(refllm, path, "--lines") == b"the cat\r\n\nthe mat\n"


def test_lines_of_text_given_are_documents_too(refllm, path, tokenizer):
    out = refllm("tokenize", "-t", path, "--text", "the\ncat", "--lines").out
    assert [[int(id) for id in line.split()] for line in out.splitlines()] == [tokenizer.encode(line) for line in ("the", "cat")]


def test_a_line_is_answered_before_the_next_comes(path, tokenizer):
    command = [sys.executable, "-c", "from refllm.cli import main; main()", "tokenize", "-t", str(path), "--lines"]
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=usual)
    for line in ("the cat", "the mat"):
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60)[0], "no answer yet"
        assert [int(id) for id in process.stdout.readline().split()] == tokenizer.encode(line)
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait() == 0


# -- what tokenize prints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "the cat", HARD, HARD * 300], ids=["empty", "short", "hard", "long"])
def test_the_ids_are_those_of_the_library(refllm, path, tokenizer, tmp_path, text):
    expected = tokenizer.encode(text, disallowed_special=())
    assert refllm("tokenize", "-t", path, "--text", text).out == " ".join(map(str, expected)) + "\n"
    assert json.loads(refllm("tokenize", "-t", path, "--text", text, "--json").out) == expected
    assert refllm("tokenize", "-t", path, "--text", text, "--count").out == f"{len(expected)}\n"


def test_ids_are_written_in_pieces_without_a_seam(refllm, path, tokenizer, monkeypatch):
    monkeypatch.setattr("refllm.cli.tokenize.BLOCK", 3)
    expected = tokenizer.encode("the cat sat on the mat, hello")
    assert refllm("tokenize", "-t", path, "--text", "the cat sat on the mat, hello").out.split() == list(map(str, expected))
    assert json.loads(refllm("tokenize", "-t", path, "--text", "the cat sat on the mat, hello", "--json").out) == expected


def test_special_tokens_are_text_unless_allowed(refllm, path, tokenizer):
    text = "the<|endoftext|>"
    assert tokenizer.eos not in map(int, refllm("tokenize", "-t", path, "--text", text).out.split())
    for allowed in ("all", "<|endoftext|>"):
        out = refllm("tokenize", "-t", path, "--text", text, "--allow-special", allowed).out
        assert list(map(int, out.split())) == tokenizer.encode(text, allowed_special="all")
    refllm("tokenize", "-t", path, "--text", text, "--allow-special", "<s>").refused(
        "'<s>' is no special token of this tokenizer; there are: <|endoftext|>",
    )


def test_documents_begin_and_end_as_asked(refllm, path, tokenizer, data):
    assert refllm("tokenize", "-t", path, "--text", "the", "--eos").out.split()[-1] == str(tokenizer.eos)
    llama = data / "llama2-tokenizer.model"
    assert refllm("tokenize", "-t", llama, "--text", "Hi", "--bos", "--eos").out == "1 6324 2\n"
    refllm("tokenize", "-t", path, "--text", "the", "--bos").refused("bos")


def test_counts_name_their_files_where_there_are_several(refllm, path, tokenizer, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("the cat ö" * (1 + (name == "b")), encoding="utf-8")
    both = [tmp_path / "a", tmp_path / "b"]
    sizes = [len(tokenizer.encode("the cat ö" * n)) for n in (1, 2)]
    assert refllm("tokenize", "-t", path, *both, "--count").out == f"{sizes[0]} {both[0]}\n{sizes[1]} {both[1]}\n"
    lines = [json.loads(line) for line in refllm("tokenize", "-t", path, *both, "--count", "--json").out.splitlines()]
    assert lines[0] == {"file": str(both[0]), "tokens": sizes[0], "characters": 9, "bytes": 10}


def test_offsets_tell_the_characters_of_each_token(refllm, path, tokenizer):
    text = "the wörld 😀\n"
    ids, spans = tokenizer.encode_with_offsets(text)
    lines = [line.split("\t") for line in refllm("tokenize", "-t", path, "--text", text, "--offsets").out.splitlines()]
    assert [int(line[0]) for line in lines] == ids
    assert [(int(line[1]), int(line[2])) for line in lines] == spans
    assert lines[0][3] == "the"
    assert lines[-1][3] == "↵"
    assert [line[3] for line in lines if text[int(line[1]) : int(line[2])] == "😀"] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    found = json.loads(refllm("tokenize", "-t", path, "--text", text, "--offsets", "--json").out)
    assert found == {"ids": ids, "offsets": [list(span) for span in spans]}


def test_shown_in_a_pipe_each_token_has_a_boundary_and_no_colour(refllm, path):
    result = refllm("tokenize", "-t", path, "--text", "the cat 😀\n\t\u200b[bold]", "--show")
    assert "\x1b" not in result.out
    assert result.out.startswith("▏the▏·cat▏·▏<0xF0>▏<0x9F>▏<0x98>▏<0x80>▏↵\n▏→▏<0xE2>▏<0x80>▏<0x8B>▏[▏b▏o▏ld▏]\n")


def test_a_text_that_ends_its_line_is_shown_without_another(refllm, path):
    assert refllm("tokenize", "-t", path, "--text", "the\n", "--show").out == "▏the▏↵\n"


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (b" a\t\n", "·a→↵\n"),
        ("é".encode(), "é"),
        ("é".encode()[:1], "<0xC3>"),
        (b"a\xff", "a<0xFF>"),
        ("\u200d\x00\x85\u2028\u00a0".encode(), "<U+200D><U+0000><U+0085><U+2028><U+00A0>"),
        (b"\xed\xb2\x80", "<0xED><0xB2><0x80>"),
        (b"", ""),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(token, seen):
    assert visible(token) == seen


def test_shown_on_a_terminal_tokens_alternate_in_colour(refllm, path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = refllm("tokenize", "-t", path, "--text", "the cat sat", "--show").out
    styles = [part.partition("m")[0] for part in out.split("\x1b[") if part.partition("m")[2]]
    assert len(styles) >= 3
    assert styles[0] == styles[2] != styles[1]
    assert "▏" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert refllm("tokenize", "-t", path, "--text", "the cat sat", "--show").out == "▏the▏·cat▏·sat\n"


def test_a_long_text_is_shown_whole(refllm, path, tmp_path):
    (tmp_path / "a.txt").write_text("the cat " * 3000)
    out = refllm("tokenize", "-t", path, tmp_path / "a.txt", "--show").out
    assert out.replace("▏", "").replace("·", " ") == "the cat " * 3000 + "\n"


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-t", "PATH", "missing.txt"], "missing.txt: no such file"),
        (["-t", "missing.json", "--text", "a"], "missing.json is not there"),
        (["-t", "TEXT", "--text", "a"], "is not a tokenizer's file"),
        (["-t", "PATH", "BINARY"], "is not UTF-8 text (byte 1)"),
        (["-t", "PATH", "LATER", "--lines"], "is not UTF-8 text (byte 5)"),
        (["-t", "PATH", "FOLDER"], "is a directory"),
        (["-t", "PATH", "TEXT", "--text", "a"], "takes one or the other"),
        (["-t", "PATH", "TEXT", "--show", "--count"], "exclude each other"),
        (["-t", "PATH", "TEXT", "--show", "--json"], "give one of them"),
        (["TEXT"], "missing option '--tokenizer'"),
    ],
)
def test_a_wrong_text_or_tokenizer_is_refused(refllm, path, tmp_path, arguments, says):
    (tmp_path / "binary").write_bytes(b"P\x89NG")
    (tmp_path / "later").write_bytes(b"\n\n\n\nP\x89NG")
    (tmp_path / "text").write_bytes(b"plain text")
    names = {name.upper(): tmp_path / name for name in ("binary", "later", "text")} | {"PATH": path, "FOLDER": tmp_path}
    result = refllm("tokenize", *(names.get(a, a) for a in arguments))
    result.refused(says)
    assert result.out.strip() == "", "no ids of what is refused"


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (b"1 2\n3 x4 5\n", "standard input, line 2: 'x4' is no token id"),
        (b"1 -2", "'-2' is no token id"),
        (b"1 99999", "line 1: token id 99999 is not in the vocabulary of 280 tokens"),
        (b"\xff\xfe\x00", "is no token id"),
        ("٣".encode(), "is no token id"),
        (b"1_0", "'1_0' is no token id"),
        (b"[1, 2", "this is not JSON"),
        (b'{"tokens": [1]}', "the JSON holds no list of token ids"),
        (b'[1, "2"]', "'2' is no token id"),
        (b"[1, 2.5]", "'2.5' is no token id"),
        (b"[1, true]", "'True' is no token id"),
        (b"[[1], 2]", "is no token id"),
        (b"[-1]", "token id -1 is not in the vocabulary"),
        (b"9" * 5000, "is no token id"),
    ],
)
def test_wrong_ids_are_refused_with_their_line(refllm, path, standard_input, ids, says):
    standard_input(ids)
    refllm("detokenize", "-t", path).refused(says)


def test_detokenize_reads_json_however_it_is_laid_out(refllm, path, tokenizer, standard_input):
    one, two = tokenizer.encode("the cat\n"), tokenizer.encode("sat")
    for written in (
        json.dumps([one, two]),
        json.dumps([one, two], indent=2),
        f"{json.dumps(one)}\n{json.dumps(two)}\n",
        f"{json.dumps({'ids': one})}\n{' '.join(map(str, two))}\n",
        json.dumps(one + two, indent=1),
    ):
        standard_input(written.encode())
        assert detokenized(refllm, path) == b"the cat\nsat"
    standard_input(b"[]\n\n[[], []]\n")
    assert detokenized(refllm, path, "--lines") == b"\n\n\n\n", "four documents without text"


def test_detokenize_leaves_special_tokens_out_on_request(refllm, path, tokenizer, standard_input):
    ids = f"{tokenizer.encode('the')[0]} {tokenizer.eos}".encode()
    standard_input(ids)
    assert detokenized(refllm, path) == b"the<|endoftext|>"
    standard_input(ids)
    assert detokenized(refllm, path, "--skip-special") == b"the"


def test_detokenize_writes_bytes_that_are_no_text(path, tokenizer):
    half = tokenizer.encode("😀")[:2]
    command = [sys.executable, "-c", "from refllm.cli import main; main()", "detokenize", "-t", str(path)]
    result = subprocess.run(command, input=" ".join(map(str, half)).encode(), capture_output=True, check=True)
    assert result.stdout == "😀".encode()[:2]


def test_a_reader_that_leaves_early_is_no_error(path, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 20_000)
    command = [sys.executable, "-c", "from refllm.cli import main; main()", "tokenize", "-t", str(path), str(tmp_path / "a.txt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() in (doors.CLOSED, 1), "1 is typer's own"
