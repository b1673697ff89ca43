"""How far a task is, told while it runs."""

import json
import threading

import pytest

from refllm.lab.running import progress
from refllm.lab.running.progress import Told


def unread():
    raise AssertionError("the loss was read")


def test_what_is_told_can_be_read_until_the_task_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    path = progress.path_of(tmp_path, "d8-rate0.01")
    assert path == tmp_path / "d8-rate0.01.progress"
    with progress.telling(path) as told:
        assert progress.read(path) == Told()
        for n, model in enumerate((1, 2), start=1):
            tell = progress.begin(10)
            tell(3, lambda n=n: 2.5 / n)
            assert progress.read(path) == told() == Told(3, 10, 2.5 / n, model)
    assert told() == Told(3, 10, 1.25, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), progress.telling(tmp_path / "a.progress"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_between_two_writings_the_loss_is_not_even_read(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    path = tmp_path / "a.progress"
    with progress.telling(path):
        tell = progress.begin(100)
        tell(1, lambda: 9.0)  # a model's first loss is told at once
        now[0] = 0.99
        tell(2, unread)
        assert progress.read(path) == Told(1, 100, 9.0, 1)
        now[0] = 1.0
        tell(3, lambda: 8.0)
        assert progress.read(path) == Told(3, 100, 8.0, 1)
        tell(100, lambda: 7.0)  # and so is its last
        assert progress.read(path) == Told(100, 100, 7.0, 1)


def test_where_nobody_watches_nothing_is_told(tmp_path):
    with progress.telling(None) as told:
        progress.begin(10)(10, unread)
    assert told() == Told()
    progress.begin(10)(10, unread)


def test_a_thread_tells_of_its_own_task(tmp_path):
    def other():
        progress.begin(7)(7, unread)

    with progress.telling(tmp_path / "a.progress") as told:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert told() == Told()


def test_a_folder_that_is_not_there_does_no_harm(tmp_path):
    path = progress.path_of(tmp_path / "elsewhere", "a")
    with progress.telling(path) as told:
        progress.begin(1)(1, lambda: 1.0)
    assert told() == Told(1, 1, 1.0, 1)
    assert progress.read(path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_what_is_no_progress_is_none(tmp_path, text):
    path = tmp_path / "a.progress"
    path.write_text(text)
    assert progress.read(path) is None
    assert progress.read(tmp_path / "b.progress") is None
    path.write_text(json.dumps(Told(1, 2, 3.0, 4)._asdict()))
    assert progress.read(path) == Told(1, 2, 3.0, 4)


def test_a_shorter_word_leaves_nothing_of_a_longer_one(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    path = tmp_path / "a.progress"
    with progress.telling(path):
        tell = progress.begin(10**12)
        for done, loss in ((10**12 - 1, -1.2345678901234567e-100), (1, 2.0)):
            tell(done, lambda loss=loss: loss)
            assert progress.read(path) == Told(done, 10**12, loss, 1)
            assert path.stat().st_size == progress.SIZE


def test_a_file_that_was_removed_is_not_written_again(tmp_path):
    path = tmp_path / "a.progress"
    with progress.telling(path):
        path.unlink()
        progress.begin(1)(1, lambda: 1.0)
        assert list(tmp_path.iterdir()) == []


def test_files_of_killed_tasks_are_removed(tmp_path):
    for name in ("a.progress", "c.progress"):
        (tmp_path / name).write_text("")
    progress.remove([tmp_path / "a.progress", tmp_path / "b.progress"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.progress"]
