"""Folders that transformers writes, loaded in float64: logits, loss, gradients and names are its own, to the last digits."""

import json

import numpy as np
import pytest

import refllm
from refllm.checkpoints import tensor_file

SIZES = {
    "vocab_size": 37,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "intermediate_size": 10,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
LONGER = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500_000.0}
FAMILIES = {
    "llama": SIZES | {"rope_parameters": LONGER | {"original_max_position_embeddings": 16}, "attention_bias": True},
    "tied llama": SIZES | {"tie_word_embeddings": True},
    "mistral": SIZES | {"sliding_window": 3},
    "qwen2": {k: v for k, v in SIZES.items() if k != "head_dim"} | {"num_attention_heads": 3},
    "qwen3": SIZES,
    "mixtral": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
    "gpt2": {
        "vocab_size": 37,
        "n_embd": 12,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 32,
        "initializer_range": 0.3,
        "attn_pdrop": 0.0,
    }
    | {"embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "gemma": SIZES,
    "gemma2": SIZES | {"sliding_window": 3, "query_pre_attn_scalar": 5},
    "gemma3_text": SIZES | {"sliding_window": 3, "query_pre_attn_scalar": 5, "num_hidden_layers": 6},
}


def written(family, transformers, folder):
    """A model of transformers, its folder written by it."""
    import torch

    kind = transformers.CONFIG_MAPPING[family.rpartition(" ")[2]]
    torch.manual_seed(0)
    config = kind(**FAMILIES[family], bos_token_id=1, eos_token_id=2, pad_token_id=None)
    config._experts_implementation = "eager"  # the faster ones know no float64
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for p in model.parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, std=0.3)  # biases and gains too
    model.save_pretrained(folder)
    return model.eval()


def fused(exported):
    """The experts of a checkpoint as transformers 5 holds them in memory: w1 above w3 in one, all experts in one tensor."""
    theirs, experts = {}, {}
    for name, a in exported.items():
        layer, _, rest = name.partition(".block_sparse_moe.")
        if not rest:
            theirs[name] = a
        elif rest == "gate.weight":
            theirs[f"{layer}.mlp.gate.weight"] = a
        else:
            _, e, w, _ = rest.split(".")
            experts.setdefault((layer, w), {})[int(e)] = a
    for layer in {layer for layer, _ in experts}:
        w1, w2, w3 = (np.stack([experts[layer, w][e] for e in range(4)]) for w in ("w1", "w2", "w3"))
        theirs[f"{layer}.mlp.experts.gate_up_proj"] = np.concatenate([w1, w3], axis=1)
        theirs[f"{layer}.mlp.experts.down_proj"] = w2
    return theirs


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_transformers_computes_the_same_in_float64(family, transformers_in_float64, tmp_path):
    import torch

    theirs = written(family, transformers_in_float64, tmp_path)
    ours = refllm.load(tmp_path, "numpy", dtype="float64")
    tokens, targets = np.random.default_rng(0).integers(0, 37, (2, 2, 9))
    output = theirs(torch.from_numpy(tokens))
    loss = torch.nn.functional.cross_entropy(output.logits.reshape(-1, 37), torch.from_numpy(targets).reshape(-1))
    if (balance := getattr(output, "aux_loss", None)) is not None:
        loss = loss + theirs.config.router_aux_loss_coef * balance
    loss.backward()
    expected, actual = output.logits.detach().numpy(), ours.logits(tokens)
    assert actual.dtype == expected.dtype == np.float64
    assert np.all(np.abs(actual - expected) <= 1e-12 * np.max(np.abs(expected)))
    assert abs(float(ours.loss(tokens, targets)) - loss.item()) <= 1e-12 * abs(loss.item())
    exported, named = fused(ours.export(ours.gradients(tokens, targets))), dict(theirs.named_parameters())
    assert exported.keys() == named.keys()
    for name, gradient in exported.items():
        expected = named[name].grad.numpy()
        assert gradient.shape == expected.shape
        assert np.all(np.abs(gradient - expected) <= 1e-11 * np.max(np.abs(expected))), name


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_parameters_are_the_tensors_of_the_file(family, transformers_in_float64, tmp_path):
    written(family, transformers_in_float64, tmp_path)
    ours = refllm.load(tmp_path, "numpy")
    stored = tensor_file.read(tmp_path / "model.safetensors")
    exported = ours.export(ours.params)
    assert exported.keys() == stored.keys()
    for name, a in exported.items():
        np.testing.assert_array_equal(a, stored[name].values(), err_msg=name)


@pytest.mark.oracle
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("gpt2", "gemma3_text")])
def test_the_spelling_of_transformers_4_says_the_same(family, transformers_in_float64, tmp_path):
    written(family, transformers_in_float64, tmp_path)
    config = refllm.load(tmp_path).config
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    rope = fields.pop("rope_parameters")
    fields["rope_theta"] = rope.pop("rope_theta")
    fields["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    fields["torch_dtype"] = fields.pop("dtype")
    path.write_text(json.dumps(fields))
    assert refllm.load(tmp_path).config == config
