"""Low-rank adapters: their gradients, their beginning, what stays frozen, and runs that learn them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.array_api import load
from refllm.conformance.model_checks import MODELS
from refllm.conformance.specification import definitions, gradients
from refllm.conformance.training_checks import LOSS_BOUND
from refllm.models import ARCHITECTURES, architecture, llama
from refllm.models.model import Model
from refllm.training.config import LoraConfig, TrainingConfig, from_tables, override, read
from refllm.training.flat import pack, unpack
from refllm.training.loop import train
from refllm.training.lora import adapt, adapted_weight, adapted_weight_backward, adapter_shapes, chosen
from refllm.training.run import begin, first_or_last_state, model, reopen
from refllm.training.step import first_state, learner, loss_and_gradients, state_at, train_step

LLAMA = llama.Config(
    vocab_size=17, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_head=8, d_ff=24, max_positions=8, tied=True
)
BERT = {"vocab_size": 9, "d_model": 4, "n_layers": 2, "n_heads": 2, "max_positions": 16, "d_ff": 8}
CONFIGS = {"bert": st.builds(lambda: architecture("bert").Config(**BERT))} | MODELS
EVERY = LoraConfig(rank=3, targets=("all-linear",), alpha=2.0)
seeds = st.integers(0, 2**32 - 1)


def normal(shapes, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {
        name: ((1 if len(s) == 1 else 0) + rng.standard_normal(s) / np.sqrt(s[-2] if len(s) > 1 else 9)).astype(dtype)
        for name, s in shapes.items()
    }


def pupil(module, config, lora=EVERY, seed=0, **training):
    """A learner of adapters of a random model, on NumPy in float64, and what it adapts."""
    frozen = normal(module.parameter_shapes(config), seed)
    t = {"context": 8, "batch": 4, "steps": 20, "learning_rate": 1e-2, "schedule": "constant", "dtype": "float64"} | training
    return learner(adapt(module, config, frozen, lora), config, TrainingConfig(**t)), frozen


def drawn(step, config, shape=(4, 8)):
    """Tokens, and targets that are a rule of them."""
    tokens = np.random.default_rng(step).integers(0, config.vocab_size, size=shape, dtype=np.int32)
    return tokens, (tokens * 3 + 1) % config.vocab_size


def assert_close(found, expected, tolerance=1e-12):
    error, bound = np.abs(found - expected), tolerance * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert found.shape == expected.shape
    assert np.all(error <= bound), f"off by up to {np.max(error):.3g}, more than {bound:.3g}"


# The formula


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), seeds, st.sampled_from([0.25, 1.0, 3.0]))
def test_an_adapter_and_its_gradient_are_those_of_the_definition(D, F, r, seed, scale):
    rng = np.random.default_rng(seed)
    weight, a, b, dy = (rng.standard_normal(shape) for shape in ((D, F), (D, r), (r, F), (D, F)))

    def defined(*arguments):
        return np.array(definitions()["adapted_weight"](*(x.tolist() for x in arguments), scale))

    y, saved = adapted_weight(weight, a, b, scale)
    assert_close(y, defined(weight, a, b))
    for found, expected in zip(adapted_weight_backward(dy, saved), gradients(defined, (weight, a, b), dy, (1, 2)), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_dtype_that_comes_in_goes_out_and_sums_are_wide(dtype, backend):
    xp = backend.xp
    if dtype not in xp.dtypes():
        pytest.skip(f"{backend.name} does not compute in {dtype}")
    weight, a, b = (xp.ones(shape, dtype=getattr(xp, dtype)) for shape in ((2, 3), (2, 4096), (4096, 3)))
    y, saved = adapted_weight(weight, a, b, 0.5)  # a running sum of ones in half precision stops at 256 or 2048
    assert y.dtype == weight.dtype
    assert np.all(np.abs(xp.to_numpy(xp.astype(y, xp.float32)) - 2049) <= 2049 * float(xp.finfo(weight.dtype).eps))
    assert all(grad.dtype == a.dtype for grad in adapted_weight_backward(y, saved))


@pytest.mark.parametrize("stabilised", [False, True])
def test_the_scale_is_that_of_the_definition(stabilised):
    for rank, alpha in ((1, 1.0), (4, 8.0), (6, 3.0)):
        lora = LoraConfig(rank, ("q",), alpha, stabilised)
        assert lora.scale == pytest.approx(definitions()["adapter_scale"](rank, alpha, stabilised), rel=1e-15)
    assert LoraConfig(7, ("q",)).scale == 1.0


def test_every_architecture_is_among_those_adapted_here():
    assert set(ARCHITECTURES) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@settings(max_examples=8)
def test_gradients_of_adapters_are_the_slope_of_the_loss(name, data):
    config, seed = data.draw(CONFIGS[name]), data.draw(seeds)
    learning, _ = pupil(architecture(name), config, seed=seed)
    vector = pack(normal(learning.model.parameter_shapes(config), seed + 1), learning.layout)
    tokens, targets = drawn(seed, config, (2, 5))

    def loss_at(v):
        return loss_and_gradients(v, tokens, targets, learning.layout, learning.model, config)

    _, grads = loss_at(vector)
    assert grads.shape == vector.shape
    direction = np.random.default_rng(seed).standard_normal(vector.shape)
    direction /= np.sqrt(np.sum(direction * direction))
    slopes = []
    for h in (1e-4, 2e-4):
        slopes.append((float(loss_at(vector + h * direction)[0]) - float(loss_at(vector - h * direction)[0])) / (2 * h))
    slope = (4 * slopes[0] - slopes[1]) / 3  # Richardson: the error in h² gone
    assert float(np.sum(grads * direction)) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@settings(max_examples=5)
def test_gradients_of_adapters_are_those_of_the_whole_model_by_the_product_rule(name, data):
    config, seed, module = data.draw(CONFIGS[name]), data.draw(seeds), architecture(name)
    learning, frozen = pupil(module, config, seed=seed)
    params = normal(learning.model.parameter_shapes(config), seed + 1)
    tokens, targets = drawn(seed, config, (2, 5))
    _, grads = loss_and_gradients(pack(params, learning.layout), tokens, targets, learning.layout, learning.model, config)
    grads = unpack(grads, learning.layout)
    merged = {**frozen}
    for target in learning.model.names:
        merged[target] = frozen[target] + 2 / 3 * params[f"{target}.lora_a"] @ params[f"{target}.lora_b"]
    whole = Model(module, config, merged).gradients(tokens, targets)
    for target in learning.model.names:
        a, b = params[f"{target}.lora_a"], params[f"{target}.lora_b"]
        assert_close(grads[f"{target}.lora_a"], 2 / 3 * whole[target] @ np.swapaxes(b, -1, -2), 1e-11)
        assert_close(grads[f"{target}.lora_b"], 2 / 3 * np.swapaxes(a, -1, -2) @ whole[target], 1e-11)


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@settings(max_examples=5)
def test_a_merged_model_computes_what_the_adapter_and_its_model_do(name, data):
    config, seed, module = data.draw(CONFIGS[name]), data.draw(seeds), architecture(name)
    learning, frozen = pupil(module, config, seed=seed)
    params = normal(learning.model.parameter_shapes(config), seed + 1)
    merged = {**frozen}
    for target in learning.model.names:
        merged[target] = frozen[target] + 2 / 3 * params[f"{target}.lora_a"] @ params[f"{target}.lora_b"]
    tokens = drawn(seed, config, (2, 5))[0]
    found = learning.model.forward(params, tokens, config).logits
    assert_close(found, module.forward(merged, tokens, config).logits)


# The beginning


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.data())
@settings(max_examples=4)
def test_an_adapter_that_has_learned_nothing_changes_no_bit_of_the_logits(name, backend, data):
    config, seed, module = data.draw(CONFIGS[name]), data.draw(st.integers(0, 99)), architecture(name)
    xp = backend.xp
    values = normal(module.parameter_shapes(config), seed, np.float32)
    frozen = {n: xp.from_numpy(x) for n, x in values.items()}
    adapted = adapt(module, config, frozen, EVERY)
    params = {n: xp.from_numpy(x) for n, x in adapted.initialise(config, seed).items()}
    tokens = xp.from_numpy(drawn(seed, config, (2, 5))[0])
    logits = [xp.to_numpy(m.forward(p, tokens, config).logits) for m, p in ((module, frozen), (adapted, params))]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert any(np.any(xp.to_numpy(x) != 0) for x in params.values())


def test_an_adapter_begins_with_a_drawn_evenly_by_its_rows_and_b_zero():
    config = llama.Config(vocab_size=17, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, d_head=8, d_ff=256, max_positions=8)
    learning, _ = pupil(llama, config, LoraConfig(8, ("down", "up")))
    values = learning.model.initialise(config, 0)
    drawn_ones = {n: x for n, x in values.items() if n.endswith("_a")}
    for name, a in drawn_ones.items():
        bound = 1 / np.sqrt(256 if "down" in name else 64)
        assert 0.99 * bound < np.max(np.abs(a)) <= bound
        assert abs(np.mean(a)) < 0.1 * bound
        assert np.std(a) == pytest.approx(bound / np.sqrt(3), rel=0.1)
    assert len({x.tobytes() for x in drawn_ones.values()}) == 4
    assert not any(np.any(x) for n, x in values.items() if n.endswith("_b"))
    assert all(x.dtype == np.float32 for x in values.values())
    again, other = learning.model.initialise(config, 0), learning.model.initialise(config, 1)
    for name, a in drawn_ones.items():
        np.testing.assert_array_equal(a, again[name])
        assert np.any(a != other[name])


def first_steps(lora, a, rate):
    """What a step of gradient descent on adapters, B being zero, adds to each weight; and the whole model's gradients."""
    learning, frozen = pupil(llama, LLAMA, lora)
    tokens, targets = drawn(0, LLAMA)
    params = {n: a(shape) if n.endswith("_a") else np.zeros(shape) for n, shape in learning.model.parameter_shapes(LLAMA).items()}
    _, grads = loss_and_gradients(pack(params, learning.layout), tokens, targets, learning.layout, learning.model, LLAMA)
    after = {name: params[name] - rate * g for name, g in unpack(grads, learning.layout).items()}
    moved = {n: after[f"{n}.lora_a"] @ after[f"{n}.lora_b"] * lora.scale for n in learning.model.names}
    return moved, Model(llama, LLAMA, frozen).gradients(tokens, targets), params


