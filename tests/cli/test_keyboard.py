"""Phone keyboards from the command line: trained within a budget, asked and judged."""

import io
import json

import pytest

from refllm.checkpoints import arpa, keyboard_file
from refllm.cli.keyboard import bytes_or_ngrams


@pytest.fixture
def standard_input(monkeypatch):
    """A function that makes bytes what standard input holds."""

    def holds(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return holds


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    path.write_text("see you tomorrow\nsee you today\nsee you tomorrow\nthe door\n" * 3, encoding="utf-8")
    return path


@pytest.fixture
def trained(refllm, lines, tmp_path):
    result = refllm("keyboard", "train", lines, "--out", tmp_path / "kb")
    assert result.status == 0, result.err
    return tmp_path / "kb"


def test_a_trained_keyboard_suggests_words_and_ends_them(refllm, trained):
    assert refllm("keyboard", "suggest", trained, "see you ", "-k", 2).out == "tomorrow\ttoday\n"
    assert refllm("keyboard", "suggest", trained, "see you toda").out == "today\n"
    assert refllm("keyboard", "suggest", trained, "zzz").out == "\n"


def test_each_line_of_a_pipe_is_answered(refllm, trained, standard_input):
    standard_input(b"see y\nth")
    assert refllm("keyboard", "suggest", trained).out == "you\nthe\n"
    standard_input("süß th\n".encode())
    answer = refllm("keyboard", "suggest", trained, "--json").out
    assert json.loads(answer) == {"text": "süß th", "suggestions": ["the"]}


def test_training_tells_what_it_found(refllm, lines, tmp_path):
    result = refllm("keyboard", "train", lines, "--min-count", 4, "--order", 2, "--out", tmp_path / "kb")
    assert "33 words in 12 lines" in result.out
    assert "6 words; 27.27% of the text is outside it" in result.out


def test_a_keyboard_is_judged_in_words_and_in_json(refllm, trained, lines):
    shown = refllm("keyboard", "evaluate", trained, lines)
    assert "33 words in 12 lines; 0.00% outside" in shown.out
    told = json.loads(refllm("keyboard", "evaluate", trained, lines, "--json").out)
    assert told["oov_rate"] == 0
    assert 1 < told["perplexity"] < 8
    assert 0 < told["keystroke_savings"] < 1
    assert told["top_1"] <= told["top_3"] <= 1


def test_a_budget_of_bytes_and_of_ngrams_is_kept(refllm, text, tmp_path):
    assert refllm("keyboard", "train", text, "--budget", "12kB", "--out", tmp_path / "a").status == 0
    assert (tmp_path / "a").stat().st_size <= 12_000
    assert refllm("keyboard", "train", text, "--budget", "50 ngrams", "--out", tmp_path / "b.arpa.gz").status == 0
    _, table = arpa.read(tmp_path / "b.arpa.gz")
    assert sum(table.sizes) == 50
    assert refllm("keyboard", "train", text, "--cut-off", 9, "--cut-off", 99, "--out", tmp_path / "c").status == 0
    assert keyboard_file.load(tmp_path / "c").table.sizes[2] == 0


def test_a_budget_holds_after_a_cut_off_too(refllm, text, tmp_path):
    options = ["--cut-off", 2, "--cut-off", 3, "--budget", "60 ngrams", "--out", tmp_path / "kb"]
    assert refllm("keyboard", "train", text, *options).status == 0
    assert sum(keyboard_file.load(tmp_path / "kb").table.sizes) == 60


def test_an_arpa_file_is_a_keyboard(refllm, lines, tmp_path):
    assert refllm("keyboard", "train", lines, "--out", tmp_path / "kb.arpa").status == 0
    assert refllm("keyboard", "suggest", tmp_path / "kb.arpa", "see you ", "-k", 2).out == "tomorrow\ttoday\n"


def test_stupid_backoff_suggests_and_has_no_perplexity(refllm, lines, tmp_path):
    options = ["--smoothing", "stupid", "--budget", "15 ngrams", "--float32", "--out", tmp_path / "kb"]
    assert refllm("keyboard", "train", lines, *options).status == 0
    assert sum(keyboard_file.load(tmp_path / "kb").table.sizes) == 15
    assert refllm("keyboard", "suggest", tmp_path / "kb", "see you ", "-k", 1).out == "tomorrow\n"
    assert "perplexity" not in refllm("keyboard", "evaluate", tmp_path / "kb", lines).out
    assert json.loads(refllm("keyboard", "evaluate", tmp_path / "kb", lines, "--json").out)["perplexity"] is None


@pytest.mark.parametrize(
    ("budget", "meant"),
    [
        ("10MB", (10_000_000, "bytes")),
        ("1.5 kB", (1500, "bytes")),
        ("2MiB", (2 << 20, "bytes")),
        ("7b", (7, "bytes")),
        ("1,250,000 ngrams", (1_250_000, "ngrams")),
    ],
)
def test_budgets_are_read_as_people_write_them(budget, meant):
    assert bytes_or_ngrams(budget) == meant


def test_what_cannot_be_done_is_refused_in_one_line(refllm, lines, trained, tmp_path):
    out = ["--out", tmp_path / "new"]
    refllm("keyboard", "train", lines, *out, "--budget", "10 apples").refused("--budget 10 apples is no size; write it as 10MB")
    refllm("keyboard", "train", lines, *out, "--budget", "2 ngrams").refused("tokens alone are beyond the budget")
    refllm("keyboard", "train", lines, *out, "--smoothing", "katz").refused("choose kneser-ney or stupid")
    refllm("keyboard", "train", lines, *out, "--split", "x").refused("--split x is not known")
    refllm("keyboard", "train", lines, *out, "--cut-off", 3, "--cut-off", 2).refused("never fall")
    refllm("keyboard", "train", lines, "--out", tmp_path / "no" / "kb").refused("is not there; make it first")
    refllm("keyboard", "train", lines, "--out", tmp_path / "a.arpa", "--smoothing", "stupid").refused(
        "cannot hold stupid backoff"
    )
    refllm("keyboard", "train", lines, "--out", tmp_path / "a.arpa", "--budget", "1MB").refused("give it in ngrams")
    refllm("keyboard", "train", tmp_path / "missing", *out).refused("is not there")
    (tmp_path / "dots").write_text("...\n")
    refllm("keyboard", "train", tmp_path / "dots", *out).refused("hold no words")
    refllm("keyboard", "suggest", lines, "see").refused("is no ARPA file")
    refllm("keyboard", "evaluate", trained, tmp_path / "dots").refused("has no word")
    assert not (tmp_path / "new").exists()
