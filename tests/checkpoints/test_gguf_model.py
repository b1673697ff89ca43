"""Models in GGUF files, written here as llama.cpp's converter writes them, held to transformers' reading of the same files."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm.checkpoints import gguf_file, gguf_model
from refllm.checkpoints.llama2c import pairs_from_halves
from refllm.layers.rope import LinearScaling, Llama3Scaling, YarnScaling, rope_frequencies
from refllm.models import gemma, gpt2, llama, mixtral
from refllm.models.model import Model

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed; pip install '.[gguf]'")

SIZES = {"vocab_size": 262, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 8, "d_ff": 64}
LLAMA = llama.Config(**SIZES, max_positions=64, norm_eps=1e-6)
GEMMA_2 = gemma.Config(
    **SIZES, query_pre_attn_scalar=8, max_positions=64, window=4, full_layers=(1,), attention_softcap=50.0, logit_softcap=30.0
)
GEMMA_3 = gemma.Config(
    **SIZES | {"n_layers": 7},
    query_pre_attn_scalar=8,
    max_positions=64,
    window=4,
    full_layers=(5,),
    qk_norm=True,
    local_rope_theta=10_000.0,
    rope_theta=1e6,
)
MODELS = {
    "llama": (llama, LLAMA, "llama"),
    "tied llama with biases": (llama, replace(LLAMA, tied=True, qkv_bias=True, o_bias=True), "llama"),
    "mistral": (llama, replace(LLAMA, window=5), "llama"),
    "qwen2": (llama, replace(LLAMA, qkv_bias=True), "qwen2"),
    "qwen3": (llama, replace(LLAMA, qk_norm=True, d_head=128), "qwen3"),
    "gpt2": (gpt2, gpt2.Config(vocab_size=262, d_model=32, n_layers=2, n_heads=4, max_positions=1024, d_ff=128), "gpt2"),
    "mixtral": (mixtral, mixtral.Config(**SIZES, n_experts=3, top_k=2, max_positions=64, norm_eps=1e-6), "llama"),
    "gemma": (gemma, gemma.Config(**SIZES, query_pre_attn_scalar=8, max_positions=64, post_norms=False), "gemma"),
    "gemma2": (gemma, GEMMA_2, "gemma2"),
    "gemma3": (gemma, GEMMA_3, "gemma3"),
}
every_model = pytest.mark.parametrize("name", MODELS)

# Hugging Face's names and llama.cpp's
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
WHOLE |= {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}
BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
POST = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
EXPERTS = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf")


def make(name, seed=0):
    """A model whose gains are few bits long, so that one can be added to them and taken off again."""
    module, config, architecture = MODELS[name]
    rng = np.random.default_rng(seed)
    params = {
        n: (np.round(rng.standard_normal(s) * 64) / 64).astype(np.float32) for n, s in module.parameter_shapes(config).items()
    }
    return Model(module, config, params), architecture


def tensors_of(model, architecture):
    """The tensors by llama.cpp's names and in its layout."""
    found, c, stacks = {}, model.config, {}
    exported = model.export(model.params)
    for name, a in exported.items():
        base, kind = name.rsplit(".", 1)
        layer = re.match(r"(model\.layers|transformer\.h)\.(\d+)\.(.*)", base)
        if layer and (expert := re.fullmatch(r"block_sparse_moe\.experts\.\d+\.(w\d)", layer[3])):
            stacks.setdefault(f"blk.{layer[2]}.{EXPERTS[expert[1]]}.weight", []).append(a)
            continue
        if layer:
            table = BLOCK | (POST if "pre_feedforward" in "".join(exported) else {})
            theirs = f"blk.{layer[2]}.{table[layer[3]]}"
        else:
            theirs = WHOLE[base]
        if architecture == "llama" and theirs.endswith(("attn_q", "attn_k")):
            n_heads = c.n_heads if theirs.endswith("q") else c.n_kv_heads
            a = pairs_from_halves(a.reshape(len(a), -1), n_heads).reshape(a.shape)
        if architecture == "gpt2" and layer and a.ndim == 2:
            a = a.T
        if architecture.startswith("gemma") and base.endswith("norm"):
            a = a + 1
        found[f"{theirs}.{kind}"] = np.ascontiguousarray(a)
    return found | {name: np.stack(parts) for name, parts in stacks.items()}


