"""Many tasks side by side, kept as they end."""

import json

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
