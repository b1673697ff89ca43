"""`refllm bench` times sides that compute the same thing, in turn, and says what it found; how fast anything is, no test says."""

import json
import mmap
import sys
from dataclasses import replace

import numpy as np
import pytest

from refllm.bench import calls, decoding_sides, floor, memory, report, shapes, training_sides
from refllm.bench.calls import Call
from refllm.bench.duel import Result, Side, check_agreement, duel, ratio, spread
from refllm.cli.bench_run import command
from refllm.cli.doors import run
from refllm.models import architecture

OURS = [Side("on", "refllm", {"REFLLM_KERNELS": "on"}), Side("off", "refllm", {"REFLLM_KERNELS": "off"})]


@pytest.mark.parametrize("work", ["train", "decode"])
def test_sides_are_timed_in_turn_each_in_a_process_of_its_own(work):
    options = {"calls": calls.plain(4, 8)} if work == "decode" else {}
    results = duel([replace(side, options=options) for side in OURS], work, "tiny", runs=3, threads=1)
    for result in results:
        assert set(result.seconds) == ({"step"} if work == "train" else {"prompt", "token"})
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in result.seconds.values())
        assert result.peak >= result.imported > 1_000_000
        assert result.versions["numpy"] == np.__version__
        assert result.versions["threads"] == 1


def test_a_side_that_dies_is_an_error_in_one_sentence(capfd):
    broken = Side("broken", "refllm", model={"n_heads": 3})  # 3 heads do not divide 8
    with pytest.raises(ValueError, match="the process that times broken ended with status 1; what it said is above"):
        duel([broken], "train", "tiny", 1, 1)
    assert "n_heads=3" in capfd.readouterr().err


def result(name="a", model=None, first=None, **seconds):
    return Result(Side(name, "refllm", model=model or {}), first or {}, seconds)


def test_sides_that_compute_something_else_are_refused():
    base, near, far = (result(n, first={"loss": x}) for n, x in (("base", 4.0), ("near", 4.0001), ("far", 4.1)))
    check_agreement([base, near])
    with pytest.raises(ValueError, match=r"far does not compute what base does: its loss in the first step is 4.1, not 4.0"):
        check_agreement([base, near, far])
    check_agreement([base, result("other", {"activation": "gelu_erf"}, {"loss": 4.1})])  # another model has its own base
    with pytest.raises(ValueError, match="tokens"):
        check_agreement([result("a", first={"tokens": [1, 2]}), result("b", first={"tokens": [3, 2]})])
    with pytest.raises(ValueError, match="nan"):
        check_agreement([base, result("b", first={"loss": float("nan")})])


def test_sides_that_choose_another_token_in_any_call_are_refused():
    """Later tokens may differ: by then rounding may have decided."""
    base, same = (result(n, first={"tokens": [1, t], "first_tokens": "1 7"}) for n, t in (("base", 2), ("same", 3)))
    check_agreement([base, same])
    with pytest.raises(
        ValueError, match=r"far does not compute what base does: its first_tokens in the first step is 1 8, not 1 7"
    ):
        check_agreement([base, result("far", first={"tokens": [1, 2], "first_tokens": "1 8"})])


