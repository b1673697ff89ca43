"""PEFT's folders: what PEFT writes is read, what is written PEFT reads, and what is neither is refused."""

import json
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.checkpoints import adapter, tensor_file
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.models import ARCHITECTURES, architecture
from refllm.models.model import Model
from refllm.training.config import LoraConfig
from refllm.training.lora import adapt

SIZES = {"vocab_size": 13, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "max_positions": 16}
GROUPED = SIZES | {"n_kv_heads": 1, "d_head": 4}
CONFIGS = {
    "bert": SIZES,
    "gemma": GROUPED | {"query_pre_attn_scalar": 4},
    "gpt2": SIZES,
    "llama": GROUPED | {"qkv_bias": True},
    "mixtral": GROUPED | {"n_experts": 3, "top_k": 2},
}
ALL = LoraConfig(rank=3, targets=("all-linear",), alpha=2.0)
TOKENS = np.random.default_rng(7).integers(0, 13, (2, 9))


def random(shapes, seed):
    rng = np.random.default_rng(seed)
    return {n: (len(s) == 1) + rng.standard_normal(s) / np.sqrt(s[-2] if len(s) > 1 else 9) for n, s in shapes.items()}


def made(name, folder, lora=ALL, **changes):
    """A random model, written to folder/base, and a random adapter of it, to folder/adapter: it, adapted, and the A's and B's."""
    module = architecture(name)
    config = module.Config(**CONFIGS[name] | changes)
    model = Model(module, config, random(module.parameter_shapes(config), 0))
    checkpoints.save(folder / "base", model)
    adapted = adapt(module, config, model.params, lora)
    params = random(adapted.parameter_shapes(config), 1)
    adapter.write(folder / "adapter", model, params, lora, str(folder / "base"))
    return model, adapted, params


def assert_close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= tolerance * np.max(np.abs(expected)))


def fields_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def change(folder, **fields):
    (folder / "adapter_config.json").write_text(json.dumps(fields_of(folder) | fields))


