"""The tasks of a pool as they are seen, and when they will be done."""

import json

import pytest

from refllm.lab.running import progress
from refllm.lab.running.board import DONE, RUNNING, WAITING, Board, Task, models, seconds_left, share, watched, watching
from refllm.lab.running.pool import each
from refllm.lab.running.progress import Told


def put(folder, name, told):
    progress.path_of(folder, name).write_text(json.dumps(told._asdict()))


def test_tasks_are_seen_as_their_files_come_change_and_go(tmp_path):
    board, folder = Board(), tmp_path / "sweep" / "models"
    folder.mkdir(parents=True)
    board.open(folder, [("a", 1.0), ("b", 2.0), ("c", 3.0)], later=4.0)
    assert (board.title, board.later) == ("sweep, models", 4.0)
    assert [task.state for task in board.look(0.0)] == [WAITING] * 3
    put(folder, "b", Told())
    put(folder, "c", Told(1, 10, 2.0, 1))
    board.look(5.0)
    put(folder, "b", Told(2, 10, 3.0, 1))
    b, c, a = board.look(7.0)
    assert (b.name, b.cost, b.state, b.told, b.seconds) == ("b", 2.0, RUNNING, Told(2, 10, 3.0, 1), 2.0)
    assert (c.name, a.name, a.state, a.seconds) == ("c", "a", WAITING, None)
    assert board.workers == 2
    progress.path_of(folder, "c").unlink()  # it has ended, and its result is on its way
    put(folder, "a", Told())
    assert [(task.name, task.state) for task in board.look(8.0)] == [("c", DONE), ("b", RUNNING), ("a", RUNNING)]
    assert board.workers == 2
    board.end("c", Told(10, 10, 1.5, 1), 3.5)
    board.end("b", Told(10, 10, 1.0, 1), 9.5)
    c, b, a = board.look(9.0)
    assert board.workers == 2
    assert [(task.name, task.seconds, task.told.loss) for task in (c, b)] == [("c", 3.5, 1.5), ("b", 9.5, 1.0)]


def test_a_share_counts_the_models_of_a_task():
    assert share(Task("a", told=Told(0, 0)), 1) == 0
    assert share(Task("a", told=Told(5, 20, None, 1)), 1) == 0.25
    assert share(Task("a", told=Told(5, 20, None, 2)), 4) == 1.25 / 4
    assert share(Task("a", told=Told(10, 20, None, 3)), 1) == 2.5 / 3


def test_how_many_models_a_task_trains_is_known_from_those_that_are_done():
    at_work, silent, done = (
        Task(name, state=state, told=Told(models=n)) for name, state, n in (("a", RUNNING, 3), ("b", DONE, 0), ("c", DONE, 4))
    )
    assert (models([at_work]), models([at_work, silent]), models([at_work, silent, done])) == (1, 1, 4)


def running(name, cost, part, seconds):
    return Task(name, cost, RUNNING, Told(round(part * 100), 100, 1.0, 1), 0.0, seconds)


def test_the_time_left_is_that_of_the_last_worker():
    done = Task("a", 2.0, DONE, Told(5, 5, 1.0, 1), 0.0, 20.0)
    # 10 s for a cost of 1: at work until 15 and until 40; then two waiting ones of 30 and 10 seconds, from 15 to 45 and 40 to 50
    tasks = [done, running("b", 2.0, 0.25, 5.0), running("c", 5.0, 0.2, 10.0), Task("d", 3.0), Task("e", 1.0)]
    assert seconds_left(tasks, 2) == pytest.approx(50.0)
    assert seconds_left(tasks, 2, later=4.0) == pytest.approx(50.0 + 20.0)
    assert seconds_left(tasks, 3) == pytest.approx(40.0)  # a third worker takes both at once
    assert seconds_left([done, Task("d", 3.0)], 0) == pytest.approx(30.0)


def test_one_at_work_that_does_not_tell_takes_what_its_cost_says():
    done, silent = Task("a", 2.0, DONE, Told(), 0.0, 20.0), Task("b", 3.0, RUNNING, Told(), 0.0, 12.0)
    assert seconds_left([done, silent], 1) == pytest.approx(30.0 - 12.0)
    assert seconds_left([done, Task("b", 1.0, RUNNING, Told(), 0.0, 12.0)], 1) == 0.0  # it takes longer than was thought


def test_nothing_is_foretold_before_something_tells():
    assert seconds_left([running("a", 1.0, 0.01, 5.0), Task("b")], 1) is None
    assert seconds_left([Task("a", state=DONE), Task("b")], 1) is None  # its result was there
    assert seconds_left([Task("a", state=DONE)], 1) is None


def test_generations_are_foretold_by_those_that_are_done():
    done = Task("a", 1.0, DONE, Told(10, 10, 1.0, 4), 0.0, 40.0)
    second = Task("b", 1.0, RUNNING, Told(5, 10, 1.0, 2), 0.0, 15.0)
    assert seconds_left([done, second], 1) == pytest.approx(25.0)


def telling(n):
    progress.begin(n)(n, lambda: 0.5)
    (task,) = (task for task in watched().look() if task.state == RUNNING)
    return {"seen": task.name}


def test_a_pool_shows_its_tasks_to_who_watches(tmp_path):
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "b.json").write_text("{}")
    with watching() as board:
        found = dict(each(telling, [("a", 3), ("b", 4)], 1, folder, costs=[2.0, 3.0], later=5.0))
        tasks = {task.name: task for task in board.look()}
    assert found == {"a": {"seen": "a"}, "b": {}}
    assert board.later == 5.0
    assert [tasks[name].state for name in "ab"] == [DONE, DONE]
    assert [tasks[name].cost for name in "ab"] == [2.0, 3.0]
    assert tasks["a"].told == Told(3, 3, 0.5, 1)
    assert tasks["a"].seconds > 0
    assert tasks["b"].seconds is None
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json"]
    assert watched() is None
