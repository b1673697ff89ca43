"""Hugging Face folders: written for transformers, read from it, and back to the same tensors; what is wrong is said."""

import json
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm import checkpoints
from refllm.array_api import load
from refllm.checkpoints import tensor_file
from refllm.checkpoints.names import by_our_names, by_present_names, by_their_names
from refllm.checkpoints.tensor_file import Tensor, of_array
from refllm.models import gpt2, llama
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

CONFIGS = {
    "gpt2": (gpt2, gpt2.Config(vocab_size=300, d_model=8, n_layers=2, n_heads=2, max_positions=16, d_ff=12)),
    "llama": (
        llama,
        llama.Config(vocab_size=300, d_model=8, n_layers=2, n_heads=4, n_kv_heads=2, d_head=4, d_ff=12, max_positions=16),
    ),
}
CONFIGS["tied llama"] = (llama, replace(CONFIGS["llama"][1], tied=True))
CONFIGS["mistral"] = (llama, replace(CONFIGS["llama"][1], window=3))
every_model = pytest.mark.parametrize("name", CONFIGS)


def make(name, backend="numpy", dtype="float32", tokenizer=None):
    module, config = CONFIGS[name]
    xp, rng = load(backend).xp, np.random.default_rng(0)
    params = {
        n: xp.from_numpy(rng.standard_normal(s, dtype=np.float32), getattr(xp, dtype))
        for n, s in module.parameter_shapes(config).items()
    }
    return Model(module, config, params, tokenizer)


def assert_same(a, b):
    assert (a.architecture, a.config) == (b.architecture, b.config)
    assert a.params.keys() == b.params.keys()
    for n, p in a.params.items():
        assert p.dtype == b.params[n].dtype, n
        np.testing.assert_array_equal(a.backend.xp.to_numpy(p), b.backend.xp.to_numpy(b.params[n]), err_msg=n)


@every_model
def test_a_saved_model_is_read_back_the_same_bit_for_bit_in_every_dtype(name, backend, tmp_path):
    for dtype in sorted({"float16", "bfloat16", "float32", "float64"} & backend.xp.dtypes()):
        model = make(name, backend, dtype)
        checkpoints.save(tmp_path, model)
        loaded = refllm.load(tmp_path, backend)
        assert_same(loaded, model)
        before = (tmp_path / "model.safetensors").read_bytes()
        refllm.save(tmp_path, loaded)
        assert (tmp_path / "model.safetensors").read_bytes() == before


@every_model
def test_a_model_stored_in_bfloat16_is_read_in_float32_where_there_is_no_bfloat16_and_saves_back_the_same(name, tmp_path):
    checkpoints.save(tmp_path, make(name), dtype="bfloat16")
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = checkpoints.load(tmp_path, "numpy")
    assert {p.dtype for p in loaded.params.values()} == {np.dtype("float32")}
    checkpoints.save(tmp_path, loaded, dtype="bfloat16")
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_model_is_read_in_the_dtype_asked_for(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    assert {p.dtype for p in checkpoints.load(tmp_path, dtype="float64").params.values()} == {np.dtype("float64")}


def test_tensors_of_two_dtypes_are_read_in_the_one_that_holds_both(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float16)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert {p.dtype for p in checkpoints.load(tmp_path).params.values()} == {np.dtype("float32")}


def test_a_model_in_shards_is_read_whole(tmp_path):
    model = make("llama")
    checkpoints.save(tmp_path, model)
    tensors = tensor_file.read(tmp_path / "model.safetensors")
    names = list(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for shard, held in shards.items():
        tensor_file.write(tmp_path / shard, {n: tensors[n] for n in held})
    weight_map = {n: shard for shard, held in shards.items() for n in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "model.safetensors").unlink()
    assert_same(checkpoints.load(tmp_path), model)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="names model-00002-of-00002.safetensors, missing beside it"):
        checkpoints.load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="model.safetensors.index.json does not say in which shard each tensor lies"):
        checkpoints.load(tmp_path)


@every_model
def test_names_without_their_prefix_and_buffers_of_old_files_are_understood(name, tmp_path):
    model = make(name)
    checkpoints.save(tmp_path, model)
    tensors = tensor_file.read(tmp_path / "model.safetensors")
    tensors = {n.removeprefix(model.architecture.BASE_PREFIX): t for n, t in tensors.items()}
    buffer = "h.0.attn.bias" if name == "gpt2" else "layers.0.self_attn.rotary_emb.inv_freq"
    tensors[buffer] = Tensor("F32", (2,), lambda: np.zeros(2, np.float32))
    if name == "tied llama":
        tensors["lm_head.weight"] = tensors["embed_tokens.weight"]
    tensor_file.write(tmp_path / "model.safetensors", tensors)
    assert_same(checkpoints.load(tmp_path), model)