def test_a_time_is_a_tokens_however_many_rows_share_a_step():
    shape = shapes.DECODING["tiny"]
    given = []

    def generate(prompts, n):
        given.append(prompts.shape)
        return list(range(n)), [5.0] + [1.0, 3.0] * ((n - 1) // 2)

    asked = [Call(1, 4, 3, "prompt", "token"), Call(4, 2, 5, "", "four"), Call(1, 6, 1, "six", "")]
    side = decoding_sides.timed_decoding(generate, shape, asked)
    assert side.first() == {"tokens": [0, 1, 2], "first_tokens": "0 0 0"}
    assert side.run() == {"prompt": 5.0, "token": 2.0, "four": 0.5, "six": 5.0}
    assert given == [(1, 4), (4, 2), (1, 6)] * 2
    assert calls.positions(asked) == 7


def test_floors_are_of_the_work_that_a_call_does(monkeypatch):
    """A token halfway through its call, shared out among the rows; every row's prompt."""
    monkeypatch.setattr(floor, "speeds", lambda model: floor.Speeds(bandwidth=1e3, matrix=1e9))  # so slow that bytes decide
    model = decoding_sides.our_model(shapes.DECODING["tiny"])
    asked = [Call(1, 4, 6, "prompt", "token"), Call(3, 4, 6, "three prompts", "token of three")]
    assert decoding_sides.floors(model, asked) == pytest.approx(
        {
            "floor in ms, prompt": floor.prefill_work(model, 4).bytes,
            "floor in ms, token": floor.token_work(model, 7).bytes,
            "floor in ms, three prompts": 3 * floor.prefill_work(model, 4).bytes,
            "floor in ms, token of three": floor.token_work(model, 7, 3).bytes / 3,
        }
    )


def test_figures_say_tokens_per_second_and_how_a_tokens_time_grows():
    asked = calls.at_contexts([128, 4096], 8) + calls.prompts([512])
    found = result(**{"token at 128": [1.0, 2.0, 4.0], "token at 4096": [3.0, 4.0, 5.0], "prompt of 512": [2.0, 2.0, 2.0]})
    assert calls.figures(asked, found) == {
        "tokens per second, token at 128": 0.5,
        "tokens per second, token at 4096": 0.25,
        "tokens per second, prompt of 512": 256.0,
        "token at 4096 ÷ token at 128": 2.0,  # the median of 3, 2 and 1.25
    }


def test_a_ratio_compares_the_runs_of_one_round():
    """A round in which both sides were slowed does not move it; ratios of medians would be 1.5 here."""
    slow, base = result(step=[2.0, 20.0, 3.0, 4.0, 5.0]), result(step=[1.0, 10.0, 1.5, 2.0, 2.5])
    assert ratio(slow, base, "step") == 2.0
    assert spread(slow, base, "step") == (2.0, 2.0)
    assert spread(result(step=[3.0]), result(step=[2.0]), "step") == (1.5, 1.5)


def test_a_record_says_everything_and_is_kept_in_one_file(tmp_path):
    ours, base = result("refllm", step=[1.0, 2.0, 3.0]), result("torch eager", step=[2.0, 4.0, 6.0])
    ours.versions, base.versions = {"numpy": "2.0", "threads": 2}, {"torch": "3.0", "threads": 2}
    ours.peak = 5_000_000
    found = report.record([ours, base], base, "refllm bench train", 2)
    assert found["versions"].items() >= {"numpy": "2.0", "torch": "3.0"}.items()
    assert [(row["side"], row["seconds"], row.get("ratio")) for row in found["rows"]] == [
        ("refllm", 2.0, 0.5),
        ("torch eager", 4.0, None),
    ]
    path = tmp_path / "results" / "timings.md"
    report.save(report.markdown(found), path)
    report.save(report.markdown(found), path)
    text = path.read_text()
    assert text.startswith(report.TITLE)
    assert text.count(report.TITLE) == 1
    assert text.count("`refllm bench train`\n\n") == 2
    assert text.count("| refllm | step | 2000 ms | 0.50 × torch eager | 0.50 – 0.50 | 5 MB |\n") == 2
    assert text.count("| torch eager | step | 4000 ms |  |  | 0 MB |\n") == 2


def test_the_peak_of_memory_sees_what_is_gone_and_can_be_forgotten():
    memory.forget_peak()
    before = memory.resident()
    with mmap.mmap(-1, 40 << 20) as pages:  # the system's own, which no allocator keeps
        pages[::4096] = bytes(len(pages) // 4096)
    assert memory.peak() >= before + (35 << 20)
    if sys.platform == "linux":
        memory.forget_peak()
        assert memory.peak() <= memory.resident() + 5_000_000


# --- the command


def test_the_command_prints_a_table(capsys):
    assert run(["bench", "train", "--config", "tiny", "--runs", "1", "--kernels", "both", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "refllm numpy, kernels on" in out
    assert "refllm numpy, kernels off" in out
    assert "loss" in out


def test_the_command_prints_json_and_appends_to_the_specs_results(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("refllm.conformance.specification.spec_folder", lambda: tmp_path)
    assert run(["bench", "decode", "--config", "tiny", "--runs", "1", "--json", "--save", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["timed"] for row in found["rows"]] == ["prompt", "token"]
    assert len(found["first_step"]["refllm numpy, kernels on"]["tokens"]) == shapes.DECODING["tiny"].tokens
    assert "| token |" in (tmp_path / "results" / "timings.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "timed"),
    [
        (["decode", "--contexts", "4,20"], ["token at 4", "token at 20"]),  # 20 are more than the shape's own positions
        (["decode", "--batch", "1,2"], ["token, 1 row", "token, 2 rows"]),
        (["prefill", "--tokens", "3,5"], ["prompt of 3", "prompt of 5"]),
    ],
)
def test_contexts_batches_and_prompts_are_timed_each_by_its_own_name(arguments, timed, capsys):
    assert run(["bench", *arguments, "--config", "tiny", "--runs", "1", "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["timed"] for row in found["rows"]] == timed
    figures = found["figures"]["refllm numpy, kernels on"]
    assert all(figures[f"{figure}, {name}"] > 0 for figure in ("tokens per second", "floor in ms") for name in timed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "huge"], "--config 'huge' is not a shape to measure; choose one of tiny, "),
        (["--kernels", "perhaps"], "--kernels 'perhaps' is neither on, off nor both."),
        (["--against", "jax"], "--against 'jax' is not a peer that refllm knows; there is torch"),
    ],
)
@pytest.mark.parametrize("work", ["train", "decode"])
def test_a_wrong_option_is_refused_in_one_sentence(work, arguments, sentence, capsys):
    assert run(["bench", work, *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_long_text_is_timed_in_stretches_and_kept(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("refllm.conformance.specification.spec_folder", lambda: tmp_path)
    arguments = ["bench", "steady", "--config", "tiny", "--tokens", "30", "--window", "6", "--stretch", "10", "--save"]
    assert run([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["tokens"] for row in rows] == [10, 20, 30]
    assert all(row["seconds"] > 0 and row["cache_bytes"] == rows[0]["cache_bytes"] for row in rows)
    assert run(arguments) == 0
    assert "30" in capsys.readouterr().out
    text = (tmp_path / "results" / "timings.md").read_text()
    assert text.startswith(report.TITLE)
    assert text.count("| tokens written | a token | peak | cache |\n") == 2
    assert run(["bench", "steady", "--config", "tiny", "--tokens", "5", "--stretch", "10"]) == 2
    assert "holds no stretch of 10 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["decode", "--contexts", "4,,8"], "--contexts '4,,8' is not a list of whole numbers from 1 up"),
        (["decode", "--batch", "0"], "--batch '0' is not a list of whole numbers from 1 up"),
        (["prefill", "--tokens", "many"], "--tokens 'many' is not a list of whole numbers from 1 up"),
        (["train", "--against", "transformers"], "--against 'transformers' is not a peer that refllm knows; there is torch."),
    ],
)
def test_a_wrong_list_or_peer_is_refused_in_one_sentence(arguments, sentence, capsys):
    assert run(["bench", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_without_torch_the_command_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr("refllm.cli.bench_run.find_spec", lambda name: None)
    assert run(["bench", "train", "--against", "torch"]) == 2
    assert "pip install 'refllm[bench]'" in capsys.readouterr().err


# --- the peer


@pytest.mark.oracle
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
def test_torchs_training_step_is_ours_step_after_step(activation):
    shape = shapes.TRAINING["tiny"]
    shape = shape._replace(config=type(shape.config)(**{**vars(shape.config), "activation": activation}))
    ours, torchs = training_sides.ours, training_sides.torchs
    sides = [ours(shape), torchs(shape), torchs(shape, fused=True)]
    for _ in range(5):
        ours, *theirs = (side.first() for side in sides)
        for other in theirs:
            assert abs(ours["loss"] - other["loss"]) <= 1e-4 * ours["loss"]
            assert abs(ours["gradient_norm"] - other["gradient_norm"]) <= 1e-4 * ours["gradient_norm"]


@pytest.mark.oracle
@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_torchs_llama_has_our_logits_with_a_cache_and_without(n_kv_heads):
    import torch

    from refllm.bench import torch_peer

    config = shapes.DECODING["tiny"].config
    config = type(config)(**{**vars(config), "n_kv_heads": n_kv_heads})
    llama = architecture("llama")
    params = {name: 20 * values for name, values in llama.initialise(config, 3).items()}  # far from uniform
    tokens = np.asarray([[3, 1, 4, 1, 5, 9]], dtype=np.int32)
    ours = llama.forward(params, tokens, config).logits[:, -1]
    model = torch_peer.build("llama", config, params)
    with torch.inference_mode():
        whole = model(torch.from_numpy(tokens), torch_peer.new_caches(config, 6), 0).numpy()
        caches = torch_peer.new_caches(config, 6)
        model(torch.from_numpy(tokens[:, :4]), caches, 0)
        model(torch.from_numpy(tokens[:, 4:5]), caches, 4)
        stepwise = model(torch.from_numpy(tokens[:, 5:]), caches, 5).numpy()
    size = np.max(np.abs(ours))
    assert np.all(np.abs(whole - ours) <= 1e-4 * size)
    assert np.all(np.abs(stepwise - ours) <= 1e-4 * size)


@pytest.mark.oracle
@pytest.mark.parametrize("library", ["torch", "transformers"])
@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_a_peer_writes_our_tokens_in_every_row(library, n_kv_heads, monkeypatch):
    """Weights are twenty-fold, so that no two tokens are nearly as likely. transformers never writes token 2."""
    shape = shapes.DECODING["tiny"]
    shape = shape._replace(config=type(shape.config)(**{**vars(shape.config), "n_kv_heads": n_kv_heads}))
    llama, initialise = shapes.llama, shapes.llama.initialise
    monkeypatch.setattr(llama, "initialise", lambda config, seed: {n: 20 * a for n, a in initialise(config, seed).items()})
    prompts = np.asarray([[3, 1, 4, 1], [5, 9, 2, 6], [16, 0, 11, 8]])
    for rows in (prompts[:1], prompts[1:]):
        ours, seconds = decoding_sides.GENERATES["refllm"](shape)(rows, 4)
        theirs, their_seconds = decoding_sides.GENERATES[library](shape)(rows, 4)
        assert 2 not in ours
        assert theirs == ours
        assert len(seconds) == len(their_seconds) == 4
        assert min(their_seconds) > 0


@pytest.mark.oracle
def test_ours_against_both_peers_end_to_end(capsys):
    peers = ["--against", "torch,transformers"]
    assert run(["bench", "decode", *peers, "--config", "tiny", "--runs", "2", "--threads", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["side"] for row in rows} == {"refllm numpy, kernels on", "torch eager", "transformers"}
    assert all(row["ratio"] > 0 for row in rows if row["side"] != "refllm numpy, kernels on")


def test_a_record_names_files_and_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["refllm", "bench", "tokenizer", "/somewhere/here/gpt2", "--text", "books/a b.txt", "--save"])
    assert command() == "refllm bench tokenizer gpt2 --text 'books/a b.txt'"
