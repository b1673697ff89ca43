"""Tokenizers from the command line: trained, looked into and compared, with right inputs and wrong ones."""

import csv
import io
import json

import pytest

from refllm.cli.tokenizer import text_files
from refllm.tokenizer import AddedToken, Tokenizer, train_bpe


@pytest.fixture
def standard_input(monkeypatch):
    """A function that makes bytes what standard input holds."""

    def holds(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return holds


# -- train --------------------------------------------------------------------------------------------------------------


def test_training_writes_the_tokenizer_that_the_library_trains(refllm, text, tmp_path):
    result = refllm("tokenizer", "train", text, "--vocab-size", "300", "--out", tmp_path / "tokenizer.json")
    assert result.status == 0, result.err
    expected = train_bpe(text.read_text(encoding="utf-8"), 300)
    assert Tokenizer.load(tmp_path / "tokenizer.json").model.pairs() == expected.model.pairs()
    n_bytes = text.stat().st_size
    per_token = n_bytes / expected.count(text.read_text(encoding="utf-8"))
    for words in ("300: 256 bytes, 43 merges, 1 special", f"{per_token:.2f} bytes per token", str(tmp_path)[:20]):
        assert words in result.out


def test_pattern_ties_and_special_tokens_reach_the_trainer(refllm, text, tmp_path):
    options = ["--pattern", "cl100k", "--ties", "first", "--special", "<|a|>", "--special", "<|b|>", "--out", tmp_path]
    assert refllm("tokenizer", "train", text, "--vocab-size", "290", *options).status == 0
    expected = train_bpe(text, 290, ("<|a|>", "<|b|>"), pattern="cl100k", ties="first")
    trained = Tokenizer.load(tmp_path / "tokenizer.json")
    assert trained.model.pairs() == expected.model.pairs()
    assert trained.model.pattern == expected.model.pattern
    assert trained.special_tokens == {"<|a|>", "<|b|>"}


def test_a_folder_teaches_its_files_without_hidden_ones(refllm, tmp_path):
    for name, content in (("a.txt", b"ab ab\r\n"), ("deep/b.md", b"cd cd"), (".git/x", b"\xff"), ("deep/.hidden", b"\xff")):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(content)
    assert refllm("tokenizer", "train", tmp_path / "texts", "--vocab-size", "400", "--out", tmp_path).status == 0
    trained = Tokenizer.load(tmp_path / "tokenizer.json")
    assert trained.model.pairs() == train_bpe(["ab ab\r\n", "cd cd"], 400).model.pairs()


def test_the_files_of_a_folder_come_in_the_order_of_their_names(tmp_path):
    names = [f"{(7 * i) % 31:02d}.txt" for i in range(31)]
    for name in names:
        (tmp_path / name).write_text(name)
    assert [path.name for path in text_files([str(tmp_path)])] == sorted(names)


def test_a_text_that_runs_out_of_pairs_is_told(refllm, tmp_path):
    (tmp_path / "a.txt").write_text("ab")
    result = refllm("tokenizer", "train", tmp_path / "a.txt", "--vocab-size", "400", "--out", tmp_path)
    assert "no pair left to merge" in result.out


def test_a_training_that_is_stopped_leaves_the_old_file_alone(refllm, text, tmp_path, monkeypatch):
    out = tmp_path / "tokenizer.json"
    out.write_text("old")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("refllm.tokenizer.train.learn_merges", stopped)
    assert refllm("tokenizer", "train", text, "--vocab-size", "300", "--out", out).status == 130
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_bars_move_with_bytes_and_merges(text):
    from rich.console import Console

    from refllm.cli.tokenizer import training_bars

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with training_bars(console, 1000, 640) as (counting, merging):
        counting(250)
        merging(320, 640)
    assert "25 %" in out.getvalue()
    assert "50 %" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.txt", "--vocab-size", "300"], "missing.txt is not there; train needs UTF-8 text files"),
        (["TEXT", "--vocab-size", "200"], "vocab_size=200 is too small"),
        (["TEXT", "--vocab-size", "300", "--ties", "last"], "ties='last' is not known; choose one of smallest,"),
        (["TEXT", "--vocab-size", "300", "--pattern", "(a"], "the pattern '(a' "),
        (["TEXT", "--vocab-size", "300", "--pattern", r"\p{L}{1,3}+"], "means something else in a tokenizer.json"),
        (["TEXT", "--vocab-size", "300", "--special", ""], "a special token is empty"),
        (["BINARY", "--vocab-size", "300"], "is not UTF-8 text (byte 1)"),
        (["EMPTY", "--vocab-size", "300"], "the texts are empty"),
        (["FOLDER", "--vocab-size", "300"], "holds no files"),
        (["TEXT"], "missing option '--vocab-size'"),
    ],
)
def test_a_wrong_training_is_refused_and_writes_nothing(refllm, text, tmp_path, arguments, says):
    (tmp_path / "binary").write_bytes(b"P\x89NG")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    names = {"TEXT": text, "BINARY": tmp_path / "binary", "EMPTY": tmp_path / "empty", "FOLDER": tmp_path / "folder"}
    out = tmp_path / "out.json"
    refllm("tokenizer", "train", *(names.get(a, a) for a in arguments), "--out", out).refused(says)
    assert not out.exists()