def test_a_tensor_under_its_old_and_its_present_name_is_refused_with_a_sentence():
    bert = ModuleType("bert")
    bert.OLD_NAMES = ((r"\.gamma$", ".weight"),)
    one = of_array(np.ones(2, np.float32))
    assert by_present_names({"norm.gamma": one, "gamma.bias": one}, bert) == {"norm.weight": one, "gamma.bias": one}
    with pytest.raises(ValueError, match=r"the checkpoint holds both norm.gamma and norm.weight, which are names of one tensor."):
        by_present_names({"norm.gamma": one, "norm.weight": one}, bert)


@pytest.mark.parametrize("name", ["gpt2", "tied llama"])
def test_a_tied_head_that_is_stored_must_be_the_embedding(name, tmp_path):
    checkpoints.save(tmp_path, make(name))
    tensors = {n: of_array(np.array(t.values())) for n, t in tensor_file.read(tmp_path / "model.safetensors").items()}
    embedding = next(t for n, t in tensors.items() if n.endswith(("wte.weight", "embed_tokens.weight")))
    tensor_file.write(tmp_path / "model.safetensors", tensors | {"lm_head.weight": embedding})
    assert_same(checkpoints.load(tmp_path), make(name))
    for other in (embedding.values() + 1, embedding.values()[:-1], embedding.values().astype(np.float64)):
        tensor_file.write(tmp_path / "model.safetensors", tensors | {"lm_head.weight": of_array(other)})
        with pytest.raises(ValueError, match=r"model.safetensors holds a lm_head.weight that is not the embedding, but the con"):
            checkpoints.load(tmp_path)


class _Experts(ModuleType):
    """An architecture with two matrices (2, 3) in one parameter, which a checkpoint holds one by one."""

    MODEL_TYPES, BASE_PREFIX, BUFFERS = ("experts",), "model.", ()
    NAMES = ("model.experts.0.weight", "model.experts.1.weight")

    class Config(NamedTuple):
        n_experts: int = 2

    def parameter_shapes(self, config):
        return {"embedding": (4, 3), "experts": (config.n_experts, 2, 3)}

    def hugging_face_names(self, config):
        return {"embedding": ("model.embed_tokens.weight", False), "experts": (self.NAMES, True)}


def test_a_parameter_that_a_checkpoint_holds_in_parts_is_stacked_and_cut_again(backend):
    experts, xp = _Experts("experts"), backend.xp
    values = {"embedding": np.ones((4, 3), np.float32), "experts": np.arange(12, dtype=np.float32).reshape(2, 2, 3)}
    model = Model(experts, experts.Config(), {name: xp.from_numpy(a) for name, a in values.items()})
    stored = by_their_names(model, "float32")
    assert [*stored] == ["model.embed_tokens.weight", *experts.NAMES]
    for name, part in zip(experts.NAMES, values["experts"], strict=True):
        assert stored[name].shape == (3, 2)
        np.testing.assert_array_equal(stored[name].values(), part.T)
        np.testing.assert_array_equal(model.export(model.params)[name], part.T)
    back = by_our_names(stored, experts, model.config, "x")
    np.testing.assert_array_equal(back["experts"].values(), values["experts"])
    assert back["experts"].shape == (2, 2, 3)
    with pytest.raises(ValueError, match=r"lacks model.experts.1.weight, which Config\(n_experts=2\) needs"):
        by_our_names({name: t for name, t in stored.items() if name != experts.NAMES[1]}, experts, model.config, "x")
    wrong = stored | {experts.NAMES[1]: tensor_file.of_array(np.zeros((3, 1), np.float32))}
    with pytest.raises(ValueError, match=r"the 2 tensors that make up experts differ: F32 \(1, 3\), F32 \(2, 3\)."):
        by_our_names(wrong, experts, model.config, "x")


def test_a_tokenizer_travels_with_its_model(tmp_path):
    tokenizer = train_bpe("the cat sat on the mat and the rat sat on the cat " * 20, 270)
    checkpoints.save(tmp_path, make("llama", tokenizer=tokenizer))
    loaded = checkpoints.load(tmp_path).tokenizer
    assert loaded.encode("the cat and 3 ràts") == tokenizer.encode("the cat and 3 ràts")
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == tokenizer.eos