def test_the_first_step_moves_a_weight_by_the_projected_step_of_full_training():
    rng = np.random.default_rng(0)
    lora = LoraConfig(rank=3, targets=("all-linear",), alpha=6.0)
    moved, whole, params = first_steps(lora, rng.standard_normal, rate=0.1)
    for name, change in moved.items():
        a = params[f"{name}.lora_a"]
        assert np.any(change != 0)
        assert_close(change, -0.1 * 2.0**2 * a @ a.T @ whole[name])


def test_adapters_of_full_rank_take_full_trainings_first_step():
    def orthogonal(shape):
        return np.linalg.qr(np.random.default_rng(1).standard_normal(shape))[0]

    lora = LoraConfig(rank=16, targets=("q", "k", "v", "gate", "up"))  # whose weights have 16 rows
    moved, whole, _ = first_steps(lora, orthogonal, rate=0.1)
    assert len(moved) == 10
    for name, change in moved.items():
        assert_close(change, -0.1 * whole[name])


# What learns and what does not


def test_what_is_frozen_never_changes_a_bit(backend):
    xp = backend.xp
    frozen = {n: xp.from_numpy(x) for n, x in normal(llama.parameter_shapes(LLAMA), 0, np.float32).items()}
    before = {n: np.array(xp.to_numpy(x)) for n, x in frozen.items()}
    training = TrainingConfig(context=8, batch=4, steps=20, learning_rate=1e-2, schedule="constant", dropout=0.1)
    learning = learner(adapt(llama, LLAMA, frozen, LoraConfig(2, ("q", "down"))), LLAMA, training)
    state = first_state(learning, backend)
    first = np.array(xp.to_numpy(state.vector))
    for step in range(5):
        state, _ = train_step(state, [tuple(map(xp.from_numpy, drawn(step, LLAMA)))], learning)
    assert np.any(xp.to_numpy(state.vector) != first)
    for name, x in frozen.items():
        np.testing.assert_array_equal(xp.to_numpy(x), before[name])