def test_a_pattern_that_cannot_be_written_is_refused_before_the_work(refllm, text, tmp_path, monkeypatch):
    monkeypatch.setattr("refllm.tokenizer.train.count_words", lambda *_: pytest.fail("it worked for nothing"))
    result = refllm("tokenizer", "train", text, "--vocab-size", "300", "--out", tmp_path, "--pattern", r"\p{L}{1,3}+")
    result.refused("means something else in a tokenizer.json")


def test_a_place_that_is_not_there_is_refused_before_the_work(refllm, text, tmp_path, monkeypatch):
    monkeypatch.setattr("refllm.tokenizer.train.count_words", lambda *_: pytest.fail("it worked for nothing"))
    result = refllm("tokenizer", "train", text, "--vocab-size", "300", "--out", tmp_path / "none" / "t.json")
    result.refused(f"the folder {tmp_path / 'none'} is not there; make it first")


# -- info ---------------------------------------------------------------------------------------------------------------


def test_info_tells_what_a_tokenizer_in_a_folder_is(refllm, text, tmp_path):
    train_bpe(text, 280).save(tmp_path / "tokenizer.json")
    result = refllm("tokenizer", "info", tmp_path)
    for words in ("ByteLevelBPE", "280 tokens, the largest id 279", "<|endoftext|> (279)", r"\p{L}++", "bytes)"):
        assert words in result.out
    about = json.loads(refllm("tokenizer", "info", tmp_path, "--json").out)
    assert about["special_tokens"] == {"<|endoftext|>": 279}
    assert (about["bos"], about["eos"]) == (None, 279)
    assert about["n_tokens"] == about["vocab_size"] == 280
    assert about["longest_token"]["bytes"] == max(map(len, Tokenizer.load(tmp_path).model.vocabulary.values()))


def test_info_names_the_special_tokens_alone(refllm, tmp_path):
    model = train_bpe("the cat", 258, ()).model
    added = [AddedToken(900, "<tool>", special=False), AddedToken(901, "<s>", special=True)]
    Tokenizer(model, added).save(tmp_path)
    about = json.loads(refllm("tokenizer", "info", tmp_path, "--json").out)
    assert about["special_tokens"] == {"<s>": 901}
    assert (about["bos"], about["vocab_size"], about["n_tokens"]) == (901, 902, 260)


def test_info_refuses_what_is_no_tokenizer(refllm, tmp_path):
    refllm("tokenizer", "info", tmp_path).refused("holds no tokenizer")
    refllm("tokenizer", "info", tmp_path / "none.json").refused("is not there")
    (tmp_path / "notes.md").write_text("the cat")
    refllm("tokenizer", "info", tmp_path / "notes.md").refused("is not a tokenizer's file")


# -- compare ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """The paths of a tokenizer that knows English words, and of one that knows single bytes only."""
    paths = tmp_path / "words.json", tmp_path / "bytes.json"
    train_bpe("the cat sat on the mat " * 9, 280).save(paths[0])
    train_bpe("", 257).save(paths[1])
    return paths