def test_a_tokenizer_in_another_of_its_files_comes_with_the_model_too(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    assert checkpoints.load(tmp_path).tokenizer is None
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n")
    assert checkpoints.load(tmp_path).tokenizer.encode("The cat") == [5, 6]


def test_a_tokenizer_that_cannot_be_read_leaves_the_model_and_a_warning(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Morse"}}')
    with pytest.warns(UserWarning, match="is loaded without its tokenizer: .*Morse"):
        assert checkpoints.load(tmp_path).tokenizer is None


@pytest.mark.oracle
@every_model
def test_transformers_gives_the_logits_of_a_saved_model_and_its_ids(name, transformers_in_float64, tmp_path):
    import torch

    tokenizer = train_bpe("the cat sat on the mat and the rat sat on the cat " * 20, 270)
    model = make(name, dtype="float64", tokenizer=tokenizer)
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path)
    their_tokenizer = transformers_in_float64.AutoTokenizer.from_pretrained(tmp_path)
    text = "the cat, naïve, sat\n\n on 42 mats"[:16]
    ids = tokenizer.encode(text)
    assert their_tokenizer(text)["input_ids"] == ids
    assert their_tokenizer.decode(ids) == text
    assert their_tokenizer.eos_token_id == tokenizer.eos
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    assert np.all(np.abs(model.logits([ids]) - expected) <= 1e-12 * np.max(np.abs(expected)))


@pytest.mark.oracle
@every_model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_transformers_saved_is_read_and_saves_back_to_the_same_tensors(name, dtype, tmp_path):
    import torch
    import transformers

    module, config = CONFIGS[name]
    fields = module.hugging_face_config(config)
    kind = transformers.CONFIG_MAPPING[fields.pop("model_type")]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(kind(**fields)).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs")
    model = checkpoints.load(tmp_path / "theirs", "numpy")
    assert model.config == config
    checkpoints.save(tmp_path / "ours", model, dtype=dtype)
    before, after = (tensor_file.read(tmp_path / folder / "model.safetensors") for folder in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for n, tensor in before.items():
        assert tensor[:2] == after[n][:2]
        np.testing.assert_array_equal(tensor.values(), after[n].values())


def changed(folder, **fields):
    path = folder / "config.json"
    config = {k: v for k, v in (json.loads(path.read_text()) | fields).items() if v is not ...}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"num_key_value_heads": 4},
            r"layers.0.attention.k is \(8, 8\) in model.safetensors, but Config\(n_kv_heads=4, d_head=4\) needs \(8, 16\).",
        ),
        (
            {"intermediate_size": 13},
            r"layers.0.ffn.gate is \(8, 12\) in model.safetensors, but Config\(d_ff=13\) needs \(8, 13\).",
        ),
        (
            {"vocab_size": 301},
            r"embedding is \(300, 8\) in model.safetensors, but Config\(vocab_size=301\) needs \(301, 8\).",
        ),
        (
            {"num_hidden_layers": 3},
            r"model.safetensors lacks model.layers.2.input_layernorm.weight, .* and 6 more, which Config\(vocab_size=300",
        ),
        (
            {"num_hidden_layers": 1},
            r"model.safetensors holds model.layers.1.input_layernorm.weight, .* and 6 more, for which Config\(.* has no use",
        ),
        ({"model_type": "rwkv"}, r"config.json has model_type='rwkv'; the types that can be read are .*gpt2, llama, mistral"),
        ({"hidden_size": ...}, r"config.json has no 'hidden_size', which a model of type 'llama' needs."),
        ({"hidden_size": 0}, r"d_model=0 cannot be; it must be at least 1."),
    ],
)
def test_a_configuration_that_does_not_fit_the_tensors_is_refused_with_a_sentence(tmp_path, change, sentence):
    checkpoints.save(tmp_path, make("llama"))
    changed(tmp_path, **change)
    with pytest.raises(ValueError, match=sentence):
        checkpoints.load(tmp_path)


