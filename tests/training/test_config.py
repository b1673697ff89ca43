"""Settings are read, written, overridden and refused by name."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.training.config import from_tables, model_config, override, read, to_tables, write

MODEL = {"architecture": "llama", "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_head": 8, "d_ff": 32}
TABLES = {
    "model": MODEL,
    "data": {"path": "text.txt"},
    "training": {"context": 16, "batch": 4, "steps": 6, "learning_rate": 1e-3},
}


def changed(table, **settings):
    return TABLES | {table: TABLES[table] | settings}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
rates = st.floats(0, 1e30, allow_nan=False)


@given(path=texts, rate=rates, eps=st.floats(1e-300, 0.5), seed=st.integers(0, 2**64 - 1), decay=st.none() | st.integers(1, 9))
def test_reading_what_was_written_gives_the_same_configuration(tmp_path_factory, path, rate, eps, seed, decay):
    tables = changed("training", learning_rate=rate, eps=eps, seed=seed) | {"data": {"path": path, "tokenizer": path[::-1]}}
    config = from_tables(tables)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, decay_steps=decay))
    file = tmp_path_factory.mktemp("config") / "run.toml"
    write(config, file)
    assert read(file) == config


def test_the_file_holds_every_setting_that_has_a_value(tmp_path):
    write(from_tables(TABLES), tmp_path / "run.toml")
    text = (tmp_path / "run.toml").read_text()
    for name in ("rope_theta", "norm_eps", "beta2", "schedule", "seed", "held_out"):
        assert f"\n{name} = " in text


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            changed("training", learning_rat=1.0),
            r"'learning_rat' is not a setting of \[training\]; did you mean 'learning_rate'\?",
        ),
        (changed("model", dmodel=1), r"'dmodel' is not a setting of \[model\]; did you mean 'd_model'\?"),
        (changed("data", file="x"), r"'file' is not a setting of \[data\]"),
        (TABLES | {"trainer": {}}, r"'trainer' is not a table; did you mean 'training'\?"),
        (changed("model", architecture="rnn"), r"model.architecture='rnn' is not an architecture; choose one of .*gpt2, llama"),
        ({"data": TABLES["data"]}, r"model.architecture='' is not an architecture"),
        (TABLES | {"data": {}}, r"data.path must be set in \[data\]"),
        (TABLES | {"training": {"context": 4, "steps": 2}}, r"training.batch, training.learning_rate must be set"),
        (changed("training", steps="100"), r"training.steps='100' is a str; it must be int"),
        (changed("training", steps=1.5), r"training.steps=1.5 is a float; it must be int"),
        (changed("training", steps=True), r"training.steps=True is a bool; it must be int"),
        (changed("training", steps=0), r"training.steps=0 will not do; it must be at least 1"),
        (changed("training", learning_rate=float("nan")), r"training.learning_rate=nan will not do"),
        (changed("training", learning_rate=float("inf")), r"training.learning_rate=inf will not do"),
        (changed("training", dropout=1.0), r"training.dropout=1.0 will not do; it must be at least 0 and below 1"),
        (changed("training", seed=-1), r"training.seed=-1 will not do"),
        (changed("training", eps=0.0), r"training.eps=0.0 will not do"),
        (changed("training", warmup_steps=-1), r"training.warmup_steps=-1 will not do"),
        (changed("training", decay_steps=0), r"training.decay_steps=0 will not do"),
        (changed("training", final_fraction=2.0), r"training.final_fraction=2.0 will not do"),
        (changed("training", schedule="step"), r"training.schedule='step' will not do; it must be one of cosine, constant, wsd"),
        (changed("training", dtype="float16"), r"training.dtype='float16' will not do; it must be one of float32, float64, bf"),
        (changed("data", held_out=0.0), r"data.held_out=0.0 will not do; it must be a share between 0 and 1"),
        (changed("data", vocab_size=12), r"data.vocab_size=12 will not do"),
        (changed("model", window=2, full_layers=[0, "1"]), r"model.full_layers=\[0, '1'\] is not a list of whole numbers"),
        (changed("model", rope_scaling={"factor": 8.0}), r"model.rope_scaling=.* is a dict; it must be set in code"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tables, message):
    with pytest.raises(ValueError, match=message):
        from_tables(tables)


def test_a_whole_number_stands_for_a_float():
    rate = from_tables(changed("training", learning_rate=1)).training.learning_rate
    assert (rate, type(rate)) == (1.0, float)


def test_a_list_of_whole_numbers_is_set_by_file_and_by_flag(tmp_path):
    config = from_tables(changed("model", window=2, full_layers=[0, 2]))
    assert config.model["full_layers"] == (0, 2)
    write(config, tmp_path / "run.toml")
    assert read(tmp_path / "run.toml") == config
    assert override(config, {"model.full_layers": "1,2"}).model["full_layers"] == (1, 2)


def test_flags_override_the_file():
    flags = {"training.learning_rate": "3e-4", "training.steps": 9, "model.n_layers": "3", "model.window": "8"}
    flags |= {"training.checkpointing": "true", "training.schedule": "wsd", "model.tied": True, "training.decay_steps": "2"}
    config = override(from_tables(TABLES), flags)
    tables = to_tables(config)
    assert tables["training"] == to_tables(from_tables(TABLES))["training"] | {
        "learning_rate": 3e-4,
        "steps": 9,
        "checkpointing": True,
        "schedule": "wsd",
        "decay_steps": 2,
    }
    assert (config.model["n_layers"], config.model["window"], config.model["tied"]) == (3, 8, True)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("training.steps", "many", r"training.steps='many' cannot be read as int"),
        ("training.checkpointing", "perhaps", r"training.checkpointing='perhaps' cannot be read as bool"),
        ("model.full_layers", "one", r"model.full_layers='one' cannot be read as whole numbers between commas"),
        ("training.stepz", "1", r"'stepz' is not a setting of \[training\]; did you mean 'steps'"),
        ("train.steps", "1", r"'train' is not a table; did you mean 'training'"),
        ("training.steps", "0", r"training.steps=0 will not do"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(flag, value, message):
    with pytest.raises(ValueError, match=message):
        override(from_tables(TABLES), {flag: value})


def test_the_tokenizer_and_the_context_fill_the_model():
    config = model_config(from_tables(TABLES), 300)
    assert (config.vocab_size, config.max_positions, config.d_model) == (300, 16, 16)
    assert model_config(from_tables(changed("model", vocab_size=512, max_positions=64)), 300).vocab_size == 512


def test_a_model_too_small_for_its_data_is_refused():
    with pytest.raises(ValueError, match=r"model.vocab_size=299 is too small: the tokenizer has 300 tokens"):
        model_config(from_tables(changed("model", vocab_size=299)), 300)
    with pytest.raises(ValueError, match=r"model.max_positions=8 is too small: training.context=16"):
        model_config(from_tables(changed("model", max_positions=8)), 300)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.toml is not a file; a configuration is a TOML file"):
        read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[training\nsteps = 3")
    with pytest.raises(ValueError, match=r"bad.toml is not TOML"):
        read(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text("[modell]")
    with pytest.raises(ValueError, match=r"wrong.toml: 'modell' is not a table"):
        read(tmp_path / "wrong.toml")
