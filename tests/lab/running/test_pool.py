"""Many tasks side by side, kept as they end."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refllm.lab.running.pool import each


def square(x):
    return {"square": x * x}


def failing(x):
    if x == 2:
        raise ValueError("two is refused.")
    return {"x": x}


def test_every_task_is_done_once_and_named():
    assert dict(each(square, [("a", 2), ("b", 3)], workers=1)) == {"a": {"square": 4}, "b": {"square": 9}}


def test_a_result_that_is_there_is_not_found_again(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"square": -1}))
    found = dict(each(square, [("a", 2), ("b", 3)], workers=1, folder=tmp_path))
    assert found == {"a": {"square": -1}, "b": {"square": 9}}
    assert json.loads((tmp_path / "b.json").read_text()) == {"square": 9}


def test_what_killed_tasks_told_is_removed_before_a_task_begins_and_at_the_end(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.progress").write_text("")
    left = []
    for name, _ in each(square, [("a", 2), ("b", 3)], workers=1, folder=tmp_path):
        left.append(sorted(path.name for path in tmp_path.iterdir()))
        (tmp_path / f"{name}.progress").write_text("")
    assert left == [["a.json"], ["a.json", "a.progress", "b.json"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_results_before_a_failure_stay_and_the_failure_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^b: two is refused"):
        list(each(failing, [("a", 1), ("b", 2), ("c", 3)], workers=1, folder=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


FOUND_ELSEWHERE = '''
import threadpoolctl

import time
from pathlib import Path

def threads(x):
    """How many threads each BLAS library has where this runs."""
    found = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
    return {"argument": x, "threads": [library["num_threads"] for library in found]}

def failing_beside_one_that_sleeps(path):
    if path.endswith("a"):
        while not Path(path[:-1] + "b").exists():
            time.sleep(0.02)
        raise ValueError("it fails.")
    Path(path).touch()
    time.sleep(600)
    return {}
'''


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Functions of a module that another process finds, as it does not find those of a test."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "found_elsewhere.py").write_text(FOUND_ELSEWHERE)
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield importlib.import_module("found_elsewhere")
    del sys.modules["found_elsewhere"]


def test_other_processes_give_the_same_with_one_thread_of_blas_each(tmp_path, elsewhere):
    found = dict(each(elsewhere.threads, [(f"task {i}", i) for i in range(3)], workers=2, folder=tmp_path))
    assert found == {f"task {i}": {"argument": i, "threads": [1]} for i in range(3)}


def test_names_are_unique_and_executors_known():
    with pytest.raises(ValueError, match="two tasks are called 'a'"):
        list(each(square, [("a", 1), ("a", 2)], workers=1))
    with pytest.raises(ValueError, match="executor='threads' is not known; choose one of processes, mpi, dask"):
        list(each(square, [("a", 1)], workers=1, executor="threads"))


def test_a_failure_ends_what_runs_beside_it(tmp_path, elsewhere):
    tasks = [(name, str(tmp_path / name)) for name in "ab"]
    began = time.monotonic()
    with pytest.raises(ValueError, match="^a: it fails"):
        list(each(elsewhere.failing_beside_one_that_sleeps, tasks, workers=2))
    assert time.monotonic() - began < 300


PROGRAM = """
import os, sys, time
from pathlib import Path
from refllm.lab.running.board import watching
from refllm.lab.running.pool import each

def nap(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)
    return {}

if __name__ == "__main__":
    place = Path(sys.argv[1])
    with watching():
        list(each(nap, [(name, f"{place}/{name}") for name in "ab"], 2, place / "results"))
"""


@pytest.fixture
def napping(tmp_path):
    """A program with two tasks at work, which sleep; the files a and b name their processes."""
    (tmp_path / "program.py").write_text(PROGRAM)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    begun = subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path], env=env, stderr=subprocess.PIPE, text=True)
    until(lambda: all((tmp_path / n).is_file() and (tmp_path / n).read_text() for n in "ab"))
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a.progress", "b.progress"]
    yield begun
    begun.kill()
    begun.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by signal 0")
def test_processes_end_when_the_one_that_began_them_is_killed(napping, tmp_path):
    napping.kill()
    napping.wait()
    for name in "ab":
        until(lambda name=name: not alive(int((tmp_path / name).read_text())))


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by signal 0")
def test_ctrl_c_ends_all_processes_at_once_without_litter_or_their_tracebacks(napping, tmp_path):
    processes = [int((tmp_path / name).read_text()) for name in "ab"]
    for process in (*processes, napping.pid):  # a terminal tells all of them
        os.kill(process, signal.SIGINT)
    _, told = napping.communicate(timeout=90)
    assert told.count("Traceback") == 1
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert not any(alive(process) for process in processes)
    assert list((tmp_path / "results").iterdir()) == []


def until(holds, seconds=90):
    """Wait until something holds, at most so long."""
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last, "it never came to hold"
        time.sleep(0.02)


def alive(process):
    """Whether a process runs; one that has ended and waits to be asked does not."""
    stat = Path(f"/proc/{process}/stat")
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
