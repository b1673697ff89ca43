"""Many tasks side by side, kept as they end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refllm.lab.pool import each, report_threads


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


def test_results_before_a_failure_stay_and_the_failure_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^b: two is refused"):
        list(each(failing, [("a", 1), ("b", 2), ("c", 3)], workers=1, folder=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_other_processes_give_the_same_with_one_thread_of_blas_each(tmp_path):
    found = dict(each(report_threads, [(f"task {i}", i) for i in range(3)], workers=2, folder=tmp_path))
    assert found == {f"task {i}": {"argument": i, "threads": [1]} for i in range(3)}


def test_names_are_unique_and_executors_known():
    with pytest.raises(ValueError, match="two tasks are called 'a'"):
        list(each(square, [("a", 1), ("a", 2)], workers=1))
    with pytest.raises(ValueError, match="executor='threads' is not known; choose one of processes, mpi, dask"):
        list(each(square, [("a", 1)], workers=1, executor="threads"))


PROGRAM = """
import os, sys, time
from pathlib import Path
from refllm.lab.pool import each

def nap(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)
    return {}

if __name__ == "__main__":
    list(each(nap, [(name, f"{sys.argv[1]}/{name}") for name in "ab"], 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by signal 0")
def test_processes_end_when_the_one_that_began_them_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(__file__).parents[2]
    begun = subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path], env=os.environ | {"PYTHONPATH": str(root)})
    until(lambda: all((tmp_path / n).is_file() and (tmp_path / n).read_text() for n in "ab"))
    begun.kill()
    begun.wait()
    for name in "ab":
        until(lambda name=name: not alive(int((tmp_path / name).read_text())))


def until(holds, seconds=20):
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
