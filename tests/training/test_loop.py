"""A run goes on exactly where it stood: stopped at any step, killed at any moment, out of disk, or diverged."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.training import loop
from refllm.training.config import from_tables, override, to_tables, write
from refllm.training.loop import train
from refllm.training.run import begin, first_or_last_state, reopen

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "REFLLM_BACKEND": "numpy"}
STEPS = 6
RANDOM = {"steps": STEPS, "dropout": 0.1, "accumulation": 2}  # everything that draws random numbers


def outcome(folder, backend):
    """All that training makes: weights and moments; step, best loss, and what it told without the times."""
    run = reopen(folder, backend)
    state, best = first_or_last_state(run)
    return [run.backend.xp.to_numpy(x) for x in state[:3]], (state.step, best, told(folder))


def told(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds_left")} for line in lines]


def assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1] == other[1]


def interrupted(folder, config, backend, stops):
    """Train, closed after each of so many steps in turn, and then to the end."""
    begin(folder, config, backend)
    for stop in stops:
        steps = train(reopen(folder, backend))
        for _ in zip(range(stop), steps, strict=False):
            pass
        steps.close()
    list(train(reopen(folder, backend)))
    return outcome(folder, backend)


def test_training_stopped_and_resumed_continues_bit_for_bit(backend, tmp_path, configure):
    config = configure(**RANDOM)
    assert_same(
        interrupted(tmp_path / "stopped", config, backend, [3, 1, 2]), interrupted(tmp_path / "whole", config, backend, [])
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A maker of configurations, and the outcome of the run that nobody stops, once for the module."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("one fine day the fox met the wren\n" * 60)
    made = {}

    def make(configuration):
        if "outcome" not in made:
            made["outcome"] = interrupted(tmp_path_factory.mktemp("whole") / "run", configuration, "numpy", [])
        return made["outcome"]

    return text, make


@given(stops=st.lists(st.integers(0, STEPS), max_size=3), checkpoint_every=st.integers(1, STEPS))
@settings(max_examples=12)
def test_training_resumed_at_any_step_continues_bit_for_bit(tmp_path_factory, whole, stops, checkpoint_every):
    text, outcome_of = whole
    config = override(small(text), {"training.checkpoint_every": checkpoint_every})
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert_same(interrupted(folder, config, "numpy", stops), outcome_of(config))


def small(text):
    model = {"architecture": "llama", "d_model": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_head": 4, "d_ff": 16}
    training = {"context": 8, "batch": 2, "learning_rate": 1e-2, "evaluate_every": 2, "evaluation_windows": 2} | RANDOM
    return from_tables({"model": model, "data": {"path": str(text), "vocab_size": 270}, "training": training})


def test_a_run_killed_before_any_write_and_resumed_makes_the_same_files(tmp_path, text_file):
    config = override(small(text_file), {"training.steps": 4, "training.checkpoint_every": 2, "training.accumulation": 1})
    write(config, tmp_path / "config.toml")
    script = Path(__file__).with_name("kill_at_every_write.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "config.toml", tmp_path], env=ONE_THREAD, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40  # moments


def test_a_run_from_a_model_killed_before_any_write_and_resumed_makes_the_same_files(tmp_path, text_file):
    config = override(small(text_file), {"training.steps": 1, "training.accumulation": 1})
    list(train(begin(tmp_path / "source", config, "numpy")))
    tables = to_tables(config) | {"model": {"from": str(tmp_path / "source")}}
    write(from_tables(tables), tmp_path / "config.toml")
    arguments = [Path(__file__).with_name("kill_at_every_write.py"), tmp_path / "config.toml", tmp_path, "20"]
    done = subprocess.run([sys.executable, *arguments], env=ONE_THREAD, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 20  # moments, the first weights' among them; the others are those of any run


def test_a_run_killed_at_any_time_and_resumed_makes_the_same_files(tmp_path, text_file):
    config = override(small(text_file), {"training.steps": 250, "training.checkpoint_every": 20, "training.evaluate_every": 50})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        begin(folder, config, "numpy")
    command = "import sys; from refllm.training import loop, run; print(len(list(loop.train(run.reopen(sys.argv[1])))))"
    seconds = time.perf_counter()
    assert subprocess.check_output([sys.executable, "-c", command, whole], env=ONE_THREAD, text=True) == "250\n"
    seconds = time.perf_counter() - seconds
    for share in (0.7, 0.8):
        process = subprocess.Popen([sys.executable, "-c", command, killed], env=ONE_THREAD, stdout=subprocess.DEVNULL)
        time.sleep(seconds * share)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert int(subprocess.check_output([sys.executable, "-c", command, killed], env=ONE_THREAD, text=True)) <= 250
    for name in ("training_state.safetensors", "model.safetensors", "best/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert told(killed) == told(whole)


def test_a_line_torn_by_a_kill_is_written_again(tmp_path, configure):
    config = configure(**RANDOM)
    expected = interrupted(tmp_path / "whole", config, "numpy", [])
    begin(tmp_path / "run", config, "numpy")
    steps = train(reopen(tmp_path / "run"))
    for _ in range(3):
        next(steps)
    steps.close()
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() + b'{"step": 4, "lo')
    list(train(reopen(tmp_path / "run")))
    assert_same(outcome(tmp_path / "run", "numpy"), expected)


def test_a_finished_run_has_nothing_left_to_do(tmp_path, configure):
    expected = interrupted(tmp_path / "run", configure(), "numpy", [])
    assert list(train(reopen(tmp_path / "run"))) == []
    assert_same(outcome(tmp_path / "run", "numpy"), expected)


def after_two_steps(folder, config):
    """A run with a checkpoint at its second step."""
    begin(folder, config, "numpy")
    steps = train(reopen(folder, "numpy"))
    for _ in range(2):
        next(steps)
    steps.close()
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_diverged_run_says_so_and_keeps_its_last_checkpoint(tmp_path, configure, recwarn):
    files = after_two_steps(tmp_path / "run", configure(checkpoint_every=2))
    toml = tmp_path / "run" / "run.toml"
    toml.write_text(toml.read_text().replace("learning_rate = 0.01", "learning_rate = 1e30"))
    with pytest.raises(
        ValueError, match=r"the .* is (nan|inf) at step \d: training diverged. The checkpoint of step 2 is whole. Low"
    ):
        list(train(reopen(tmp_path / "run", "numpy")))
    files = {p: b for p, b in files.items() if p.name not in ("run.toml", "metrics.jsonl")}
    assert {p: p.read_bytes() for p in files} == files
    assert not recwarn.list
    toml.write_text(toml.read_text().replace("1e30", "0.01"))
    assert [p.step for p in train(reopen(tmp_path / "run", "numpy"))] == [3, 4, 5, 6]


def test_a_run_that_diverges_before_its_first_checkpoint_says_so(tmp_path, configure):
    with pytest.raises(ValueError, match=r"No checkpoint was made yet. Lower training.learning_rate"):
        list(train(begin(tmp_path / "run", configure(learning_rate=1e30, checkpoint_every=6), "numpy")))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_says_how_to_go_on(tmp_path, configure, share):
    config = configure(checkpoint_every=2, evaluate_every=6)
    expected = interrupted(tmp_path / "whole", config, "numpy", [])
    files = after_two_steps(tmp_path / "run", config)
    size = (tmp_path / "run" / "training_state.safetensors").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps = train(reopen(tmp_path / "run", "numpy"))
    next(steps)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), before[1]))  # no file may grow longer
    try:
        with pytest.raises(
            OSError, match=r"could not be written .* The checkpoint of step 2 is whole. Make room, then: refllm r"
        ):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = {p: b for p, b in files.items() if p.name == "training_state.safetensors" or p.parent.name == "best"}
    assert {p: p.read_bytes() for p in kept} == kept
    list(train(reopen(tmp_path / "run", "numpy")))
    assert_same(outcome(tmp_path / "run", "numpy"), expected)


def test_a_disk_that_fills_up_while_forcing_a_checkpoint_is_told(tmp_path, configure, monkeypatch):
    files = after_two_steps(tmp_path / "run", configure(checkpoint_every=2))
    steps = train(reopen(tmp_path / "run", "numpy"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\).* The checkpoint of step 2 is whole"):
        list(steps)
    state = tmp_path / "run" / "training_state.safetensors"
    assert state.read_bytes() == files[state]


def test_a_step_is_read_back_once(tmp_path, configure, monkeypatch):
    run = begin(tmp_path / "run", configure(steps=20, evaluate_every=20, checkpoint_every=20, accumulation=2), "strict")
    reads = []
    to_numpy = run.backend.xp.to_numpy
    monkeypatch.setitem(run.backend.xp.__dict__, "to_numpy", lambda x: reads.append(x) or to_numpy(x))
    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
        monkeypatch.setattr(run.backend.array_type, name, lambda array, *args: reads.append(array))
    steps = train(run)
    for n in range(1, 15):
        next(steps)
        assert len(reads) == n
    steps.close()


def test_the_clock_leaves_pauses_out_of_the_speed_and_counts_them_in_the_time_left(monkeypatch, configure):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    clock = loop.Clock()
    t = configure(steps=10, evaluate_every=5, checkpoint_every=5).training
    for _ in range(5):
        now[0] += 2.0
        assert clock.step() == pytest.approx(2.0)
    assert clock.left(5, t) == pytest.approx(5 * 2.0)
    now[0] += 30.0
    clock.pause()
    now[0] += 2.0
    assert clock.step() == pytest.approx(2.0)
    assert clock.left(6, t) == pytest.approx(4 * 2.0 + 30.0)
    assert clock.left(10, t) == 0.0
