"""What a model costs: against published figures, against products counted while models run, and against memory measured."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.conformance.specification import definitions
from refllm.decoding import new_cache
from refllm.decoding.generate import prefill
from refllm.layers.kv_cache import n_bytes
from refllm.models import accounting, architecture, bert, gemma, gpt2, llama, mixtral
from refllm.models.model import Model

GPT2 = gpt2.SIZES["gpt2"]
LLAMA_2_7B = llama.Config(32_000, 4096, 32, 32, 32, 128, 11_008, 4096)
LLAMA_2_70B = llama.Config(32_000, 8192, 80, 64, 8, 128, 28_672, 4096)
MISTRAL_7B = llama.Config(32_000, 4096, 32, 32, 8, 128, 14_336, 32_768, window=4096)
MIXTRAL_8X7B = mixtral.Config(32_000, 4096, 32, 32, 8, 128, 14_336, n_experts=8, top_k=2, max_positions=32_768)
GEMMA = gemma.Config(  # Gemma 2 2B, whose even layers see a window
    *(256_000, 2304, 26, 8, 4, 256, 9216, 256, 8192), window=4096, full_layers=tuple(range(1, 26, 2)), attention_softcap=50.0
)
STORIES260K = llama.Config(512, 64, 5, 8, 4, 8, 172, 512, tied=True)

SMALL = {
    "gpt2": gpt2.Config(vocab_size=11, d_model=6, n_layers=2, n_heads=3, max_positions=16, d_ff=5),
    "llama": llama.Config(11, 6, 2, 4, 2, 4, 5, 16),
    "llama, tied": llama.Config(11, 6, 3, 2, 1, 2, 9, 16, tied=True),
    "llama, windowed": llama.Config(11, 6, 3, 2, 1, 2, 9, 16, window=4, full_layers=(1,)),
}
WIDE = {
    "gpt2": gpt2.Config(vocab_size=64, d_model=128, n_layers=4, n_heads=2, max_positions=256, d_ff=512),
    "llama": llama.Config(64, 128, 4, 4, 2, 32, 344, 256),
    "mixtral": mixtral.Config(64, 128, 4, 4, 2, 32, 200, n_experts=4, top_k=2, max_positions=256),
}


def module_of(name):
    return architecture(name.partition(",")[0])


# Published figures


def test_gpt2_needs_the_flops_that_nanogpt_counts():
    """nanoGPT's notebook transformer_sizing: the model without biases, one text of 1024 tokens."""
    shapes = gpt2.parameter_shapes(GPT2)
    assert sum(np.prod(s) for name, s in shapes.items() if not name.endswith("bias")) == 124_337_664
    flops = accounting.forward_flops(gpt2, GPT2, 1024)
    assert 1024 * flops.total == 291_648_307_200
    assert 1024 * flops.training == 874_944_921_600


@pytest.mark.parametrize(
    ("module", "config", "dtype", "published"),
    [
        (gpt2, GPT2, "float32", 73_728),
        (llama, LLAMA_2_7B, "float16", 524_288),
        (llama, LLAMA_2_70B, "float16", 327_680),
        (llama, MISTRAL_7B, "bfloat16", 131_072),
        (mixtral, MIXTRAL_8X7B, "bfloat16", 131_072),
        (gemma, GEMMA, "bfloat16", 106_496),
        (llama, STORIES260K, "float32", 1_280),
    ],
)
def test_a_tokens_keys_and_values_take_the_published_bytes(module, config, dtype, published):
    assert accounting.cache_bytes(module, config, 1, dtype) == published
    assert accounting.cache_bytes(module, config, 1000, dtype) == 1000 * published


def test_parameters_are_counted_in_their_parts():
    assert accounting.parameters(gpt2, GPT2) == (124_439_808, 124_439_808, 50_257 * 768 + 1024 * 768, 0)
    assert accounting.parameters(gpt2, GPT2).non_embedding == 85_056_000
    ours = accounting.parameters(llama, LLAMA_2_7B)
    assert ours == (6_738_415_616, 6_738_415_616, 131_072_000, 131_072_000)
    assert ours.non_embedding == 6_476_271_616
    ours = accounting.parameters(mixtral, MIXTRAL_8X7B)
    assert ours[:2] == (46_702_792_704, 12_879_925_248)
    assert ours.active_non_embedding == 12_879_925_248 - 2 * 131_072_000


def test_bert_has_no_cache_and_its_pooler_costs_nothing_at_a_position():
    config = bert.SIZES["bert-base"]
    assert accounting.parameters(bert, config).total == 109_482_240
    assert accounting.cache_bytes(bert, config, 512, "float32") == 0
    flops = accounting.forward_flops(bert, config, 512)
    assert flops == accounting.forward_flops(bert, replace(config, pooler=False), 512)
    assert flops.blocks == 2 * 12 * 12 * 768**2
    assert flops.head == 0
    assert accounting.forward_flops(bert, replace(config, head=True), 512).head == 2 * 768 * 30_522