def fields_of(config, architecture):
    """The fields that llama.cpp's converter writes, without the architecture's name before them."""
    c = config
    fields = {"context_length": c.max_positions, "embedding_length": c.d_model, "block_count": c.n_layers}
    fields |= {"feed_forward_length": c.d_ff, "attention.head_count": c.n_heads}
    if architecture == "gpt2":
        return fields | {"attention.layer_norm_epsilon": c.norm_eps}
    fields |= {
        "attention.head_count_kv": c.n_kv_heads,
        "attention.layer_norm_rms_epsilon": c.norm_eps,
        "rope.freq_base": c.rope_theta,
    }
    fields["rope.dimension_count"] = c.d_head
    if architecture != "llama":
        fields |= {"attention.key_length": c.d_head, "attention.value_length": c.d_head}
    if c.window is not None:
        fields["attention.sliding_window"] = c.window
    if isinstance(c, mixtral.Config):
        fields |= {"expert_count": c.n_experts, "expert_used_count": c.top_k}
    if architecture == "gemma2":
        fields |= {"attn_logit_softcapping": c.attention_softcap, "final_logit_softcapping": c.logit_softcap}
    return fields


def write(path, tensors, architecture, fields, quantised=None, **others):
    """A file. quantised: the type of matrices; None: float32    others: fields with their whole names, _ for a dot"""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in fields.items():
        kind = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}[type(value)]
        writer.add_key_value(f"{architecture}.{name}", value, kind)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
    writer.add_name("test")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-1.0, -2.0, -3.0])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 3)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_vocab_size(262)
    for name, value in others.items():
        writer.add_uint32(name.replace("_", "."), value)
    for name, a in tensors.items():
        if quantised and a.ndim > 1 and not name.startswith("position"):
            kind = gguf.GGMLQuantizationType[quantised]
            writer.add_tensor(name, gguf.quants.quantize(a, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, a)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@every_model
def test_a_model_is_read_as_it_was_before_it_was_converted(name, folder, backend):
    model, architecture = make(name)
    path = folder / "x.gguf"
    write(path, tensors_of(model, architecture), architecture, fields_of(model.config, architecture))
    loaded = refllm.load(path, backend)
    assert (loaded.architecture, loaded.config) == (model.architecture, model.config)
    assert loaded.params.keys() == model.params.keys()
    for n, p in model.params.items():
        np.testing.assert_array_equal(backend.xp.to_numpy(loaded.params[n]), p, err_msg=n)
    assert loaded.tokenizer.encode("a ab", bos=True) == [1, 261, 261, 3 + ord("b")]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in ("mistral", "mixtral", "tied llama with biases", "gemma")]
)
def test_transformers_reads_the_same_parameters(name, tmp_path):
    import transformers

    model, architecture = make(name)
    write(tmp_path / "x.gguf", tensors_of(model, architecture), architecture, fields_of(model.config, architecture))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf")
    ours = refllm.load(tmp_path, "numpy")
    state = {n: p.numpy() for n, p in theirs.state_dict().items()}
    for n, a in ours.export(ours.params).items():
        np.testing.assert_array_equal(state.pop(n), a, err_msg=n)
    assert set(state) <= {"lm_head.weight"}
    np.testing.assert_allclose(ours.config.norm_eps, getattr(theirs.config, "rms_norm_eps", 1e-5), rtol=1e-7)  # theirs is float32


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gemma2"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_quantised_matrices_are_those_of_the_package(name, kind, folder):
    model, architecture = make(name)
    path, tensors = folder / "x.gguf", tensors_of(model, architecture)
    write(path, tensors, architecture, fields_of(model.config, architecture), kind)
    type_ = gguf.GGMLQuantizationType[kind]
    rounded = {
        n: gguf.quants.dequantize(gguf.quants.quantize(a, type_), type_).reshape(a.shape)
        if a.ndim > 1 and not n.startswith("position")
        else a
        for n, a in tensors.items()
    }
    write(folder / "rounded.gguf", rounded, architecture, fields_of(model.config, architecture))
    loaded, expected = refllm.load(path, "numpy"), refllm.load(folder / "rounded.gguf", "numpy")
    for n, p in expected.params.items():
        assert loaded.params[n].dtype == np.float32
        np.testing.assert_array_equal(loaded.params[n], p, err_msg=n)
    assert {p.dtype for p in refllm.load(path, "numpy", dtype="float64").params.values()} == {np.dtype("float64")}


def scaled(theta, scaling):
    plain, slow = rope_frequencies(8, theta), rope_frequencies(8, theta, scaling)
    return {"rope_freqs.weight": np.asarray([p / s for p, s in zip(plain, slow, strict=True)], np.float32)}


