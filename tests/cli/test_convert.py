"""`refllm convert` between a Hugging Face folder and llama2.c's file, there and back."""

import numpy as np
import pytest

import refllm as library
from refllm.checkpoints import chat_files, tensor_file


@pytest.fixture(scope="module")
def stories(data):
    return data / "stories260K.bin"


def test_a_checkpoint_goes_to_a_folder_and_back(refllm, stories, tmp_path):
    folder, back = tmp_path / "folder", tmp_path / "back.bin"
    result = refllm("convert", stories, folder)
    assert (result.status, result.err) == (0, "")
    assert result.out == f"  {folder}: llama, 260,032 parameters in float32\n"
    assert refllm("convert", folder, back).status == 0
    kept = 4 * (7 + 260_032)  # the rest are rotary angles
    assert back.read_bytes()[:kept] == stories.read_bytes()[:kept]
    assert back.stat().st_size == stories.stat().st_size


def test_a_folder_keeps_its_dtype_and_its_tokenizer_and_is_cut_into_files(refllm, finished_run, tmp_path):
    small, again = tmp_path / "small", tmp_path / "again"
    assert refllm("convert", finished_run, small, "--dtype", "bfloat16", "--max-shard-size", "4KB").status == 0
    assert (small / "model.safetensors.index.json").is_file()
    assert not (small / "model.safetensors").exists()
    result = refllm("convert", small, again)
    assert result.out.endswith("parameters in bfloat16, with its tokenizer\n")
    assert {t.dtype for t in tensor_file.read(again / "model.safetensors").values()} == {"BF16"}
    model, first = library.load(again), library.load(finished_run)
    assert model.tokenizer.encode("the cat") == first.tokenizer.encode("the cat")
    for name, p in first.params.items():
        np.testing.assert_array_equal(model.params[name], tensor_file.from_bfloat16(tensor_file.to_bfloat16(p)))


def test_chat_templates_and_what_ends_an_answer_come_along(refllm, copied_run, tmp_path):
    (copied_run / "chat_template.jinja").write_text("{{ messages }}")
    (copied_run / "additional_chat_templates").mkdir()
    (copied_run / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (copied_run / "generation_config.json").write_text('{"eos_token_id": [3, 7]}')
    assert refllm("convert", copied_run, tmp_path / "new").status == 0
    tokenizer = library.load(copied_run).tokenizer
    assert chat_files.read(tmp_path / "new", tokenizer) == chat_files.read(copied_run, tokenizer)
    assert chat_files.read(tmp_path / "new", tokenizer).templates == {"default": "{{ messages }}", "tools": "{{ tools }}"}
    assert chat_files.read(tmp_path / "new", tokenizer).ends >= {3, 7}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{stories}", "{tmp}/x", "--to", "tf"], "--to tf: what can be written is hf and llama2c."),
        (["{stories}", "{tmp}/x", "--dtype", "int8"], "dtype='int8' cannot be stored; choose one of float16, bfloat16,"),
        (["{stories}", "{tmp}/x.bin", "--dtype", "float16"], "--dtype float16: a .bin of llama2.c holds float32; leave the"),
        (["{stories}", "{tmp}/x", "--max-shard-size", "5XB"], "'5XB' is no size of a file; write bytes, or a number with KB"),
        (["{stories}", "{stories}"], "stories260K.bin is the source itself; name another target."),
        (["{stories}", "{stories}", "--to", "hf"], "stories260K.bin is a file; --to hf needs the name of another."),
        (["{stories}", "{tmp}", "--to", "llama2c"], "is a folder; --to llama2c needs the name of another."),
        (["{stories}", "{tmp}/no/x"], "/no is not there; make it first."),
        (["{tmp}/nothing", "{tmp}/x"], "nothing does not exist; a model is a folder with config.json and model.safetensors"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_sentence(refllm, stories, tmp_path, arguments, sentence):
    result = refllm("convert", *(a.format(stories=stories, tmp=tmp_path) for a in arguments))
    assert (result.status, result.out) == (2, "")
    assert sentence in result.err
    assert not (tmp_path / "x").exists()


def test_a_model_that_does_not_fit_the_target_leaves_the_old_file_whole(refllm, finished_run, tmp_path):
    old = tmp_path / "old.bin"
    old.write_bytes(b"old")
    result = refllm("convert", finished_run, old)
    if result.status == 0:  # the run's architecture is one that llama2.c has
        assert library.load(old).n_parameters == library.load(finished_run).n_parameters
    else:
        assert "llama2.c has no model like" in result.err
        assert old.read_bytes() == b"old"