def test_only_adapters_have_moments():
    learning, _ = pupil(llama, LLAMA, LoraConfig(2, ("q", "v")))
    state = first_state(learning, load("numpy"))
    assert state.vector.size == state.mean.size == state.square.size == 2 * 2 * (16 + 16 + 16 + 8)
    assert learning.layout.n_decayed == learning.layout.size


def test_twenty_steps_of_adapters_follow_the_float64_oracle(backend):
    def losses(backend, dtype):
        xp, shapes = backend.xp, llama.parameter_shapes(LLAMA)
        frozen = {n: xp.from_numpy(x.astype(dtype)) for n, x in normal(shapes, 0, np.float32).items()}
        t = TrainingConfig(context=8, batch=4, steps=20, learning_rate=1e-2, schedule="constant", dtype=dtype, accumulation=2)
        learning = learner(adapt(llama, LLAMA, frozen, EVERY), LLAMA, t)
        state, found = first_state(learning, backend), []
        for step in range(20):
            batches = [tuple(map(xp.from_numpy, drawn(2 * step + i, LLAMA))) for i in range(2)]
            state, metrics = train_step(state, batches, learning)
            found.append(float(xp.to_numpy(metrics.loss)))
        return np.array(found)

    oracle = losses(load("numpy"), "float64")
    error = np.abs(losses(backend, "float32") - oracle) / oracle
    assert np.all(error <= LOSS_BOUND), error.max()  # as full training, whose bound tests/training/test_step.py derives
    assert oracle[-1] < 0.9 * oracle[0]


