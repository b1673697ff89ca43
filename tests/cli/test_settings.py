"""Every setting has its flag, and a flag's value arrives."""

import dataclasses

import pytest

from refllm.cli.settings import DATA, LORA, MODEL, NO_FLAG, TRAINING, configured, flag_of, free_folder
from refllm.models import bert, gpt2, llama, mixtral
from refllm.training.config import DataConfig, LoraConfig, TrainingConfig, read, write


def names(config):
    return {f.name for f in dataclasses.fields(config) if f.init}


def test_every_setting_has_a_flag_and_every_flag_is_a_setting():
    assert {f"training.{name}" for name in names(TrainingConfig)} - NO_FLAG == {f"training.{name}" for name in TRAINING}
    assert {f"data.{name}" for name in names(DataConfig)} - NO_FLAG == {f"data.{name}" for name in DATA}
    assert names(LoraConfig) == set(LORA)
    sizes = names(llama.Config) | names(gpt2.Config) | names(bert.Config) | names(mixtral.Config) | {"architecture"}
    assert {f"model.{name}" for name in sizes} - NO_FLAG == {f"model.{name}" for name in MODEL}


def test_every_flag_is_in_the_help(refllm):
    told = refllm("train", "--help").out
    for table, names_of in (("model", MODEL), ("data", DATA), ("training", TRAINING), ("lora", LORA)):
        for name in names_of:
            assert f"{flag_of(table, name)} " in told


def test_settings_reach_the_run():
    config = configured("a.txt", {"training.steps": "7", "training.learning_rate": "1e-4", "model.tied": "false"})
    assert (config.data.path, config.training.steps, config.training.learning_rate) == ("a.txt", 7, 1e-4)
    assert config.model["tied"] is False


def test_what_depends_on_the_models_width_follows_it():
    model = configured("a.txt", {"model.d_model": "64", "model.n_heads": "8"}).model
    assert (model["d_head"], model["n_kv_heads"], model["d_ff"]) == (8, 8, 192)
    model = configured("a.txt", {"model.d_model": "64", "model.n_heads": "8", "model.n_kv_heads": "2", "model.d_ff": "99"}).model
    assert (model["d_head"], model["n_kv_heads"], model["d_ff"]) == (8, 2, 99)
    assert configured("a.txt", {"model.architecture": "gpt2", "model.d_model": "64", "model.n_heads": "4"}).model["d_ff"] == 256
    model = configured("a.txt", {"model.architecture": "mixtral", "model.d_model": "64", "model.n_heads": "8"}).model
    assert (model["d_head"], model["d_ff"], model["n_experts"], model["top_k"], model["balanced"]) == (8, 96, 8, 2, True)


def test_a_bert_begins_from_settings_of_its_own():
    model, training = (getattr(configured("a.txt", {"model.architecture": "bert"}), part) for part in ("model", "training"))
    assert (model["d_ff"], model["head"], training.learning_rate, training.weight_decay) == (768, True, 1e-3, 0.1)
    chosen = configured("a.txt", {"model.architecture": "bert", "training.learning_rate": "2e-3"})
    assert chosen.training.learning_rate == 2e-3


def test_a_short_run_warms_up_evaluates_and_saves_in_proportion():
    training = configured("a.txt", {"training.steps": "10"}).training
    assert (training.warmup_steps, training.evaluate_every, training.checkpoint_every) == (1, 5, 5)


def test_flags_change_single_settings_of_a_file(tmp_path):
    write(configured("a.txt", {"training.seed": "3", "training.batch": "5"}), tmp_path / "run.toml")
    config = configured("b.txt", {"training.batch": "6"}, tmp_path / "run.toml")
    assert (config.data.path, config.training.seed, config.training.batch) == ("b.txt", 3, 6)
    assert configured(None, {}, tmp_path / "run.toml") == read(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("training.steps", "many", "training.steps='many' cannot be read as int"),
        ("training.steps", "-5", "training.steps=-5 will not do"),
        ("training.schedule", "linear", "training.schedule='linear' will not do"),
        ("model.architecture", "rnn", "model.architecture='rnn' is not an architecture"),
        ("model.n_heads", "0", "n_heads"),
        ("data.held_out", "2", "data.held_out=2.0 will not do"),
    ],
)
def test_a_setting_that_will_not_do_is_refused_by_name(refllm, text, tmp_path, setting, value, says):
    flag = "--" + setting.partition(".")[2].replace("_", "-")
    result = refllm("train", "--data", text, "--out", tmp_path / "run", flag, value)
    assert result.status == 2
    assert says in result.err
    assert not (tmp_path / "run").exists()


def test_a_free_folder_is_never_one_that_exists(tmp_path):
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"
