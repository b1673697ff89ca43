"""`refllm train --from`: on from a model, all of it or adapters."""

import numpy as np
import pytest

import refllm as library
from refllm.cli.settings import ADAPTING, BEGINNING, GOING_ON, configured
from refllm.training.config import read

SHORT = ["--context", "16", "--batch", "2", "--steps", "4", "--backend", "numpy"]


def test_a_model_is_trained_on(refllm, text, finished_run, tmp_path):
    result = refllm("train", "--from", finished_run, "--data", text, "--out", tmp_path / "run", *SHORT)
    assert result.status == 0, result.err
    assert "its weights in float32" in " ".join(result.out.split())
    config = read(tmp_path / "run" / "run.toml")
    assert (config.source, config.lora) == (str(finished_run), None)
    assert library.load(tmp_path / "run").config == library.load(finished_run).config
    resumed = refllm("resume", tmp_path / "run")
    assert (resumed.status, "The run is complete" in resumed.out) == (0, True)


def test_adapters_are_trained_and_merged(refllm, text, finished_run, tmp_path):
    flags = ["--lora-rank", "2", "--lora-targets", "q,v", "--lora-alpha", "4", "--lora-rank-stabilised", "true"]
    result = refllm("train", "--from", finished_run, "--data", text, "--out", tmp_path / "run", *SHORT, *flags)
    assert result.status == 0, result.err
    assert "adapters of rank 2 on q, v: 128 parameters learn" in result.out
    assert "make a whole model of it  refllm merge" in result.out
    lora = read(tmp_path / "run" / "run.toml").lora
    assert (lora.rank, lora.targets, lora.alpha, lora.rank_stabilised) == (2, ("q", "v"), 4.0, True)
    assert refllm("generate", tmp_path / "run", "the cat", "--max-tokens", "2").status == 0
    merged = refllm("merge", tmp_path / "run", tmp_path / "merged")
    assert merged.status == 0, merged.err
    assert "the adapted model" in merged.out
    tokens = np.arange(12)[None, :]
    adapted, whole = (library.load(tmp_path / name, "numpy").logits(tokens) for name in ("run", "merged"))
    np.testing.assert_allclose(whole, adapted, rtol=1e-5, atol=1e-5)
    assert np.any(adapted != library.load(finished_run, "numpy").logits(tokens))


def test_going_on_takes_few_and_small_steps_and_adapters_larger_ones(tmp_path):
    training = configured(tmp_path, {}, None, tmp_path).training
    assert (training.steps, training.learning_rate, training.dropout) == (200, GOING_ON["learning_rate"], 0.0)
    assert training.context == BEGINNING["training"]["context"]
    adapting = configured(tmp_path, {"lora.rank": "4", "lora.targets": "q"}, None, tmp_path).training
    assert adapting.learning_rate == ADAPTING["learning_rate"] > training.learning_rate
    assert configured(tmp_path, {"training.learning_rate": "1e-6"}, None, tmp_path).training.learning_rate == 1e-6


def test_a_file_of_settings_begins_at_another_model_too(refllm, text, finished_run, tmp_path):
    chosen = configured(None, {}, finished_run / "run.toml", tmp_path / "model")
    assert dict(chosen.model) == {"from": str(tmp_path / "model")}
    assert chosen.training == read(finished_run / "run.toml").training


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--d-model", "32"], "model.d_model cannot be set for a model that is trained already: its checkpoint decides it."),
        (["--context", "17"], "training.context=17 is too long"),
        (["--lora-rank", "2"], "lora.targets must be set in [lora]"),
        (
            ["--lora-rank", "2", "--lora-targets", "z"],
            "lora.targets has 'z'; the matrices that this model can adapt are attention.q",
        ),
        (["--lora-rank", "two", "--lora-targets", "q"], "lora.rank='two' cannot be read as int"),
    ],
)
def test_what_will_not_do_is_refused_by_name(refllm, text, finished_run, tmp_path, flags, says):
    result = refllm("train", "--from", finished_run, "--data", text, "--out", tmp_path / "run", *SHORT, *flags)
    assert (result.status, says in result.err) == (2, True), result.err
    assert not (tmp_path / "run").exists()


def test_adapters_without_a_model_are_refused(refllm, text, tmp_path):
    result = refllm("train", "--data", text, "--out", tmp_path / "run", "--lora-rank", "2", "--lora-targets", "q")
    assert (result.status, "[lora] adapts a model that is trained already" in result.err) == (2, True)