def test_adapters_stay_float32_while_frozen_weights_and_passes_are_bfloat16(backend):
    xp = backend.xp
    if "bfloat16" not in xp.dtypes():
        pytest.skip(f"{backend.name} does not compute in bfloat16")
    shapes = llama.parameter_shapes(LLAMA)
    frozen = {n: xp.from_numpy(x, xp.bfloat16) for n, x in normal(shapes, 0, np.float32).items()}
    training = TrainingConfig(context=8, batch=4, steps=40, learning_rate=1e-2, schedule="constant", dtype="bfloat16")
    learning = learner(adapt(llama, LLAMA, frozen, EVERY), LLAMA, training)
    state, losses = first_state(learning, backend), []
    for step in range(40):
        state, metrics = train_step(state, [tuple(map(xp.from_numpy, drawn(step, LLAMA)))], learning)
        losses.append(float(xp.to_numpy(metrics.loss)))
    assert all(x.dtype == xp.float32 for x in state[:3])
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("q",), ["layers.0.attention.q", "layers.1.attention.q"]),
        (("q_proj",), ["layers.0.attention.q", "layers.1.attention.q"]),
        (("v", "layers.0.attention.q"), ["layers.0.attention.q", "layers.0.attention.v", "layers.1.attention.v"]),
        (("model.layers.1.mlp.down_proj",), ["layers.1.ffn.down"]),
        (("lm_head",), ["lm_head"]),
        (
            ("all-linear",),
            [f"layers.{i}.{m}" for i in (0, 1) for m in (*(f"attention.{x}" for x in "qkvo"), "ffn.gate", "ffn.up", "ffn.down")],
        ),
    ],
)
def test_a_target_is_a_name_or_its_end(targets, expected):
    config = llama.Config(**{f: getattr(LLAMA, f) for f in LLAMA.__dataclass_fields__} | {"tied": False})
    assert list(chosen(targets, llama, config)) == expected


