"""Train, resume and generate, from the command line, with right inputs and wrong ones."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SMALL = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--context", "16", "--batch", "2", "--vocab-size", "280"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(refllm, text, folder, *more):
    return refllm("train", "--data", text, "--out", folder, *SMALL, *more)


def refused(result, *says):
    assert result.status == 2, result
    assert result.err.startswith("refllm: ")
    assert result.err.count("\n") == 1, "one line"
    assert "Traceback" not in result.err
    for words in says:
        assert words in result.err


# -- what works ---------------------------------------------------------------------------------------------------------


def test_training_leaves_a_whole_run_folder(finished_run):
    present = {path.name for path in finished_run.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.toml", "metrics.jsonl", "loss.png"} <= present
    assert {"training_state.safetensors", "best"} <= present
    assert [line["step"] for line in metrics(finished_run)] == [1, 2, 3, 4, 5, 6]


def test_training_tells_both_losses_in_both_units_and_what_to_beat(refllm, text, tmp_path):
    result = train(refllm, text, tmp_path / "run", "--steps", "4", "--evaluate-every", "2")
    assert result.status == 0
    line = [line for line in metrics(tmp_path / "run") if "held_out_loss" in line][-1]
    assert f"{line['held_out_loss']:.3f}" in result.out
    assert f"{line['bits_per_byte']:.3f}" in result.out
    for words in ("Kneser-Ney trigram", "nats/token", "bits/byte", "tokens/s", "left", "refllm generate"):
        assert words in result.out


def test_a_stopped_run_resumes_to_the_same_weights(refllm, text, tmp_path, finished_run, monkeypatch):
    from refllm.training import loop

    plain = loop.train_step

    def stopping(state, *rest):
        if state.step == 5:
            raise KeyboardInterrupt
        return plain(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopping)
        stopped = train(refllm, text, tmp_path / "run", "--steps", "6", "--checkpoint-every", "3")
    assert stopped.status == 130
    assert "Stopped at step 4; the checkpoint of step 3 is whole" in stopped.out
    assert f"refllm resume {tmp_path / 'run'}" in stopped.out
    resumed = refllm("resume", tmp_path / "run")
    assert resumed.status == 0
    assert "Going on after step 3" in resumed.out
    for name, tensor in weights(finished_run).items():
        np.testing.assert_array_equal(weights(tmp_path / "run")[name], tensor)


def test_control_c_stops_a_real_process_with_a_way_to_go_on(text, tmp_path):
    arguments = ["train", "--data", str(text), "--out", str(tmp_path / "run"), *SMALL, "--steps", "100000"]
    code = f"import sys; sys.argv[1:] = {[*arguments, '--checkpoint-every', '5']!r}; from refllm.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    state, deadline = tmp_path / "run" / "training_state.safetensors", time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "is whole. Go on with refllm resume" in out
    assert "Traceback" not in err


def test_a_complete_run_has_nothing_to_resume(refllm, finished_run):
    before = (finished_run / "model.safetensors").stat().st_mtime_ns
    result = refllm("resume", finished_run)
    assert result.status == 0
    assert "all 6 steps are done" in result.out
    assert (finished_run / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_file_trains_the_same_weights(refllm, finished_run, tmp_path):
    result = refllm("train", "--config", finished_run / "run.toml", "--out", tmp_path / "again")
    assert result.status == 0
    for name, tensor in weights(finished_run).items():
        np.testing.assert_array_equal(weights(tmp_path / "again")[name], tensor)


def test_a_gpt2_trains_too_in_a_folder_of_any_name(refllm, text, tmp_path):
    folder = tmp_path / "a run [bold]"
    result = train(refllm, text, folder, "--steps", "2", "--architecture", "gpt2")
    assert result.status == 0
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"
    assert "".join(result.out.split()).count("arun[bold]") == 3, "in what is trained, what there is and what may come next"


def test_a_bert_trains_too_and_is_not_asked_to_continue_a_text(refllm, text, tmp_path):
    result = refllm("train", "--data", text, "--out", tmp_path / "run", "--architecture", "bert", *SMALL, "--steps", "4")
    assert result.status == 0, result.err
    assert "To beat" not in result.out  # the trigram is judged on the next token, this model on hidden ones
    assert "refllm generate" not in result.out
    assert "refllm fill" in result.out
    assert "<|mask|>" in result.out
    refused = refllm("generate", tmp_path / "run", "the cat")
    assert (refused.status, refused.out) == (2, "")
    assert "bert is a masked model: it fills in hidden tokens (refllm fill) and does not continue a text." in refused.err
    refused = refllm("train", "--data", text, "--architecture", "bert", *SMALL, "--objective", "causal", "--out", tmp_path / "no")
    assert (refused.status, (tmp_path / "no").exists()) == (2, False)
    assert "training.objective='causal' does not fit bert" in refused.err


def test_generate_writes_the_text_to_stdout_and_the_times_to_stderr(refllm, finished_run):
    result = refllm("generate", finished_run, "the cat", "--max-tokens", "5", "--seed", "3")
    assert result.status == 0
    assert result.out.startswith("the cat")
    assert "first token after" in result.err
    assert "decode   4 tokens" in result.err
    assert "ms each" in result.err
    assert refllm("generate", finished_run, "the cat", "--max-tokens", "5", "--seed", "3").out == result.out
    others = {refllm("generate", finished_run, "the cat", "--max-tokens", "5", "--seed", s).out for s in range(4, 10)}
    assert len(others) > 1


def test_generate_does_not_read_markup_in_what_a_model_writes(refllm, finished_run):
    prompt = "[b]a[/x]:b:"
    assert refllm("generate", finished_run, prompt, "--max-tokens", "1").out.startswith(prompt)


def test_greedy_text_is_the_same_on_every_backend(refllm, finished_run, backend):
    numpy = refllm("generate", finished_run, "the cat", "--temperature", "0", "--backend", "numpy")
    other = refllm("generate", finished_run, "the cat", "--temperature", "0", "--backend", backend.name)
    assert other.out == numpy.out, "this text has no near-tie; decoding's own tests hold the margins"


def test_backends_tells_what_each_is_and_how_to_get_those_missing(refllm, monkeypatch):
    from refllm.array_api import registry

    missing = registry.BUILT_IN["cupy"]._replace(library="no_such_library")
    monkeypatch.setitem(registry.BUILT_IN, "cupy", missing)
    monkeypatch.setattr(registry, "_LOADED", {n: b for n, b in registry._LOADED.items() if n != "cupy"})
    result = refllm("backends")
    assert result.status == 0
    assert "numpy" in result.out
    assert np.__version__ in result.out
    assert missing.install in " ".join(result.out.split())


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_a_missing_text_is_refused(refllm, tmp_path):
    refused(train(refllm, tmp_path / "no.txt", tmp_path / "run"), "no.txt does not exist")
    assert not (tmp_path / "run").exists()


def test_no_text_at_all_is_refused(refllm):
    refused(refllm("train"), "needs a text: give --data FILE")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\xff\xfe\x00", "is not UTF-8 text"), (b"a short text\n" * 3, "needs at least 17")],
)
def test_a_text_that_will_not_do_is_refused(refllm, tmp_path, content, says):
    (tmp_path / "text.txt").write_bytes(content)
    refused(train(refllm, tmp_path / "text.txt", tmp_path / "run"), says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [("generate", "no", "x"), ("resume", "no"), ("train", "--config", "no.toml")])
def test_a_missing_run_is_refused(refllm, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    refused(refllm(*arguments), "no")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_run_is_not_written_over(refllm, text, finished_run):
    before = weights(finished_run)
    refused(train(refllm, text, finished_run), "holds a run already", "refllm resume")
    for name, tensor in weights(finished_run).items():
        np.testing.assert_array_equal(before[name], tensor)


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoint(refllm, copied_run):
    settings = (copied_run / "run.toml").read_text().replace("steps = 6", "steps = 12")
    settings = settings.replace("learning_rate = 0.003", "learning_rate = 1e30")
    (copied_run / "run.toml").write_text(settings)
    before = weights(copied_run)
    refused(refllm("resume", copied_run), "training diverged", "The checkpoint of step 6 is whole", "learning_rate")
    for name, tensor in weights(copied_run).items():
        np.testing.assert_array_equal(before[name], tensor)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_truncated_checkpoint_is_refused(refllm, copied_run, name):
    content = (copied_run / name).read_bytes()
    (copied_run / name).write_bytes(content[: len(content) // 2])
    result = refllm("generate", copied_run, "the cat")
    if name == "tokenizer.json":  # the weights are whole: the model loads, and says what it lacks
        assert result.status == 2
        note, error = result.err.splitlines()
        assert note.startswith("refllm: the model in")
        assert "tokenizer.json is not whole JSON" in note
        assert "brings no tokenizer; name one with --tokenizer" in error
    else:
        refused(result, name)


def test_a_truncated_training_state_is_refused_and_left_alone(refllm, copied_run):
    path = copied_run / "training_state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(refllm("resume", copied_run), "training_state.safetensors")
    assert path.stat().st_size == 1000


def test_a_tensor_of_the_wrong_shape_is_refused_with_both_shapes(refllm, copied_run):
    tensors = weights(copied_run)
    name = "model.layers.0.self_attn.k_proj.weight"
    save_file(tensors | {name: np.ascontiguousarray(tensors[name][:8])}, copied_run / "model.safetensors")
    refused(refllm("generate", copied_run, "the cat"), "layers.0.attention.k is (16, 8)", "needs (16, 16)")


def test_an_unknown_backend_is_refused(refllm, text, tmp_path, finished_run, monkeypatch):
    says = ("'tpu' is not a backend", "choose one of")
    refused(train(refllm, text, tmp_path / "run", "--backend", "tpu"), *says)
    refused(refllm("generate", finished_run, "x", "--backend", "tpu"), *says)
    monkeypatch.setenv("REFLLM_BACKEND", "tpu")
    refused(refllm("generate", finished_run, "x"), "REFLLM_BACKEND='tpu' is not a backend")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["", "--max-tokens", "3"], "the prompt is empty"),
        (["the", "--max-tokens", "0"], "asks for no token"),
        (["the", "--max-tokens", "99"], "leave a prompt no room in the model's context of 16"),
        (["the cat " * 30], "do not fit the model's context of 16"),
        (["the", "--temperature", "-1"], "temperature=-1.0"),
        (["the", "--top-p", "0"], "top_p=0.0"),
        (["the", "--top-k", "0"], "top_k=0"),
    ],
)
def test_a_wrong_prompt_or_sampler_is_refused(refllm, finished_run, arguments, says):
    refused(refllm("generate", finished_run, *arguments), says)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system does not limit the size of files")
def test_a_full_disk_loses_nothing(refllm, text, tmp_path, finished_run):
    """A file may grow to a limit here, as on a disk that fills while the first checkpoint is written."""
    folder = tmp_path / "run"
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (finished_run / "training_state.safetensors").stat().st_size - 1
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        full = train(refllm, text, folder, "--steps", "6", "--checkpoint-every", "3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        signal.signal(signal.SIGXFSZ, before)
    refused(full, "could not be written", "Make room", f"refllm resume {folder}")
    assert not [p for p in folder.rglob("*") if p.name.endswith((".tmp", "~"))], "no torn file stays"
    assert refllm("resume", folder).status == 0
    for name, tensor in weights(finished_run).items():
        np.testing.assert_array_equal(weights(folder)[name], tensor)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(refllm, text, tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused(train(refllm, text, tmp_path / "run"), "permission denied")
    finally:
        tmp_path.chmod(0o700)


def test_a_run_folder_is_a_hugging_face_folder(finished_run, tmp_path):
    """What a checkpoint needs elsewhere is in it: nothing else of the run."""
    from refllm import checkpoints

    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(finished_run / name, tmp_path)
    model = checkpoints.load(tmp_path)
    assert model.tokenizer.decode(model.tokenizer.encode("the süß 🌍")) == "the süß 🌍"


@pytest.mark.oracle
def test_transformers_opens_a_run_folder_and_gives_its_logits_and_ids(finished_run):
    """In float32, as anyone opens it; tests/checkpoints holds the logits to 1e-12 in float64."""
    import torch
    import transformers

    from refllm import checkpoints

    model = checkpoints.load(finished_run)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(finished_run)
    text = "the süß 🌍"
    ids = model.tokenizer.encode(text)[:16]
    assert transformers.AutoTokenizer.from_pretrained(finished_run)(text)["input_ids"][:16] == ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    sums = 8 * 16  # products of at most 16 terms stand eight in a row between a token and its logits
    assert np.all(np.abs(model.logits([ids]) - expected) <= np.finfo(np.float32).eps * sums * np.max(np.abs(expected)))
