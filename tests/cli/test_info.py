"""`refllm info`, as a table and as JSON."""

import json

import pytest

from refllm.cli.info import amount


def test_the_figures_of_gpt2_are_the_published_ones(refllm):
    result = refllm("info", "gpt2", "--json")
    assert result.status == 0
    about = json.loads(result.out)
    assert (about["architecture"], about["context"], about["dtype"]) == ("gpt2", 1024, "float32")
    assert about["parameters"]["total"] == about["parameters"]["active"] == 124_439_808
    assert about["parameters"]["non_embedding"] == 85_056_000
    assert 1024 * about["flops_per_token"]["forward"] == 291_648_307_200
    assert about["flops_per_token"]["training"] == 3 * about["flops_per_token"]["forward"]
    assert about["flops_per_token"]["6N"] == 6 * 124_439_808
    assert about["cache_bytes_per_token"] == 73_728
    assert about["cache_bytes"] == about["decoding_memory"]["cache"] == 1024 * 73_728
    assert about["prefill_memory"]["weights"] == 4 * 124_439_808
    for memory in ("prefill_memory", "decoding_memory", "training_memory"):
        assert about[memory].pop("total") == sum(about[memory].values())


def test_the_table_tells_the_same(refllm):
    result = refllm("info", "gpt2")
    assert result.status == 0
    for words in ("124,439,808", "85,056,000", "285 M", "73,728 B", "75.5 MB", "498 MB", "at 1,024 positions", "float32"):
        assert words in result.out


def test_context_and_dtype_are_those_asked_for(refllm):
    about = json.loads(refllm("info", "gpt2", "--json", "--context", "100", "--dtype", "bfloat16").out)
    assert (about["cache_bytes_per_token"], about["cache_bytes"]) == (36_864, 3_686_400)
    assert about["prefill_memory"]["weights"] == 2 * 124_439_808
    table = refllm("info", "gpt2", "--context", "100", "--dtype", "bfloat16").out
    assert "36,864 B" in table
    assert "at 100 positions, computed in bfloat16" in table


def test_a_run_is_told_with_its_tokenizer_and_its_stored_dtype(refllm, finished_run):
    about = json.loads(refllm("info", finished_run, "--json").out)
    assert about["kind"] == "Hugging Face folder"
    assert about["stored"][0]["dtype"] == "F32"
    assert about["stored"][0]["numbers"] == about["parameters"]["total"]
    assert about["tokenizer"]["vocab_size"] == about["config"]["vocab_size"]
    table = refllm("info", finished_run).out
    assert "ByteLevelBPE" in table
    assert "F32" in table


def test_the_dtype_is_that_of_the_file_if_no_other_is_asked_for(refllm, finished_run, tmp_path):
    from refllm import checkpoints

    checkpoints.save(tmp_path, checkpoints.load(finished_run), "bfloat16")
    about = json.loads(refllm("info", tmp_path, "--json").out)
    assert (about["dtype"], about["stored"][0]["dtype"]) == ("bfloat16", "BF16")
    assert about["prefill_memory"]["weights"] == 2 * about["parameters"]["total"]
    assert json.loads(refllm("info", tmp_path, "--json", "--dtype", "float64").out)["dtype"] == "float64"


def test_what_a_mixture_of_experts_uses_stands_beside_what_it_has(refllm, tmp_path):
    from refllm.models import mixtral

    config = mixtral.Config(32_000, 4096, 32, 32, 8, 128, 14_336, n_experts=8, top_k=2, max_positions=32_768, window=4096)
    (tmp_path / "config.json").write_text(json.dumps(mixtral.hugging_face_config(config)))
    table = refllm("info", tmp_path, "--dtype", "float16").out
    for words in ("46,702,792,704", "12,879,925,248", "131,072 B", "4.3 GB  of them 537 MB within the windows"):
        assert words in table


def test_an_encoder_has_no_cache_and_does_not_decode(refllm):
    about = json.loads(refllm("info", "bert-base", "--json").out)
    assert about["parameters"]["total"] == 109_482_240
    assert about["decoding_memory"] is None
    assert about["cache_bytes"] == 0
    table = refllm("info", "bert-base").out
    assert "cache" not in table
    assert "decoding" not in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-model"], "no-such-model is neither there nor the name of a published size"),
        (["gpt2", "--context", "1025"], "--context 1025 cannot be; the model reads 1 … 1024 positions"),
        (["gpt2", "--context", "0"], "--context 0 cannot be"),
        (["gpt2", "--dtype", "int3"], "dtype='int3' is not known; choose one of float64, float32"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_sentence(refllm, arguments, says):
    result = refllm("info", *arguments)
    assert result.status == 2
    assert says in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (284_812_800, "285 M"), (999_600_000, "1 G"), (1.474e12, "1.47 T")],
)
def test_an_amount_has_three_digits_and_a_unit(number, said):
    assert amount(number) == said
