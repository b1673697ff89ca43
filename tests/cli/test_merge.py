"""`refllm merge`: a whole model of an adapter, wherever its model lies now."""

import shutil

import numpy as np
import pytest

import refllm as library
from refllm.checkpoints import adapter
from refllm.checkpoints.hugging_face import read_config
from refllm.training.config import LoraConfig
from refllm.training.lora import adapt

TOKENS = np.arange(12)[None, :]


@pytest.fixture
def adapted(finished_run, tmp_path):
    """A folder with a random adapter of a copied model, which lies beside it."""
    shutil.copytree(finished_run, tmp_path / "base")
    base, lora = library.load(tmp_path / "base", "numpy"), LoraConfig(2, ("q", "ffn.down"))
    shapes = adapt(base.architecture, base.config, base.params, lora).parameter_shapes(base.config)
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape, dtype=np.float32) / 4 for name, shape in shapes.items()}
    adapter.write(tmp_path / "adapter", base, params, lora, str(tmp_path / "base"))
    return tmp_path / "adapter"


def test_a_merged_model_needs_neither_the_adapter_nor_its_model(refllm, adapted, tmp_path):
    expected = library.load(adapted, "numpy")
    result = refllm("merge", adapted, tmp_path / "merged")
    assert result.status == 0, result.err
    shutil.rmtree(adapted)
    shutil.rmtree(tmp_path / "base")
    merged = library.load(tmp_path / "merged", "numpy")
    for name, values in merged.params.items():
        np.testing.assert_array_equal(values, expected.params[name])
    assert merged.tokenizer.encode("the cat") == expected.tokenizer.encode("the cat")
    assert f"{merged.n_parameters:,} parameters" in result.out


def test_the_model_is_named_where_it_lies_elsewhere_now(refllm, adapted, tmp_path):
    expected = library.load(adapted, "numpy").logits(TOKENS)
    (tmp_path / "base").rename(tmp_path / "moved")
    result = refllm("merge", adapted, tmp_path / "merged")
    assert (result.status, "base, which is not here; fetch that and name it: refllm merge --base MODEL." in result.err) == (
        2,
        True,
    )
    assert not (tmp_path / "merged").exists()
    assert refllm("merge", adapted, tmp_path / "merged", "--base", tmp_path / "moved").status == 0
    np.testing.assert_allclose(library.load(tmp_path / "merged", "numpy").logits(TOKENS), expected, rtol=1e-5, atol=1e-5)


def test_the_dtype_is_chosen(refllm, adapted, tmp_path):
    assert refllm("merge", adapted, tmp_path / "merged", "--dtype", "bfloat16").status == 0
    assert read_config(tmp_path / "merged")["dtype"] == "bfloat16"
    result = refllm("merge", adapted, tmp_path / "other", "--dtype", "int8")
    assert (result.status, "dtype='int8' cannot be stored" in result.err) == (2, True)


def test_merging_needs_an_adapter_and_a_free_folder(refllm, finished_run, adapted, tmp_path):
    result = refllm("merge", finished_run, tmp_path / "merged")
    assert (result.status, "refllm merge needs the folder of an adapter" in result.err) == (2, True)
    assert not (tmp_path / "merged").exists()
    result = refllm("merge", adapted, tmp_path / "base")
    assert (result.status, "base holds something already; choose another folder" in result.err) == (2, True)