@pytest.mark.parametrize(("name", "stabilised"), [*((n, False) for n in ARCHITECTURES), ("llama", True)])
def test_what_is_written_is_read_back(name, stabilised, tmp_path):
    model, adapted, params = made(name, tmp_path, LoraConfig(ALL.rank, ALL.targets, ALL.alpha, stabilised))
    loaded = checkpoints.load(tmp_path / "adapter", "numpy")
    assert loaded.config == model.config
    expected, _ = adapted.adapted(params)
    assert list(loaded.params) == list(model.params)
    for parameter, values in expected.items():
        np.testing.assert_array_equal(loaded.params[parameter], values)
    found = loaded.logits(TOKENS)
    np.testing.assert_array_equal(found, adapted.forward(params, loaded.tokens(TOKENS), model.config).logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merged_folder_is_read_as_the_adapter_is(name, tmp_path):
    made(name, tmp_path)
    adapted = checkpoints.load(tmp_path / "adapter", "numpy")
    checkpoints.save(tmp_path / "merged", adapted)
    merged = checkpoints.load(tmp_path / "merged", "numpy")
    assert not adapter.is_adapter(tmp_path / "merged")
    assert_close(merged.logits(TOKENS), adapted.logits(TOKENS))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_adapter_is_added_in_the_dtype_asked_for_and_rounded_once(dtype, tmp_path):
    model, adapted, params = made("llama", tmp_path)
    loaded, base = (checkpoints.load(tmp_path / name, "numpy", dtype) for name in ("adapter", "base"))
    wide = np.finfo("float64" if dtype == "float64" else "float32").eps
    for name, weight in base.params.items():
        assert loaded.params[name].dtype == dtype
        if name not in adapted.names:
            np.testing.assert_array_equal(loaded.params[name], weight)
            continue
        a, b = params[f"{name}.lora_a"], params[f"{name}.lora_b"]
        exact, size = weight + 2 / 3 * a @ b, np.abs(weight) + 2 / 3 * np.abs(a) @ np.abs(b)
        rounded = np.finfo(dtype).eps / 2 * np.abs(exact) if dtype == "float16" else 0.0
        assert np.all(np.abs(loaded.params[name] - exact) <= rounded + 8 * wide * size)


def test_experts_are_modules_of_their_own(tmp_path):
    _, _, params = made("mixtral", tmp_path, LoraConfig(2, ("experts.up",)))
    tensors = tensor_file.read(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 3
    for e in range(3):
        name = f"base_model.model.model.layers.1.block_sparse_moe.experts.{e}.w3"
        np.testing.assert_array_equal(tensors[f"{name}.lora_A.weight"].values(), params["layers.1.experts.up.lora_a"][e].T)
        np.testing.assert_array_equal(tensors[f"{name}.lora_B.weight"].values(), params["layers.1.experts.up.lora_b"][e].T)


@pytest.mark.parametrize(
    ("name", "targets", "modules"),
    [
        ("llama", ("q", "v"), ["q_proj", "v_proj"]),
        ("llama", ("layers.1.attention.q", "v"), ["model.layers.1.self_attn.q_proj", "v_proj"]),
        ("gpt2", ("attention.o",), [f"transformer.h.{i}.attn.c_proj" for i in (0, 1)]),
        ("gpt2", ("attention.o", "ffn.down"), ["c_proj"]),
    ],
)
def test_target_modules_say_which_are_adapted_and_no_more(name, targets, modules, tmp_path):
    made(name, tmp_path, LoraConfig(2, targets))
    assert fields_of(tmp_path / "adapter")["target_modules"] == modules


@pytest.mark.parametrize(("name", "turned"), [("gpt2", True), ("llama", False)])
def test_it_is_said_where_matrices_are_in_by_out(name, turned, tmp_path):
    made(name, tmp_path)
    assert fields_of(tmp_path / "adapter")["fan_in_fan_out"] is turned


def test_a_matrix_is_adapted_when_it_is_used_and_once(tmp_path, monkeypatch):
    made("llama", tmp_path, LoraConfig(2, ("q",)))
    adapted, calls = adapter.adapted_weight, []
    monkeypatch.setattr(adapter, "adapted_weight", lambda *given: calls.append(given) or adapted(*given))
    params = checkpoints.load(tmp_path / "adapter", "numpy").params
    assert not calls
    assert params["layers.1.attention.q"] is params["layers.1.attention.q"]
    assert params["layers.1.attention.k"].shape == (8, 4)
    assert len(calls) == 1


# Against PEFT


@pytest.fixture
def peft():
    """PEFT, which the extra `oracle` brings; imported before any dtype of torch is renamed."""
    return pytest.importorskip("peft", reason="peft is not installed: pip install '.[oracle]'")


@pytest.fixture
def transformers(peft, transformers_in_float64):
    assert peft.PeftModel
    return transformers_in_float64


ORACLES = {
    "bert": ("BertForMaskedLM", ALL),
    "gemma": ("AutoModelForCausalLM", ALL),
    "gpt2": ("AutoModelForCausalLM", ALL),
    "llama": ("AutoModelForCausalLM", ALL),
    "mixtral": ("AutoModelForCausalLM", LoraConfig(3, ("q", "k", "v", "o"), 2.0)),  # experts: see below
}


def read_by(transformers, folder, kind):
    eager = {"attn_implementation": "eager"} | ({"experts_implementation": "eager"} if "mixtral" in str(folder) else {})
    return getattr(transformers, kind).from_pretrained(folder, **eager).double().eval()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of PEFT, to transformers
@pytest.mark.oracle
@pytest.mark.parametrize(("name", "stabilised"), [*((n, False) for n in ARCHITECTURES), ("llama", True)])
def test_peft_computes_the_same_logits_and_gradients_from_what_is_written(name, stabilised, tmp_path, peft, transformers):
    import torch

    kind, lora = ORACLES[name]
    lora, tmp_path = LoraConfig(lora.rank, lora.targets, lora.alpha, stabilised), tmp_path / name
    model, adapted, params = made(name, tmp_path, lora)
    theirs = peft.PeftModel.from_pretrained(
        read_by(transformers, tmp_path / "base", kind), tmp_path / "adapter", is_trainable=True
    )
    targets = np.random.default_rng(8).integers(0, 13, TOKENS.shape)
    logits = theirs(torch.from_numpy(TOKENS)).logits
    output = adapted.forward(params, TOKENS, model.config)
    assert logits.dtype == torch.float64
    assert_close(output.logits, logits.detach().numpy())
    torch.nn.functional.cross_entropy(logits.reshape(-1, 13), torch.from_numpy(targets).reshape(-1)).backward()
    loss, judged = cross_entropy(output.logits, targets)
    grads = adapted.backward(cross_entropy_backward(np.ones_like(loss), judged), output.saved)
    expected = {n.replace(".default", ""): p.grad.numpy().T for n, p in theirs.named_parameters() if p.requires_grad}
    modules = adapter.adaptable(model.architecture, model.config)
    largest = max(np.max(np.abs(g)) for g in expected.values())
    assert len(expected) == len(grads)
    for parameter, grad in grads.items():
        ours, part = parameter.rsplit(".", 1)
        theirs_grad = expected[f"base_model.model.{modules[ours][0]}.lora_{part[-1].upper()}.weight"]
        assert np.all(np.abs(grad - theirs_grad) <= 1e-11 * largest)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT's own, which it makes of experts
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of PEFT, to transformers
@pytest.mark.oracle
def test_peft_computes_the_same_logits_from_adapters_of_experts(tmp_path, peft, transformers):
    """transformers 5 has all experts in one tensor; PEFT makes its adapters of those of single experts, as they are written."""
    import torch

    model, adapted, params = made("mixtral", tmp_path / "mixtral")
    theirs = read_by(transformers, tmp_path / "mixtral" / "base", "AutoModelForCausalLM")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "mixtral" / "adapter")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    assert_close(adapted.forward(params, TOKENS, model.config).logits, expected)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of PEFT, to transformers
@pytest.mark.oracle
@pytest.mark.parametrize(("name", "stabilised"), [*((n, False) for n in ARCHITECTURES), ("llama", True)])
def test_what_peft_writes_is_read(name, stabilised, tmp_path, peft, transformers):
    import torch

    (kind, lora), tmp_path = ORACLES[name], tmp_path / name
    model, adapted, _ = made(name, tmp_path, lora)
    modules = [m for ours in adapted.names for m in adapter.adaptable(model.architecture, model.config)[ours]]
    theirs = read_by(transformers, tmp_path / "base", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it tells that it sets fan_in_fan_out for GPT-2
        ranks = {"r": 3, "lora_alpha": 5, "rank_pattern": {modules[0]: 2}, "use_rslora": stabilised}
        fields = peft.LoraConfig(target_modules=modules, init_lora_weights=False, **ranks)
        theirs = peft.get_peft_model(theirs, fields)
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    loaded = checkpoints.load(tmp_path / "theirs", "numpy")
    assert_close(loaded.logits(TOKENS), expected)
    assert np.max(np.abs(model.logits(TOKENS) - expected)) > 1e-3


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, r"adapter_config.json has peft_type='IA3'; what is read is plain LoRA, with peft_type='LORA'"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern="),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"layer_replication": [[0, 2]]}, "layer_replication="),
        ({"r": 0}, "r=0; it must be a number above 0"),
        ({"lora_alpha": "8"}, "lora_alpha='8'; it must be a number above 0"),
        ({"lora_alpha": None}, "lora_alpha=None; it must be a number above 0"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, r"lacks the adapter of layers.0.attention.k, which target_modules"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_by_the_field_that_says_so(fields, message, tmp_path):
    made("llama", tmp_path, LoraConfig(2, ("q", "v")))
    change(tmp_path / "adapter", **fields)
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "adapter", "numpy")


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"{Q}A.weight": None},
            r"lacks .*layers.0.self_attn.q_proj.lora_A.weight, without which layers.0.attention.q is adapted in",
        ),
        (
            {f"{Q}A.weight": np.ones((2, 7))},
            r"the adapter of layers.0.attention.q in .* is \(7, 2\) times \(2, 8\), but .* is \(8, 8\)",
        ),
        ({f"{Q}B.weight": np.ones((8, 3))}, r"is \(8, 2\) times \(3, 8\)"),
        (
            {f"{Q}A.weight": np.ones(16)},
            r"q_proj.lora_A.weight in .* is F64 \(16,\); an adapter's are matrices of floating numbers",
        ),
        ({f"{Q}A.weight": np.ones((2, 8), "int32")}, r"is I32 \(2, 8\); an adapter's are matrices of floating numbers"),
        ({"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight": np.ones((2, 8))}, r"holds .*layers.2.* has no use"),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((2, 8))},
            r"holds .*embed_tokens.lora_embedding_A, for",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, message, tmp_path):
    made("llama", tmp_path, LoraConfig(2, ("q",)))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {n: t.values().copy() for n, t in tensor_file.read(path).items()} | changes
    tensor_file.write(path, {n: tensor_file.of_array(x) for n, x in tensors.items() if x is not None})
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "adapter", "numpy")