def test_kaplans_rule_holds_for_gpt3_and_its_training_took_the_published_flops():
    """Brown et al. 2020, table D.1: 3.14e23 FLOPs for 300 billion tokens, by 6 FLOPs for each parameter and token."""
    config = gpt2.SIZES["gpt3-175b"]
    N = accounting.parameters(gpt2, config)
    assert accounting.training_flops_by_rule(N.total, 300 * 10**9) == pytest.approx(3.14e23, rel=2e-3)
    ours, kaplans = accounting.forward_flops(gpt2, config, 2048), accounting.kaplan_flops(gpt2, config, 2048)
    biases = sum(np.prod(s) for name, s in gpt2.parameter_shapes(config).items() if len(s) == 1)
    assert kaplans == 2 * N.non_embedding + 2 * 96 * 2048 * 12_288
    assert ours.blocks == 2 * (N.non_embedding - biases)
    assert ours.attention == 4 * 96 * 2048 * 12_288, "Kaplan's mask leaves half of it"


# Counted while a model runs


@pytest.fixture
def counted(monkeypatch):
    """A list that gets the FLOPs of every matrix product of NumPy, by the readable bodies."""
    numpy, flops = load("numpy"), []
    plain = numpy.xp.matmul

    def counting(x1, x2):
        y = plain(x1, x2)
        flops.append(2 * y.size * x1.shape[-1])
        return y

    monkeypatch.setattr(numpy.xp, "matmul", counting)
    with kernels(numpy, {}):
        yield flops


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("T", [1, 4])
def test_the_flops_of_a_text_are_those_of_its_products(name, T, counted):
    module, config = module_of(name), SMALL[name]
    model = Model.initialise(name.partition(",")[0], config, 0, "numpy")
    tokens = np.zeros((1, T), dtype=np.int32)
    module.forward(model.params, tokens, config)
    assert sum(counted) == T * accounting.forward_flops(module, config, T).total


@pytest.mark.parametrize("name", SMALL)
def test_training_takes_three_times_the_flops_of_forward(name, counted):
    config = SMALL[name]
    model = Model.initialise(name.partition(",")[0], config, 0, "numpy")
    model.gradients([[1, 2, 3, 4]], [[2, 3, 4, 5]])
    assert sum(counted) == 4 * accounting.forward_flops(module_of(name), config, 4).training


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama, tied"])
def test_decoding_takes_the_flops_of_its_context(name, counted):
    config = SMALL[name]
    model = Model.initialise(name.partition(",")[0], config, 0, "numpy")
    _, cache = prefill(model, np.zeros((1, 6), dtype=np.int32), new_cache(model, 1, 7))
    counted.clear()
    prefill(model, np.zeros((1, 1), dtype=np.int32), cache)
    assert sum(counted) == accounting.forward_flops(module_of(name), config, 7).total


def test_a_window_bounds_the_attention_and_what_is_read_of_the_cache():
    narrow = accounting.forward_flops(llama, MISTRAL_7B, 32_768)
    assert narrow == accounting.forward_flops(llama, MISTRAL_7B, 4096)
    assert accounting.seen_cache_bytes(llama, MISTRAL_7B, 32_768, "float16") == 4096 * 131_072
    assert accounting.seen_cache_bytes(llama, MISTRAL_7B, 1000, "float16") == 1000 * 131_072
    assert accounting.cache_bytes(llama, MISTRAL_7B, 32_768, "float16") == 32_768 * 131_072
    assert accounting.seen_cache_bytes(gemma, GEMMA, 8192, "bfloat16") == (4096 + 8192) // 2 * 106_496
    config = SMALL["llama, windowed"]
    assert accounting.windows(config) == (4, None, 4)
    assert accounting.seen_cache_bytes(llama, config, 10, "float32") == 4 * 2 * 2 * (4 + 10 + 4)


def test_an_expert_that_is_not_chosen_costs_nothing():
    more = mixtral.Config(32_000, 4096, 32, 32, 8, 128, 14_336, n_experts=16, top_k=2, max_positions=32_768)
    ours, theirs = (accounting.forward_flops(mixtral, c, 100) for c in (MIXTRAL_8X7B, more))
    assert theirs.blocks - ours.blocks == 32 * 2 * 8 * 4096, "eight more columns of the router"
    assert accounting.parameters(mixtral, more).total > 1.9 * accounting.parameters(mixtral, MIXTRAL_8X7B).total


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "gemma"])
def test_torch_counts_the_same_flops_in_transformers_models(name):
    """Of full size: torch counts on tensors without numbers."""
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    module, config = {
        "gpt2": (gpt2, GPT2),
        "llama": (llama, LLAMA_2_70B),
        "bert": (bert, replace(bert.SIZES["bert-base"], head=True, pooler=False)),
        "gemma": (gemma, GEMMA),
    }[name]
    fields = module.hugging_face_config(config)
    theirs = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    T = 96
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        auto = transformers.AutoModelForMaskedLM if name == "bert" else transformers.AutoModelForCausalLM
        auto.from_config(theirs, attn_implementation="eager")(torch.zeros((1, T), dtype=torch.int64))
    assert counter.get_total_flops() == T * accounting.forward_flops(module, config, T).total