@pytest.mark.parametrize(
    ("scaling", "fields", "tensors"),
    [
        (LinearScaling(4.0), {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {}),
        (LinearScaling(2.0), {"rope.scaling.type": "linear", "rope.scale_linear": 2.0}, {}),
        (None, {"rope.scaling.type": "none"}, {}),
        (
            YarnScaling(4.0, 16, amplitude=0.1 * np.log(4.0) + 1),
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
            {},
        ),
        (Llama3Scaling(8.0, 1.0, 4.0, 8192), {}, scaled(5e5, Llama3Scaling(8.0, 1.0, 4.0, 8192))),
        (Llama3Scaling(32.0, 1.0, 4.0, 8192), {}, scaled(5e5, Llama3Scaling(32.0, 1.0, 4.0, 8192))),
    ],
)
def test_scalings_of_rotary_positions_are_read(folder, scaling, fields, tensors):
    model = Model(llama, replace(LLAMA, rope_theta=5e5), make("llama")[0].params)
    write(folder / "x.gguf", tensors_of(model, "llama") | tensors, "llama", fields_of(model.config, "llama") | fields)
    assert refllm.load(folder / "x.gguf").config == replace(LLAMA, rope_theta=5e5, rope_scaling=scaling)


@pytest.mark.parametrize(("architecture", "largest"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemma_scales_scores_by_the_width_of_the_model(architecture, largest):
    fields = fields_of(GEMMA_2 if architecture == "gemma2" else GEMMA_3, architecture) | {"embedding_length": 36}
    metadata = {f"{architecture}.{name}": value for name, value in fields.items()} | {"general.architecture": architecture}
    table = gguf_file.Stored(0, (262, 36), np.zeros(0, np.uint8))
    for n_layers, scalar in ((largest, 9), (26, 8)):
        file = gguf_file.GGUF(metadata | {f"{architecture}.block_count": n_layers}, {"token_embd.weight": table})
        assert gguf_model.Fields(file, "x.gguf").hugging_face()["query_pre_attn_scalar"] == scalar


def test_experts_in_tensors_of_their_own_are_read(folder):
    model, architecture = make("mixtral")
    tensors = {}
    for n, a in tensors_of(model, architecture).items():
        single = {n.replace("_exps.", f".{e}."): part for e, part in enumerate(a)} if "_exps" in n else {n: a}
        tensors |= single
    write(folder / "x.gguf", tensors, architecture, fields_of(model.config, architecture))
    loaded = refllm.load(folder / "x.gguf", "numpy")
    for n, p in model.params.items():
        np.testing.assert_array_equal(loaded.params[n], p, err_msg=n)


def test_a_gpt2_that_holds_its_embedding_as_head_too_is_read(folder):
    model, architecture = make("gpt2")
    tensors = tensors_of(model, architecture)
    tensors["output.weight"] = tensors["token_embd.weight"]
    write(folder / "x.gguf", tensors, architecture, fields_of(model.config, architecture))
    assert refllm.load(folder / "x.gguf").n_parameters == model.n_parameters


def test_a_folder_of_one_gguf_file_is_read_and_of_two_is_refused(tmp_path):
    model, architecture = make("llama")
    write(tmp_path / "a.gguf", tensors_of(model, architecture), architecture, fields_of(model.config, architecture))
    assert refllm.load(tmp_path).config == LLAMA
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    with pytest.raises(ValueError, match=r"holds several models, a.gguf, b.gguf; name one of them."):
        refllm.load(tmp_path)


REFUSED = [
    ({}, {"attention.head_count": None}, "x.gguf has no llama.attention.head_count, which its model needs"),
    ({}, {"attention.head_count": 0}, "x.gguf has 0 attention heads"),
    ({}, {"attention.head_count": 4.0}, "x.gguf has llama.attention.head_count of type float; it must be int"),
    ({}, {"block_count": 2**31}, "num_hidden_layers=2147483648, but the checkpoint holds only 21 tensors"),
    ({}, {"block_count": 3}, r"x.gguf lacks model.layers.2.input_layernorm.weight, .* and 6 more, which Config"),
    ({}, {"block_count": 1}, r"x.gguf holds blk.1.attn_norm.weight, .* and 6 more, for which Config"),
    ({}, {"feed_forward_length": 65}, r"layers.0.ffn.gate is \(32, 64\) in .*x.gguf, but Config\(d_ff=65\) needs \(32, 65\)"),
    ({}, {"attention.head_count_kv": 4}, r"layers.0.attention.k is \(32, 16\) in .*x.gguf, but Config\(n_kv_heads=4, d_head=8\)"),
    ({}, {"attention.value_length": 4}, "x.gguf has heads whose keys, values and rotary positions are not of one width"),
    ({}, {"rope.dimension_count": 4, "attention.key_length": 8}, "heads whose keys, values and rotary positions are not of one"),
    ({}, {"rope.scaling.type": "longrope"}, "x.gguf scales rotary positions by longrope, which is not known"),
    ({}, {"rope.scaling.type": "yarn", "rope.scaling.attn_factor": 2.0}, "by llama.rope.scaling.attn_factor, which is not known"),
    ({"rope_freqs.weight": np.ones(4, np.float32)}, {}, "x.gguf divides rotary frequencies by rope_freqs.weight as no Llama 3"),
    ({"blk.0.attn_sinks.weight": np.ones(4, np.float32)}, {}, "x.gguf holds blk.0.attn_sinks.weight, for which Config"),
    ({"token_embd.weight": None}, {}, "x.gguf has no table of embeddings, token_embd.weight"),
    ({"token_embd.weight": np.ones(4, np.float32)}, {}, "x.gguf has no table of embeddings, token_embd.weight"),
    (
        {"output_norm.weight": np.ones((32, 1), np.float32)},
        {},
        r"norm is \(32, 1\) in .*x.gguf, but Config\(d_model=32\) needs \(32,\)",
    ),
]


@pytest.mark.parametrize(("tensors", "fields", "sentence"), REFUSED)
def test_a_model_that_does_not_fit_is_refused_with_a_sentence(folder, tensors, fields, sentence):
    model, architecture = make("llama")
    tensors = {n: a for n, a in (tensors_of(model, architecture) | tensors).items() if a is not None}
    fields = {n: v for n, v in (fields_of(model.config, architecture) | fields).items() if v is not None}
    write(folder / "x.gguf", tensors, architecture, fields)
    with pytest.raises(ValueError, match=sentence):
        refllm.load(folder / "x.gguf")


def test_other_architectures_and_parts_of_models_are_refused_with_a_sentence(folder):
    model, _ = make("llama")
    write(folder / "x.gguf", tensors_of(model, "llama"), "mamba", {})
    with pytest.raises(ValueError, match=r"x.gguf has general.architecture='mamba'; llama, qwen2, .* can be read."):
        refllm.load(folder / "x.gguf")
    write(folder / "x.gguf", tensors_of(model, "llama"), "llama", fields_of(LLAMA, "llama"), split_count=3)
    with pytest.raises(ValueError, match=r"x.gguf is one of 3 parts of a model; join them with `llama-gguf-split --merge`."):
        refllm.load(folder / "x.gguf")


def test_a_stack_of_other_experts_is_refused_with_a_sentence(folder):
    model, architecture = make("mixtral")
    tensors = tensors_of(model, architecture)
    tensors["blk.1.ffn_up_exps.weight"] = np.ones((4, 64, 32), np.float32)
    write(folder / "x.gguf", tensors, architecture, fields_of(model.config, architecture))
    with pytest.raises(ValueError, match=r"x.gguf lacks model.layers.1.block_sparse_moe.experts.0.w3.weight, .* which Config"):
        refllm.load(folder / "x.gguf")


def test_without_the_package_an_error_says_how_to_get_it(folder, monkeypatch):
    import sys

    model, architecture = make("llama")
    write(folder / "x.gguf", tensors_of(model, architecture), architecture, fields_of(model.config, architecture))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"GGUF files need the package gguf; install it with `pip install 'refllm\[gguf\]'`"):
        refllm.load(folder / "x.gguf")


@given(drawn=st.data())
def test_a_model_of_other_fields_is_refused_with_a_sentence_or_read_in_their_shapes(folder, drawn):
    name = drawn.draw(st.sampled_from(["llama", "gpt2", "qwen3", "mixtral", "gemma2"]))
    model, architecture = make(name)
    fields = fields_of(model.config, architecture)
    values = st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1), st.floats(width=32), st.text(max_size=3), st.none())
    for key in drawn.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2)):
        fields[key] = drawn.draw(values)
    write(folder / "f.gguf", tensors_of(model, architecture), architecture, {k: v for k, v in fields.items() if v is not None})
    refused = None
    try:
        loaded = gguf_model.read_model(folder / "f.gguf", "numpy")
        assert {n: p.shape for n, p in loaded.params.items()} == loaded.shapes
    except ValueError as error:
        refused = str(error)
    assert refused is None or "f.gguf" in refused