def test_a_file_without_an_adapter_is_refused(tmp_path):
    made("llama", tmp_path, LoraConfig(2, ("q",)))
    change(tmp_path / "adapter", target_modules="all-linear")
    tensor_file.write(tmp_path / "adapter" / "adapter_model.safetensors", {})
    with pytest.raises(ValueError, match="holds no adapter of a matrix of this model"):
        checkpoints.load(tmp_path / "adapter", "numpy")


def test_the_model_is_found_beside_the_adapter_or_where_it_is_said_to_be(tmp_path, monkeypatch):
    made("llama", tmp_path)
    change(tmp_path / "adapter", base_model_name_or_path="../base")
    expected = checkpoints.load(tmp_path / "adapter", "numpy").logits(TOKENS)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(
        FileNotFoundError, match=r"adapter is an adapter of ../base, which is not here; fetch that and name it: refl"
    ):
        checkpoints.load(tmp_path / "adapter", "numpy")
    found = adapter.read_model(tmp_path / "adapter", "numpy", base=tmp_path / "moved").logits(TOKENS)
    np.testing.assert_array_equal(found, expected)
    change(tmp_path / "adapter", base_model_name_or_path=None)
    with pytest.raises(ValueError, match=r"does not say of which model it is an adapter; name it: refllm merge --base MODEL"):
        checkpoints.load(tmp_path / "adapter", "numpy")