@pytest.mark.oracle
def test_torch_counts_the_same_flops_in_transformers_mixtral():
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    config = mixtral.Config(11, 8, 2, 4, 2, 4, 5, n_experts=5, top_k=2, max_positions=16)
    fields = mixtral.hugging_face_config(config)
    theirs = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation="eager", experts_implementation="eager")
    T = 7
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros((1, T), dtype=torch.int64))
    assert counter.get_total_flops() == T * accounting.forward_flops(mixtral, config, T).total


# Measured


@pytest.mark.parametrize("name", [*SMALL, "mixtral"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_cache_has_the_bytes_that_are_counted(name, dtype):
    config, numpy = SMALL.get(name, WIDE["mixtral"]), load("numpy").xp
    module = module_of(name)
    params = {n: v.astype(dtype) for n, v in module.initialise(config, 0).items()}
    cache = new_cache(Model(module, config, params), 1, 13)
    assert n_bytes(cache) == accounting.cache_bytes(module, config, 13, dtype)
    assert cache.layers[0].spare[0][0].dtype == getattr(numpy, dtype)


@pytest.mark.parametrize("name", WIDE)
def test_a_prefill_needs_the_memory_that_is_estimated_to_a_factor_of_one_and_a_half(name):
    config, T = WIDE[name], 192
    model = Model.initialise(name, config, 0, "numpy")
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, T)).astype(np.int32)
    prefill(model, tokens, new_cache(model, 1, T))
    tracemalloc.start()
    try:
        prefill(model, tokens, new_cache(model, 1, T))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimated = accounting.prefill_memory(module_of(name), config, T, "float32")
    assert estimated.weights == 4 * model.n_parameters
    assert 1 / 1.5 < peak / (estimated.cache + estimated.working) < 1.5


@pytest.mark.parametrize("name", WIDE)
def test_forward_keeps_the_activations_that_are_estimated_to_a_factor_of_one_and_a_half(name):
    config, T = WIDE[name], 192
    model = Model.initialise(name, config, 0, "numpy")
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, T)).astype(np.int32)
    tracemalloc.start()
    try:
        output = model.architecture.forward(model.params, tokens, config)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    estimated = accounting.training_memory(module_of(name), config, T, "float32")
    assert 1 / 1.5 < (kept + output.logits.nbytes) / estimated.activations < 1.5
    assert estimated[:3] == (4 * model.n_parameters, 4 * model.n_parameters, 8 * model.n_parameters)


def test_training_in_halves_keeps_its_weights_in_float32_too():
    N = accounting.parameters(gpt2, GPT2).total
    assert accounting.training_memory(gpt2, GPT2, 1, "bfloat16")[:3] == (6 * N, 4 * N, 8 * N)
    assert accounting.training_memory(gpt2, GPT2, 1, "float64")[:3] == (8 * N, 8 * N, 16 * N)


def test_decoding_needs_the_whole_cache_and_hardly_any_working_memory():
    memory = accounting.decoding_memory(llama, LLAMA_2_7B, 4096, "float16")
    assert memory[:2] == (2 * 6_738_415_616, 4096 * 524_288)
    assert memory.working < 2e6
    assert memory.total == sum(memory)


# The specification


@given(st.integers(1, 9), st.sampled_from([None, 1, 3]), st.booleans())
def test_the_accounts_definitions_agree_with_refllm(context, window, tied):
    config = llama.Config(7, 6, 3, 4, 2, 4, 5, 16, tied=tied, window=window, full_layers=() if window is None else (2,))
    spec, shapes, windows = definitions(), llama.parameter_shapes(config), list(accounting.windows(config))
    matrices = [s for name, s in shapes.items() if len(s) == 2 and name not in ("embedding", "lm_head")]
    assert spec["blocks_flops"]([list(s) for s in matrices]) == accounting.forward_flops(llama, config, context).blocks
    assert spec["attention_flops"](4, 4, windows, context) == accounting.forward_flops(llama, config, context).attention
    assert spec["seen_cache_bytes"](2, 4, windows, context, 2) == accounting.seen_cache_bytes(llama, config, context, "float16")


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype='int3' is not known; choose one of float64"):
        accounting.cache_bytes(gpt2, GPT2, 1, "int3")
