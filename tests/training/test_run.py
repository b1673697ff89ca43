"""The run folder is made, opened again, and refuses what does not belong to it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from refllm import checkpoints
from refllm.checkpoints.fingerprint import sha256
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer, train_bpe
from refllm.training import run as runs
from refllm.training.config import from_tables, read
from refllm.training.loop import train
from refllm.training.run import begin, first_or_last_state, reopen
from refllm.training.step import loss_and_gradients


def state_of(run):
    return [run.backend.xp.to_numpy(x) for x in first_or_last_state(run)[0][:3]]


def test_a_run_folder_holds_the_run(tmp_path, configure):
    run = begin(tmp_path / "run", configure(), "numpy")
    list(train(run))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "best",
        "config.json",
        "data",
        "metrics.jsonl",
        "model.safetensors",
        "run.toml",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_state.safetensors",
    ]
    assert read(tmp_path / "run" / "run.toml") == run.config
    assert (run.config.training.backend, run.config.model["rope_theta"]) == ("numpy", 10_000.0)


def test_the_saved_model_is_the_trained_one(backend, tmp_path, configure):
    run = begin(tmp_path / "run", configure(), backend)
    list(train(run))
    trained = runs.model(run, first_or_last_state(run)[0])
    tokens = run.corpus.held_out[:12].astype(np.int32)[None, :]
    loaded = checkpoints.load(tmp_path / "run", backend)
    logits = [backend.xp.to_numpy(m.logits(backend.xp.from_numpy(tokens))) for m in (trained, loaded)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert loaded.tokenizer.encode("the quiet wren") == run.tokenizer.encode("the quiet wren")


def test_the_best_model_is_that_of_the_lowest_held_out_loss(tmp_path, configure):
    config = configure(steps=8, evaluate_every=1, learning_rate=3.0, schedule="constant", evaluation_windows=0)
    progress = list(train(begin(tmp_path / "run", config, "numpy")))
    lowest = min(progress, key=lambda p: p.held_out_loss)
    assert lowest.step < 8  # so high a rate does not end at its best
    assert [p.step for p in progress if p.best][-1] == lowest.step
    run = reopen(tmp_path / "run")
    assert first_or_last_state(run)[1] == (lowest.held_out_loss, lowest.step)
    best, held_out = checkpoints.load(tmp_path / "run" / "best", "numpy"), run.corpus.held_out
    n = (len(held_out) - 1) // 16 * 16
    tokens, targets = (held_out[i : n + i].astype(np.int32).reshape(-1, 16) for i in (0, 1))
    assert float(best.loss(tokens, targets)) == pytest.approx(lowest.held_out_loss, rel=1e-5)


def test_an_evaluation_measures_nats_per_token_and_bits_per_byte(tmp_path, configure):
    config = configure(steps=1, evaluation_windows=0)
    run = begin(tmp_path / "run", config, "numpy")
    (progress,) = train(run)
    state, _ = first_or_last_state(run)
    held_out = np.asarray(run.corpus.held_out)
    n = (len(held_out) - 1) // 16 * 16
    tokens, targets = held_out[:n].reshape(-1, 16), held_out[1 : n + 1].reshape(-1, 16)
    model, layout = run.learner.model, run.learner.layout
    loss, _ = loss_and_gradients(
        state.vector, tokens.astype(np.int32), targets.astype(np.int32), layout, model, run.learner.config
    )
    text = run.tokenizer.decode_bytes(held_out[1 : n + 1])
    assert progress.held_out_loss == pytest.approx(float(loss), rel=1e-5)
    assert progress.bits_per_byte == pytest.approx(float(loss) * n / np.log(2) / len(text), rel=1e-5)


def test_a_named_tokenizer_is_copied_into_the_run(tmp_path, configure):
    first = begin(tmp_path / "first", configure(), "numpy")
    config = configure()
    config = runs.configs.override(config, {"data.tokenizer": str(tmp_path / "first" / "tokenizer.json"), "data.vocab_size": 999})
    second = begin(tmp_path / "second", config, "numpy")
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (tmp_path / "first" / "tokenizer.json").read_bytes()
    assert second.corpus.train.tolist() == first.corpus.train.tolist()


def test_a_saved_tokenizer_does_not_change_when_the_model_is_saved(tmp_path, configure):
    run = begin(tmp_path / "run", configure(), "numpy")
    before = (tmp_path / "run" / "tokenizer.json").read_bytes()
    list(train(run))
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == before
    reopen(tmp_path / "run")


def test_the_text_is_not_needed_to_go_on(tmp_path, configure, text_file, monkeypatch):
    begin(tmp_path / "run", configure(), "numpy")
    text_file.unlink()
    assert len(list(train(reopen(tmp_path / "run")))) == 6


def test_a_run_begun_with_relative_paths_is_found_from_another_folder(tmp_path, configure, text_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin("run", runs.configs.override(configure(), {"data.path": "text.txt"}), "numpy")
    assert read("run/run.toml").data.path == str(text_file)


def test_what_begin_had_not_finished_when_it_was_killed_is_finished(tmp_path, configure):
    whole = begin(tmp_path / "run", configure(), "numpy")
    corpus = whole.corpus.train.tolist()
    shutil.rmtree(tmp_path / "run" / "data")
    assert reopen(tmp_path / "run").corpus.train.tolist() == corpus
    shutil.rmtree(tmp_path / "run" / "data")
    (tmp_path / "run" / "tokenizer.json").unlink()
    assert reopen(tmp_path / "run").corpus.train.tolist() == corpus


@pytest.mark.parametrize("existed", [False, True])
def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path, configure, text_file, existed):
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="training.context=9999 needs at least 10000"):
        begin(folder, configure(context=9999), "numpy")
    assert [p.name for p in folder.glob("*")] == (["notes.txt"] if existed else [])
    text_file.write_text("")
    with pytest.raises(ValueError, match=r"text.txt is empty"):
        begin(folder, configure(), "numpy")
    text_file.unlink()
    with pytest.raises(FileNotFoundError, match=r"text.txt does not exist"):
        begin(folder, configure(), "numpy")
    assert folder.exists() == existed


def test_a_run_never_takes_the_place_of_another_or_of_a_model(tmp_path, configure):
    begin(tmp_path / "run", configure(), "numpy")
    with pytest.raises(FileExistsError, match=r"run holds a run already; go on with it \(refllm resume .*run\), or choose"):
        begin(tmp_path / "run", configure(), "numpy")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"model holds model.safetensors already; choose another folder"):
        begin(tmp_path / "model", configure(), "numpy")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no run.toml in it"):
        reopen(tmp_path)


def test_the_backend_is_that_of_the_argument_then_the_environment_then_the_run(tmp_path, configure, monkeypatch):
    monkeypatch.delenv("REFLLM_BACKEND", raising=False)
    begin(tmp_path / "run", configure(), "strict")
    assert reopen(tmp_path / "run").backend.name == "strict"
    assert reopen(tmp_path / "run", "numpy").backend.name == "numpy"
    monkeypatch.setenv("REFLLM_BACKEND", "numpy")
    assert reopen(tmp_path / "run").backend.name == "numpy"
    assert reopen(tmp_path / "run", "strict").backend.name == "strict"


def test_a_dtype_that_the_backend_does_not_compute_in_is_refused(tmp_path, configure):
    with pytest.raises(ValueError, match=r"training.dtype='bfloat16' cannot be computed on numpy; it has float32, float64"):
        begin(tmp_path / "run", configure(dtype="bfloat16"), "numpy")


def test_a_damaged_or_foreign_state_is_refused(tmp_path, configure):
    list(train(begin(tmp_path / "run", configure(), "numpy")))
    toml, state = tmp_path / "run" / "run.toml", tmp_path / "run" / "training_state.safetensors"
    text, whole = toml.read_text(), state.read_bytes()
    toml.write_text(text.replace("d_ff = 32", "d_ff = 48"))
    with pytest.raises(ValueError, match=r"training_state.safetensors holds other parameters than \[model\] in run.toml"):
        list(train(reopen(tmp_path / "run")))
    toml.write_text(text.replace('dtype = "float32"', 'dtype = "float64"'))
    with pytest.raises(ValueError, match=r"holds float32, but training.dtype in run.toml needs float64"):
        list(train(reopen(tmp_path / "run")))
    toml.write_text(text)
    for damaged in (whole[:-5], whole[:100], b"", whole.replace(b'"step"', b'"stop"', 1)):
        state.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"training_state.safetensors is not a whole training state"):
            list(train(reopen(tmp_path / "run")))


def test_a_run_computes_in_float64_and_keeps_it(tmp_path, configure):
    config = configure(dtype="float64", steps=4)
    list(train(begin(tmp_path / "run", config, "numpy")))
    assert all(x.dtype == np.float64 for x in state_of(reopen(tmp_path / "run")))


def test_the_tokenizer_learns_from_the_training_part_alone(tmp_path, configure, text_file):
    text_file.write_text("aaaa bbbb\n" * 90 + "zzzz yyyy\n" * 10)
    tokenizer = begin(tmp_path / "run", configure(), "numpy").tokenizer
    pieces = [tokenizer.bytes_of(i) for i in range(tokenizer.vocab_size)]
    assert b"aaaa" in pieces
    assert not any(b"zz" in piece for piece in pieces)
    assert Tokenizer.load(tmp_path / "run").encode("aaaa") == tokenizer.encode("aaaa")


def test_metrics_tell_every_step_once(tmp_path, configure):
    progress = list(train(begin(tmp_path / "run", configure(steps=7), "numpy")))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [p.step for p in progress] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [3, 6, 7]
    assert [line["loss"] for line in lines] == [p.loss for p in progress]
    assert all(line["tokens_per_second"] > 0 and line["seconds_left"] >= 0 for line in lines)


# Runs that begin at another model


@pytest.fixture
def source(tmp_path, configure):
    """A model that a run has made, with its tokenizer."""
    list(train(begin(tmp_path / "source", configure(), "numpy")))
    return tmp_path / "source"


@pytest.fixture
def going_on(source, configure):
    """Makes a configuration that goes on from it."""

    def make(source=source, tokenizer="", **training):
        settings = {"context": 16, "batch": 4, "steps": 6, "learning_rate": 1e-3, "evaluation_windows": 4}
        settings |= {"evaluate_every": 3, "checkpoint_every": 2} | training
        data = {"path": configure().data.path, "tokenizer": str(tokenizer)}
        return from_tables({"model": {"from": str(source)}, "data": data, "training": settings})

    return make


def test_a_run_from_a_model_begins_with_its_weights_and_its_tokenizer(backend, tmp_path, source, going_on):
    run = begin(tmp_path / "run", going_on(learning_rate=0.0), backend)
    loaded = checkpoints.load(source, "numpy")
    assert run.learner.config == loaded.config
    state, _ = first_or_last_state(run)
    for name, x in runs.model(run, state).params.items():
        np.testing.assert_array_equal(backend.xp.to_numpy(x), loaded.params[name])
    assert not any(np.any(backend.xp.to_numpy(moment)) for moment in (state.mean, state.square))
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_run_toml_says_where_a_run_begins_and_no_sizes(tmp_path, source, going_on):
    run = begin(tmp_path / "run", going_on(), "numpy")
    assert dict(run.config.model) == {"architecture": "llama", "from": str(source), "sha256": sha256(source)}
    assert read(tmp_path / "run" / "run.toml") == run.config
    with pytest.raises(
        ValueError, match="model.d_model cannot be set for a model that is trained already: its checkpoint decides"
    ):
        runs.configs.override(going_on(), {"model.d_model": 32})
    with pytest.raises(ValueError, match="model.d_model cannot be set"):
        from_tables({"model": {"from": "m", "d_model": 8}, "data": {"path": "t"}, "training": {}})


@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_a_run_from_a_model_needs_it_no_more_and_goes_on_bit_for_bit(stop, tmp_path, source, going_on):
    config = going_on(dropout=0.1, accumulation=2)
    list(train(begin(tmp_path / "whole", config, "numpy")))
    begin(tmp_path / "stopped", config, "numpy")
    shutil.rmtree(source)
    steps = train(reopen(tmp_path / "stopped"))
    for _ in zip(range(stop), steps, strict=False):
        pass
    steps.close()
    list(train(reopen(tmp_path / "stopped")))
    for one, other in zip(state_of(reopen(tmp_path / "whole")), state_of(reopen(tmp_path / "stopped")), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("model.safetensors", "best/model.safetensors", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_a_run_stopped_before_it_had_its_weights_fetches_them_or_says_what_is_missing(tmp_path, source, going_on):
    whole = state_of(begin(tmp_path / "run", going_on(), "numpy"))
    for name in ("training_state.safetensors", "model.safetensors", "config.json"):
        (tmp_path / "run" / name).unlink()
    for one, other in zip(state_of(reopen(tmp_path / "run")), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "run" / "training_state.safetensors").unlink()
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"source is not the checkpoint that run.toml speaks of: its sha256 is"):
        reopen(tmp_path / "run")
    shutil.rmtree(source)
    with pytest.raises(
        FileNotFoundError, match=r"run begins at .*source, which is gone; put it back, or write where it is into run"
    ):
        reopen(tmp_path / "run")


def test_a_run_from_a_model_that_will_not_do_is_refused_and_leaves_nothing(tmp_path, source, going_on):
    def refused(message, error=ValueError, **changes):
        with pytest.raises(error, match=message):
            begin(tmp_path / "run", going_on(**changes), "numpy")
        assert not (tmp_path / "run").exists()

    refused(r"none does not exist; training goes on from a model's folder or file", FileNotFoundError, source=tmp_path / "none")
    refused(r"training.context=17 is too long: .*source has max_positions=16", context=17)
    text = "".join(chr(0x4E00 + i) * 4 + "\n" for i in range(400))
    train_bpe(text, 900).save(tmp_path / "large.json")
    refused(r"the tokenizer has 900 tokens, but .*source knows \d+; give its own", tokenizer=tmp_path / "large.json")
    (source / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    refused(r"source has no tokenizer; give the one it was trained with, --tokenizer or data.tokenizer")
    assert begin(tmp_path / "run", going_on(tokenizer=tmp_path / "tokenizer.json"), "numpy").tokenizer.vocab_size == 300


def test_a_folder_that_was_there_keeps_what_was_in_it_when_a_run_from_a_model_fails(tmp_path, going_on, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")

    def full(*arguments):
        raise OSError("no room")

    monkeypatch.setattr(runs.state_file, "save", full)
    with pytest.raises(OSError, match="no room"):
        begin(tmp_path / "run", going_on(), "numpy")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_weights_in_half_precision_are_trained_in_single(tmp_path, source, going_on):
    model = checkpoints.load(source, "numpy")
    checkpoints.save(tmp_path / "half", model, "bfloat16")
    run = begin(tmp_path / "run", going_on(source=tmp_path / "half", learning_rate=0.0), "numpy")
    half = checkpoints.load(tmp_path / "half", "numpy", "float32")
    state, _ = first_or_last_state(run)
    assert (state.vector.dtype, run.weights_dtype) == (np.float32, "float32")
    for name, x in runs.model(run, state).params.items():
        np.testing.assert_array_equal(x, half.params[name])
        assert np.all(np.abs(x - model.params[name]) <= 2.0**-8 * np.abs(model.params[name]))


@pytest.mark.parametrize("adapters", [{}, {"lora": {"rank": 2, "targets": ["all-linear"]}}], ids=["all", "adapters"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_trained_on(name, adapters, tmp_path, text_file):
    module = architecture(name)
    tokenizer = train_bpe(text_file.read_text(), 300, ("<|endoftext|>", "<|mask|>"))
    sizes = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 12, "max_positions": 16}
    more = {"n_kv_heads": 1, "d_head": 4, "n_experts": 2, "top_k": 1, "query_pre_attn_scalar": 4}
    config = module.Config(**sizes | {f.name: more[f.name] for f in dataclasses.fields(module.Config) if f.name in more})
    checkpoints.save(tmp_path / "source", Model.initialise(name, config, 0, "numpy", tokenizer))
    training = {"context": 16, "batch": 4, "steps": 30, "learning_rate": 3e-2, "evaluation_windows": 1, "schedule": "constant"}
    tables = {"model": {"from": str(tmp_path / "source")}, "data": {"path": str(text_file)}, "training": training}
    progress = list(train(begin(tmp_path / "run", from_tables(tables | adapters), "numpy")))
    losses = [p.loss for p in progress]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - (0.02 if adapters else 0.5)  # frozen tables of 0.02 allow no more
    assert list(train(reopen(tmp_path / "run"))) == []
    assert checkpoints.load(tmp_path / "run", "numpy").config == checkpoints.load(tmp_path / "source", "numpy").config


def test_stories_learn_another_text(tmp_path, data):
    (tmp_path / "text.txt").write_text((data / "tinyshakespeare.txt").read_text()[:20_000])
    tables = {
        "model": {"from": str(data / "stories260K.bin")},
        "data": {"path": str(tmp_path / "text.txt"), "tokenizer": str(data / "tok512.bin")},
        "training": {"context": 64, "batch": 4, "steps": 10, "learning_rate": 1e-3, "evaluation_windows": 1},
    }
    run = begin(tmp_path / "run", from_tables(tables), "numpy")
    tokens, targets = (run.corpus.held_out[i : 512 + i].astype(np.int32).reshape(8, 64) for i in (0, 1))
    before = float(checkpoints.load(tmp_path / "run", "numpy").loss(tokens, targets))
    assert before == pytest.approx(float(checkpoints.load(data / "stories260K.bin", "numpy").loss(tokens, targets)), rel=1e-6)
    list(train(run))
    assert float(checkpoints.load(tmp_path / "run", "numpy").loss(tokens, targets)) < before - 0.2