@pytest.mark.parametrize("target", ["embedding", "attention_norm", "norm", "p", "ttention.q", "lm_head", "layers.2.attention.q"])
def test_what_cannot_be_adapted_is_refused_by_name(target):
    with pytest.raises(
        ValueError, match=rf"lora.targets has '{target}'; the matrices .* adapt are attention.q, .*, or all-linear"
    ):
        chosen(("q", target), llama, LLAMA)


def test_adapters_of_experts_stand_in_one_array():
    shapes = adapter_shapes({"w": (4, 6, 5)}, ("w",), 2)
    assert shapes == {"w.lora_a": (4, 6, 2), "w.lora_b": (4, 2, 5)}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0, "targets": ["q"]}, "lora.rank=0 will not do"),
        ({"rank": 2, "targets": []}, r"lora.targets=\[\] will not do"),
        ({"rank": 2, "targets": ["q"], "alpha": 0.0}, "lora.alpha=0.0 will not do"),
        ({"rank": 2}, r"lora.targets must be set in \[lora\]"),
        ({"rank": 2, "targets": "q"}, "lora.targets='q' is not a list of names"),
        ({"rank": 2, "targets": ["q"], "dropout": 0.1}, r"'dropout' is not a setting of \[lora\]"),
    ],
)
def test_a_wrong_setting_of_adapters_is_refused_by_name(lora, message):
    training = {"context": 8, "batch": 4, "steps": 2, "learning_rate": 1e-3}
    with pytest.raises(ValueError, match=message):
        from_tables({"model": {"from": "m"}, "data": {"path": "t"}, "training": training, "lora": lora})


# Runs


@pytest.fixture
def base(tmp_path, configure):
    """A model that a run of six steps has made, with its tokenizer."""
    list(train(begin(tmp_path / "base", configure(), "numpy")))
    return tmp_path / "base"


@pytest.fixture
def adapting(base, configure):
    """Makes a configuration that adapts it."""

    def make(**training):
        config = configure(**training)
        tables = {
            "model": {"from": str(base)},
            "data": {"path": config.data.path},
            "lora": {"rank": 2, "targets": ["q", "ffn.up"]},
        }
        settings = {"context": 16, "batch": 4, "steps": 6, "learning_rate": 1e-2, "evaluation_windows": 4}
        return from_tables(tables | {"training": settings | {"evaluate_every": 3, "checkpoint_every": 2} | training})

    return make


def vectors(folder, backend):
    run = reopen(folder, backend)
    return [run.backend.xp.to_numpy(x) for x in first_or_last_state(run)[0][:3]]