def test_compare_counts_what_each_makes_of_each_text_and_of_all(refllm, two, tmp_path):
    texts = {"a.txt": "the cat", "b.txt": "süß\n"}
    for name, content in texts.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    arguments = ["tokenizer", "compare", "-t", two[0], "-t", two[1], *(tmp_path / name for name in texts)]
    rows = [json.loads(line) for line in refllm(*arguments, "--json").out.splitlines()]
    assert [(row["text"], row["tokenizer"]) for row in rows] == [
        (str(text), str(path)) for text in (tmp_path / "a.txt", tmp_path / "b.txt", "all") for path in two
    ]
    for row in rows:
        content = "".join(texts.values()) if row["text"] == "all" else texts[row["text"].rpartition("/")[2]]
        assert row["bytes"] == len(content.encode())
        assert row["characters"] == len(content)
        assert row["bytes_per_token"] == pytest.approx(row["bytes"] / row["tokens"], abs=1e-6)
        assert row["characters_per_token"] == pytest.approx(row["characters"] / row["tokens"], abs=1e-6)
        assert sum(share["tokens"] for share in row["scripts"].values()) == pytest.approx(row["tokens"])
    assert [row["tokens"] for row in rows if row["tokenizer"] == str(two[1])] == [7, 6, 13]
    assert rows[0]["tokens"] == Tokenizer.load(two[0]).count("the cat")
    assert [row["vocabulary"] for row in rows[:2]] == [len(Tokenizer.load(path)) for path in two]
    table = list(csv.DictReader(io.StringIO(refllm(*arguments, "--csv").out)))
    assert [{k: v for k, v in row.items() if k != "scripts"} for row in rows] == [
        {k: type(rows[0][k])(float(v)) if k not in ("text", "tokenizer") else v for k, v in row.items()} for row in table
    ]


def test_compare_prints_tables_that_fit_a_pipe(refllm, two, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "a.txt").write_text("the cat", encoding="utf-8")
    result = refllm("tokenizer", "compare", "-t", two[0], "-t", two[1], tmp_path / "a.txt", "--scripts")
    assert "\x1b" not in result.out
    for words in ("words.json", "bytes.json", "bytes/token", "1.000", "Latin", "spaces", "85.7%"):
        assert words in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())


def test_compare_marks_the_tokenizer_that_needs_fewest_tokens(refllm, two, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "a.txt").write_text("the cat", encoding="utf-8")
    lines = refllm("tokenizer", "compare", "-t", two[1], "-t", two[0], tmp_path / "a.txt").out.splitlines()
    marked = [line for line in lines if "\x1b[1;32m" in line]
    assert len(marked) == 1
    assert "words.json" in marked[0]


def test_compare_reads_standard_input(refllm, two, standard_input):
    standard_input(b"the cat")
    result = refllm("tokenizer", "compare", "-t", two[0], "--json")
    assert json.loads(result.out)["tokens"] == Tokenizer.load(two[0]).count("the cat")


def test_compare_takes_an_empty_text(refllm, two, standard_input):
    standard_input(b"")
    row = json.loads(refllm("tokenizer", "compare", "-t", two[0], "--json").out)
    assert (row["tokens"], row["bytes_per_token"], row["scripts"]) == (0, 0, {})
    standard_input(b"")
    assert refllm("tokenizer", "compare", "-t", two[0], "--scripts").status == 0


def test_compare_refuses_what_it_cannot_compare(refllm, two, text, tmp_path):
    refllm("tokenizer", "compare", "-t", two[0], "-t", two[0], text).refused("given twice")
    refllm("tokenizer", "compare", "-t", two[0], tmp_path / "none.txt").refused("no such file")
    (tmp_path / "notes.md").write_text("the cat")
    refllm("tokenizer", "compare", "-t", tmp_path / "notes.md", text).refused("is not a tokenizer's file")
    refllm("tokenizer", "compare", text).refused("missing option '--tokenizer'")
    refllm("tokenizer", "compare", "-t", two[0], text, "--json", "--csv").refused("exclude each other")


def test_two_tokenizers_of_one_file_name_are_called_by_their_folders(tmp_path):
    from refllm.cli.comparison import _short

    assert _short({"a/tokenizer.json", "b/tokenizer.json"}) == {"a/tokenizer.json": "a", "b/tokenizer.json": "b"}
    assert _short({"a/t.json", "b/t.json"}) == {"a/t.json": "a/t.json", "b/t.json": "b/t.json"}
