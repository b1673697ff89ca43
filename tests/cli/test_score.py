"""Scores, perplexities, tasks and fillings by the command line, held to the functions that they call."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from refllm import checkpoints
from refllm.cli import score
from refllm.cli.visible import visible_line
from refllm.evaluation import (
    continuation_log_likelihood,
    fill,
    perplexity,
    pseudo_log_likelihood,
    read_task,
    run_task,
    token_log_probabilities,
)
from refllm.models import bert, llama
from refllm.models.model import Model
from refllm.tokenizer import AddedToken, Template, Tokenizer, train_bpe
from refllm.tokenizer.word_piece import WordPiece

LEVELS = [(0, 0), (0.99, 0), (1.01, 1), (2.9, 1), (3.1, 2), (6.1, 3), (9.9, 3), (10.1, 4), (99, 4)]  # bits, their level
TEXT = "the cat sat on the süß mat\n\tand the dog ran"
TASK = """
template = "the {animal} sat on the"
answer = "thing"
choices = ["mat", "tree"]
questions = [{ animal = "cat", thing = "mat" }, { animal = "dog", thing = "tree" }]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama with a tokenizer, in a folder."""
    tokenizer = train_bpe("the cat sat on the mat and the dog ran under a tree. " * 9, 300)
    config = llama.Config(tokenizer.vocab_size, 8, 1, 2, 1, 4, 12, 24)
    path = tmp_path_factory.mktemp("models") / "llama"
    checkpoints.save(path, Model.initialise("llama", config, seed=0, backend="numpy", tokenizer=tokenizer))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return checkpoints.load(folder, "numpy")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A small BERT with a vocabulary, in a folder."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict(enumerate(["the", "cat", "sat", "on", "mat", "##s", "dog"], len(special)))
    added = [AddedToken(id, content, special=True) for id, content in enumerate(special)]
    tokenizer = Tokenizer(WordPiece(pieces, 1), added, template=Template((2,), (3,)))
    config = bert.Config(tokenizer.vocab_size, 8, 1, 2, 12, 12)
    params = {name: np.asarray(x) for name, x in bert.initialise(config, 0).items()}
    path = tmp_path_factory.mktemp("models") / "bert"
    checkpoints.save(path, Model(bert, config, params, tokenizer))
    return path


@pytest.fixture
def standard_input(monkeypatch):
    """A function that makes a text what standard input holds."""

    def holds(text):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return holds


# -- score --------------------------------------------------------------------------------------------------------------


def test_a_line_for_each_token_tells_its_log_probability(refllm, folder, model):
    ids = model.tokenizer.encode(TEXT)
    expected = token_log_probabilities(model, [ids[:20]])[0]
    rows = [line.split("\t") for line in refllm("score", folder, model.tokenizer.decode(ids[:20])).out.splitlines()]
    assert [int(row[0]) for row in rows] == ids[:20]
    assert rows[0][1] == ""
    assert [row[1] for row in rows[1:]] == [f"{nats:.6f}" for nats in expected]
    assert [row[2] for row in rows] == [visible_line(piece) for piece in model.tokenizer.tokens(ids[:20])]


def test_json_tells_all_tokens_of_a_long_text_and_its_perplexity(refllm, folder, model):
    long = TEXT * 5
    result = json.loads(refllm("score", folder, long, "--json", "--stride", 8, "--alternatives", 2).out)
    expected = perplexity(model, long, stride=8)
    ids = model.tokenizer.encode(long)
    assert [token["id"] for token in result["tokens"]] == ids
    assert "".join(token["text"] for token in result["tokens"]).startswith("the cat")
    assert result["tokens"][0]["log_probability"] is None
    nats = -math.fsum(token["log_probability"] for token in result["tokens"][1:])
    assert nats == pytest.approx(expected.nats, rel=1e-12)
    assert (result["perplexity"], result["bits_per_byte"]) == pytest.approx((expected.perplexity, expected.bits_per_byte))
    for token in result["tokens"][1:]:
        first, second = token["alternatives"]
        assert first["log_probability"] >= max(second["log_probability"], token["log_probability"])


def test_a_text_comes_from_a_file_or_standard_input_too(refllm, folder, tmp_path, standard_input):
    (tmp_path / "text.txt").write_text(TEXT[:20], encoding="utf-8")
    given = refllm("score", folder, TEXT[:20]).out
    assert given
    assert refllm("score", folder, tmp_path / "text.txt").out == given
    for arguments in ([], ["-"]):
        standard_input(TEXT[:20])
        assert refllm("score", folder, *arguments).out == given


def test_a_tokenizer_may_be_named_where_the_model_brings_none(refllm, folder, model, tmp_path):
    checkpoints.save(tmp_path / "bare", Model(model.architecture, model.config, model.params))
    refllm("score", tmp_path / "bare", "the cat").refused("brings no tokenizer; name one with --tokenizer")
    given = refllm("score", tmp_path / "bare", "the cat", "--tokenizer", folder)
    assert given.out == refllm("score", folder, "the cat").out


def test_bos_scores_the_first_token_too(refllm, folder, model):
    ids = model.tokenizer.encode("the cat")
    rows = refllm("score", folder, "the cat", "--bos").out.splitlines()
    expected = token_log_probabilities(model, [[model.tokenizer.eos, *ids]])[0]
    assert [row.split("\t")[1] for row in rows] == [f"{nats:.6f}" for nats in expected]


def test_a_continuation_is_scored_after_its_text(refllm, folder, model):
    found = json.loads(refllm("score", folder, "the cat ", "--continuation", "sat on", "--json").out)
    expected = continuation_log_likelihood(model, "the cat ", "sat on")
    assert found["log_likelihood"] == pytest.approx(expected.total)
    assert found["nats_per_byte"] == pytest.approx(-expected.per_byte)
    assert "".join(token["text"] for token in found["tokens"]) == " sat on"
    assert found["greedy"] is expected.greedy
    refllm("score", folder, "a", "-c", "b", "-k", 2).refused("--continuation is scored whole")


def test_a_masked_model_scores_each_token_given_all_others(refllm, masked):
    found = json.loads(refllm("score", masked, "the cats sat", "--json").out)
    expected = pseudo_log_likelihood(checkpoints.load(masked, "numpy"), "the cats sat")
    assert found["pseudo_log_likelihood"] == pytest.approx(expected.total)
    assert [token["text"] for token in found["tokens"]] == ["the", " cat", "s", " sat"]
    assert [token["log_probability"] for token in found["tokens"]] == pytest.approx(expected.log_probabilities.tolist())


def terminal(colours):
    """A console that writes what a terminal would show."""
    return Console(
        file=io.StringIO(), force_terminal=True, color_system=colours, width=100, highlight=False, legacy_windows=False
    )


def test_a_terminal_shows_the_text_in_the_colours_of_its_surprise(folder, model):
    tokens, summary = score.of_text(model, "the cat sat", 0, None, None, None)
    console = terminal("truecolor")
    score.show_coloured(tokens, summary, console)
    shown = console.file.getvalue()
    for token in tokens[1:]:
        red, green, blue = (int(score.colour(token.nats, console)[-6:][i : i + 2], 16) for i in (0, 2, 4))
        assert f"48;2;{red};{green};{blue}m{visible_line(token.text)}" in shown
    assert "perplexity" in shown


@pytest.mark.parametrize(
    ("n_bits", "level"), [(0, 0), (0.99, 0), (1.01, 1), (2.9, 1), (3.1, 2), (6.1, 3), (9.9, 3), (10.1, 4), (99, 4)]
)
def test_surprise_has_five_levels_with_colours_for_every_terminal(n_bits, level):
    nats = -n_bits * math.log(2)
    assert score.bits(nats) == pytest.approx(n_bits)
    assert score.colour(nats, terminal("truecolor")) == f"black on {score.PASTELS[level]}"
    assert score.colour(nats, terminal("standard")) == f"black on {score.SIXTEEN[level]}"


def test_a_table_shows_the_likeliest_tokens_in_place_of_each(model):
    tokens, summary = score.of_text(model, "the cat sat", 2, None, None, None)
    console = terminal(None)
    score.show_table(tokens, summary, console)
    rows = console.file.getvalue().splitlines()[1:]
    for token, row in zip(tokens[1:], rows[1:], strict=False):
        assert f"{score.bits(token.nats):.2f}" in row
        for _, piece, nats in token.alternatives:
            assert f"{visible_line(piece)} {100 * math.exp(nats):.3g} %" in row


# -- evaluate -----------------------------------------------------------------------------------------------------------


def test_texts_are_evaluated_alone_and_together(refllm, folder, model, tmp_path, standard_input):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    texts = [TEXT * 4, "the dog sat under a tree"]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    options = ["--context", 12, "--stride", 5, "--batch", 3]
    expected = [perplexity(model, text, context=12, stride=5) for text in texts]
    lines = [json.loads(line) for line in refllm("evaluate", folder, *paths, *options, "--json").out.splitlines()]
    for path, line, found in zip(paths, lines, expected, strict=True):
        assert line["file"] == str(path)
        assert (line["tokens"], line["bytes"], line["words"]) == (found.n_tokens, found.n_bytes, found.n_words)
        for name in ("nats", "nats_per_token", "perplexity", "bits_per_byte", "bits_per_word"):
            assert line[name] == pytest.approx(getattr(found, name), rel=1e-6)
    shown = refllm("evaluate", folder, *paths, *options).out.splitlines()
    both = expected[0] + expected[1]
    assert f"{both.nats_per_token:.4f}" in shown[-1]
    assert shown[-1].split()[0] == "all"
    standard_input(texts[1])
    assert f"{expected[1].bits_per_byte:.4f}" in refllm("evaluate", folder, *options).out


def test_a_task_is_evaluated_with_its_interval_and_its_answers(refllm, folder, model, tmp_path):
    (tmp_path / "animals.toml").write_text(TASK, encoding="utf-8")
    expected = run_task(model, read_task(tmp_path / "animals.toml"))
    found = json.loads(refllm("evaluate", folder, tmp_path / "animals.toml", "--json", "--answers").out)
    assert (found["task"], found["n"], found["value"], found["low"]) == ("animals", 2, expected.share.value, expected.share.low)
    assert found["by_score"] == {name: share.value for name, share in expected.by_score.items()}
    assert [answer["answer"] for answer in found["answers"]] == [answer.answer for answer in expected.answers]
    shown = refllm("evaluate", folder, tmp_path / "animals.toml", "--answers").out
    assert f"{100 * expected.share.value:.1f} %" in shown
    assert "calibrated" in shown
    for i, answer in enumerate(expected.answers, 1):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  {i}. {answer.answer}"))
        assert ("right: " + " or ".join(answer.right) in line) == (answer.score == 0)
    assert {answer.score for answer in expected.answers} == {0, 1}


# -- fill ---------------------------------------------------------------------------------------------------------------


def test_masks_are_filled_with_the_likeliest_tokens(refllm, masked):
    expected = fill(checkpoints.load(masked, "numpy"), "the [MASK] sat on [MASK]", 3)
    rows = [line.split("\t") for line in refllm("fill", masked, "the [MASK] sat on [MASK]", "--top", 3).out.splitlines()]
    assert [(int(row[0]), int(row[1])) for row in rows] == [(i, t) for i, f in enumerate(expected, 1) for t in f.tokens]
    assert [row[2] for row in rows] == [f"{nats:.6f}" for f in expected for nats in f.log_probabilities]
    found = json.loads(refllm("fill", masked, "the [MASK] sat on [MASK]", "--top", 3, "--json").out)
    assert [[guess["id"] for guess in mask] for mask in found["masks"]] == [list(f.tokens) for f in expected]


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_refused_in_a_sentence(refllm, folder, masked, tmp_path):
    (tmp_path / "bad.toml").write_text("answer = 3", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    refllm("score", folder, "the").refused("the text has 1 tokens; the first only begins it")
    refllm("score", tmp_path / "nothing", "the").refused("nothing")
    refllm("score", folder, TEXT, "--context", 99).refused("context=99 is longer than the model's")
    refllm("evaluate", folder, tmp_path / "missing.txt").refused("missing.txt: no such file")
    refllm("evaluate", folder, tmp_path / "bad.txt").refused("is not UTF-8")
    refllm("evaluate", tmp_path / "nothing", tmp_path / "bad.toml").refused("bad.toml: answer is a int; it must be str.")
    refllm("evaluate", masked, folder / "config.json").refused("bert sees what follows")
    refllm("fill", masked, "the cat").refused("the text holds no [MASK]")
    refllm("fill", folder, "the [MASK]").refused("llama predicts the next token and fills no masks")