def test_a_run_of_adapters_stopped_and_resumed_continues_bit_for_bit(backend, tmp_path, adapting):
    config = adapting(dropout=0.1, accumulation=2)
    list(train(begin(tmp_path / "whole", config, backend)))
    begin(tmp_path / "stopped", config, backend)
    for stop in (3, 0, 2):
        steps = train(reopen(tmp_path / "stopped", backend))
        for _ in zip(range(stop), steps, strict=False):
            pass
        steps.close()
    list(train(reopen(tmp_path / "stopped", backend)))
    for one, other in zip(vectors(tmp_path / "whole", backend), vectors(tmp_path / "stopped", backend), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("adapter_model.safetensors", "best/adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_a_run_of_adapters_holds_the_adapter_and_not_the_model(tmp_path, base, adapting):
    run = begin(tmp_path / "run", adapting(), "numpy")
    before = {p: p.read_bytes() for p in base.iterdir() if p.is_file()}
    list(train(run))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "best", "data", "metrics.jsonl", "run.toml"),
        *("tokenizer.json", "tokenizer_config.json", "training_state.safetensors"),
    }
    assert {p: p.read_bytes() for p in base.iterdir() if p.is_file()} == before
    assert read(tmp_path / "run" / "run.toml") == run.config
    assert run.config.model["from"] == str(base)
    assert json.loads((tmp_path / "run" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


def test_the_saved_adapter_is_the_trained_one(backend, tmp_path, adapting):
    run = begin(tmp_path / "run", adapting(), backend)
    list(train(run))
    trained, loaded = model(run, first_or_last_state(run)[0]), checkpoints.load(tmp_path / "run", backend)
    tokens = run.corpus.held_out[:12].astype(np.int32)[None, :]
    logits = [backend.xp.to_numpy(m.logits(backend.xp.from_numpy(tokens))) for m in (trained, loaded)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert loaded.tokenizer.encode("the quiet wren") == run.tokenizer.encode("the quiet wren")


def test_a_model_that_is_gone_or_has_changed_is_named_when_its_adapters_go_on(tmp_path, base, adapting):
    list(train(begin(tmp_path / "run", adapting(), "numpy")))
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=rf"the run in {tmp_path}/run begins at {base}, which is gone; put it back, or wr"
    ):
        reopen(tmp_path / "run")
    toml = tmp_path / "run" / "run.toml"
    toml.write_text(toml.read_text().replace(str(base), str(tmp_path / "elsewhere")))
    reopen(tmp_path / "run")
    weights = tmp_path / "elsewhere" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"elsewhere is not the checkpoint that run.toml speaks of: its sha256 is"):
        reopen(tmp_path / "run")


def test_an_adapter_is_not_adapted_and_a_new_model_neither(tmp_path, adapting, configure):
    list(train(begin(tmp_path / "run", adapting(), "numpy")))
    with pytest.raises(ValueError, match=r"run is an adapter itself; make a whole model of it first: refllm merge"):
        begin(tmp_path / "again", override(adapting(), {"model.from": str(tmp_path / "run")}), "numpy")
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match=r"\[lora\] adapts a model that is trained already; give its checkpoint"):
        override(configure(), {"lora.rank": 2, "lora.targets": "q"})


def test_full_training_goes_on_from_an_adapter(tmp_path, adapting):
    list(train(begin(tmp_path / "run", adapting(), "numpy")))
    tables = {"model": {"from": str(tmp_path / "run")}, "data": {"path": adapting().data.path}}
    config = from_tables(tables | {"training": {"context": 16, "batch": 4, "steps": 2, "learning_rate": 0.0}})
    run = begin(tmp_path / "on", config, "numpy")
    merged = checkpoints.load(tmp_path / "run", "numpy")
    for name, x in unpack(first_or_last_state(run)[0].vector, run.learner.layout).items():
        np.testing.assert_array_equal(x, merged.params[name])


def test_adapters_of_stories_learn_another_text(tmp_path, data):
    text = tmp_path / "text.txt"
    text.write_text((data / "tinyshakespeare.txt").read_text()[:20_000])
    tables = {
        "model": {"from": str(data / "stories260K.bin")},
        "data": {"path": str(text), "tokenizer": str(data / "tok512.bin")},
        "training": {
            "context": 64,
            "batch": 4,
            "steps": 10,
            "learning_rate": 3e-3,
            "evaluation_windows": 1,
        },
        "lora": {"rank": 8, "targets": ["all-linear"]},
    }
    run = begin(tmp_path / "run", from_tables(tables), "numpy")
    before = Model(run.architecture, run.learner.config, run.learner.model.frozen)
    tokens, targets = (run.corpus.held_out[i : 512 + i].astype(np.int32).reshape(8, 64) for i in (0, 1))
    list(train(run))
    after = checkpoints.load(tmp_path / "run", "numpy")
    assert after.tokenizer.encode("Once") == run.tokenizer.encode("Once")  # the adapter's own: its model's file has none
    assert float(after.loss(tokens, targets)) < float(before.loss(tokens, targets)) - 0.2


def test_a_state_begins_at_given_weights(backend):
    learning = learner(llama, LLAMA, TrainingConfig(context=8, batch=4, steps=2, learning_rate=1e-3))
    values = normal(llama.parameter_shapes(LLAMA), 3, np.float32)
    for params in (values, {n: backend.xp.from_numpy(x) for n, x in values.items()}):
        state = state_at(params, learning, backend)
        np.testing.assert_array_equal(backend.xp.to_numpy(state.vector), pack(values, learning.layout))
        assert not np.any(backend.xp.to_numpy(state.mean))
