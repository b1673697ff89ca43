"""The quickstart from its first line to its last, with very few steps."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from refllm.array_api import is_installed
from refllm.cli.reference_text import SHORT, python_reference

PARTS = (
    "a small Llama learns",
    "Kneser-Ney trigram",
    "nats/token",
    "bits/byte",
    "tokens/s",
    "What it writes",
    "prefill",
    "decode",
)
FOLDER = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "run.toml",
    "metrics.jsonl",
    "training_state.safetensors",
    "loss.png",
}


@pytest.fixture(scope="module")
def excerpt(tmp_path_factory):
    """The first pages of the reference: enough for a tokenizer of full size, little to evaluate."""
    path = tmp_path_factory.mktemp("excerpt") / "excerpt.txt"
    path.write_text(python_reference()[:40_000], encoding="utf-8")
    return path


def test_the_quickstart_learns_pythons_reference_and_writes(refllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = refllm("quickstart", "--steps", "2")
    assert result.status == 0, result.err
    folder = tmp_path / "runs" / "quickstart"
    assert {path.name for path in folder.iterdir()} >= FOLDER
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 1024
    for words in (*PARTS, "the Python language reference", "refllm generate runs/quickstart", "refllm resume runs/quickstart"):
        assert words in result.out
    assert result.err == ""


def test_it_is_the_same_run_on_every_backend(refllm, excerpt, tmp_path, monkeypatch):
    """The same data in the same order and the same first weights: so the same losses, up to rounding."""
    losses = {}
    for name in [n for n in ("numpy", "mlx") if is_installed(n)]:
        monkeypatch.setenv("REFLLM_BACKEND", name)
        prompt = excerpt.read_text()[:250]  # long, so that little is left to write
        result = refllm("quickstart", "--data", excerpt, "--out", tmp_path / name, "--steps", "1", "--prompt", prompt)
        assert result.status == 0, result.err
        assert f"{name} " in result.out
        assert all(words in result.out for words in PARTS)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines] + [lines[-1]["held_out_loss"]]
        assert (tmp_path / name / "tokenizer.json").read_bytes() == (tmp_path / "numpy" / "tokenizer.json").read_bytes()
        shapes = {n: t.shape for n, t in load_file(tmp_path / name / "model.safetensors").items()}
        assert shapes == {n: t.shape for n, t in load_file(tmp_path / "numpy" / "model.safetensors").items()}
    for name in losses:
        np.testing.assert_allclose(losses[name], losses["numpy"], rtol=1e-4)


def test_another_quickstart_leaves_the_first_alone(refllm, excerpt, tmp_path, monkeypatch):
    from refllm.cli.settings import free_folder

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    assert str(free_folder((tmp_path / "runs" / "quickstart").relative_to(tmp_path))) == "runs/quickstart-2"
    refused = refllm("quickstart", "--data", excerpt, "--steps", "-1")
    assert refused.status == 2
    assert "training.steps" in refused.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quickstart"]


def test_a_python_without_its_reference_says_how_to_give_another_text(refllm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    result = refllm("quickstart", "--out", tmp_path / "run")
    assert result.status == 2
    assert "--data FILE" in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_quickstart_that_fails_leaves_nothing(refllm, tmp_path):
    assert refllm("quickstart", "--out", tmp_path / "run", "--backend", "tpu").status == 2
    assert not (tmp_path / "run").exists()


def test_the_reference_is_prose_with_no_paragraph_twice():
    text = python_reference()
    assert 300_000 < len(text.encode()) < 500_000
    paragraphs = [p for p in text.strip().split("\n\n") if len(p) >= SHORT]
    assert len(set(paragraphs)) == len(paragraphs)
    assert text == python_reference()


def test_without_matplotlib_a_sentence_says_how_to_draw_the_curve(refllm, text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    small = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--context", "16", "--batch", "2", "--vocab-size", "280"]
    result = refllm("train", "--data", text, "--out", tmp_path / "run", *small, "--steps", "2")
    assert result.status == 0
    assert "pip install 'refllm[plots]'" in result.out
    assert not (tmp_path / "run" / "loss.png").exists()