NUMBERS = st.one_of(st.integers(-2, 20), st.integers(-(2**70), 2**70), st.floats())
FIELDS = st.one_of(
    NUMBERS, st.text(max_size=3), st.booleans(), st.none(), st.just([1]), st.just({"rope_type": "yarn"}), st.just(...)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folder")


@given(data=st.data())
def test_a_configuration_of_any_fields_is_refused_with_a_sentence_or_fits_the_tensors(folder, data):
    checkpoints.save(folder, make(data.draw(st.sampled_from(sorted(CONFIGS)))))
    fields = sorted(json.loads((folder / "config.json").read_text()))
    changed(folder, **data.draw(st.dictionaries(st.sampled_from(fields), FIELDS, min_size=1, max_size=3)))
    refused = None
    try:
        model = checkpoints.load(folder, "numpy")
        assert {n: p.shape for n, p in model.params.items()} == model.shapes
    except ValueError as error:
        refused = str(error)
    assert refused is None or "config.json" in refused or "model.safetensors" in refused


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 10**12), ("vocab_size", 10**12), ("num_attention_heads", 10**12), ("intermediate_size", 10**30)],
)
def test_a_claim_of_a_huge_model_is_refused_at_once(tmp_path, field, value):
    checkpoints.save(tmp_path, make("llama"))
    changed(tmp_path, **{field: value})
    with pytest.raises(ValueError, match=r"config.json has num_hidden_layers=10{12}, but the checkpoint holds only 21|needs \("):
        checkpoints.load(tmp_path)


def test_a_value_of_a_wrong_type_is_refused_with_a_sentence(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    for change, sentence in (
        ({"vocab_size": "300"}, "config.json gives vocab_size the value '300', a str; that cannot be."),
        ({"num_attention_heads": 4.0}, "config.json gives n_heads the value 4.0, a float; that cannot be."),
        ({"rms_norm_eps": float("inf")}, "config.json gives norm_eps the value inf, a float; that cannot be."),
        ({"num_attention_heads": [4]}, "config.json does not describe a model of type 'llama': "),
    ):
        checkpoints.save(tmp_path, make("llama"))
        changed(tmp_path, **change)
        with pytest.raises(ValueError, match=sentence):
            checkpoints.load(tmp_path)


def test_a_tensor_that_is_not_of_floating_numbers_is_refused_with_a_sentence(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    tensors = tensor_file.read(tmp_path / "model.safetensors")
    for stored in (tensor_file.of_array(np.ones(8, np.int8)), Tensor("U8", (8,), lambda: np.ones(8, np.uint8))):
        tensor_file.write(tmp_path / "x.safetensors", tensors | {"model.norm.weight": stored})
        (tmp_path / "x.safetensors").replace(tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=f"norm is stored in {stored.dtype} in model.safetensors; F16, BF16, F32, F64 can be"
        ):
            checkpoints.load(tmp_path)


def test_a_file_that_is_no_model_is_refused_with_a_sentence(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 and so on, a file of torch.save")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    for name, sentence in (
        ("model.safetensors", "model.safetensors holds tensors, but not what model they make up; name the folder"),
        ("model.pt", "model.pt is a file of torch.save, which is not read: it is a pickle, which can run any program."),
        ("old.pt", "old.pt is a file of torch.save, which is not read"),
        ("config.json", "config.json is not a llama2.c checkpoint"),
    ):
        with pytest.raises(ValueError, match=sentence):
            checkpoints.load(tmp_path / name)


def test_a_folder_without_its_files_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; a model is a folder with config.json and model.safete"):
        checkpoints.load(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"config.json is missing; a model's folder holds config.json and model.safetensors"
    ):
        checkpoints.load(tmp_path)
    checkpoints.save(tmp_path, make("llama"))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"model.safetensors is missing; a model's folder holds it, or model.safetensors.ind"
    ):
        checkpoints.load(tmp_path)
    for text, sentence in (
        ("{", "config.json is not JSON"),
        ("[]", "config.json holds a list; it must be a JSON object"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            checkpoints.load(tmp_path)


def test_a_truncated_checkpoint_is_refused_with_a_sentence(tmp_path):
    checkpoints.save(tmp_path, make("llama"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated: it has \d+ bytes, and its header describes \d+"):
        checkpoints.load(tmp_path)


def test_a_dtype_that_cannot_be_had_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="dtype='int8' cannot be stored; choose one of float16, bfloat16, float32, float64"):
        checkpoints.save(tmp_path, make("llama"), dtype="int8")
    checkpoints.save(tmp_path, make("llama"))
    with pytest.raises(ValueError, match="dtype='bfloat16' cannot be had on numpy; it computes in float16, float32, float64"):
        checkpoints.load(tmp_path, "numpy", dtype="bfloat16")


def test_an_interrupted_save_leaves_the_old_model_whole(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, make("llama"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = make("llama")
    broken = {n: p + 1 for n, p in other.params.items()} | {"lm_head": _Interrupted(other.params["lm_head"])}
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, Model(llama, other.config, broken))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


class _Interrupted:
    """An array during whose reading the user stops the program."""

    def __init__(self, a):
        self.shape = a.shape

    def __array__(self, dtype=None, copy=None):
        raise KeyboardInterrupt