def test_an_adapter_of_an_adapter_is_refused_and_so_never_of_itself(tmp_path):
    made("llama", tmp_path)
    shutil.copytree(tmp_path / "adapter", tmp_path / "upper")
    for base in ("../adapter", "../upper"):
        change(tmp_path / "upper", base_model_name_or_path=base)
        with pytest.raises(ValueError, match=r"an adapter itself; make a whole model of that first: refllm merge"):
            checkpoints.load(tmp_path / "upper", "numpy")


@given(data=st.data())
def test_a_damaged_folder_is_refused_with_one_error_or_read_as_a_model(small_adapter, data):
    folder, whole = small_adapter
    name = data.draw(st.sampled_from(sorted(whole)))
    bytes_ = bytearray(whole[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(bytes_) - 1))
        bytes_[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for other, content in (whole | {name: bytes(bytes_)}).items():
        (folder / other).write_bytes(content)
    try:
        loaded = checkpoints.load(folder, "numpy")
    except (ValueError, OSError):
        return
    with np.errstate(all="ignore"):  # a damaged number may be anything
        assert loaded.logits(TOKENS).shape == (2, 9, 13)


@pytest.fixture(scope="module")
def small_adapter(tmp_path_factory):
    """The folder of an adapter, and the bytes of its files."""
    folder = tmp_path_factory.mktemp("damaged")
    made("llama", folder, LoraConfig(1, ("q",)))
    return folder / "adapter", {p.name: p.read_bytes() for p in (folder / "adapter").iterdir()}


def test_an_adapter_of_another_model_is_refused(tmp_path):
    made("llama", tmp_path / "one")
    made("llama", tmp_path / "other", d_model=16)
    with pytest.raises(ValueError, match=r"the adapter of layers.0.attention.q in .* but the matrix is \(16, 8\)"):
        adapter.read_model(tmp_path / "one" / "adapter", "numpy", base=tmp_path / "other" / "base")
