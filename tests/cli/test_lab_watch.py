"""An experiment's tasks on a terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from refllm.cli.lab.watch import WIDTH, cells, chosen, counts, drawn, how_far, watching
from refllm.lab.running.board import DONE, RUNNING, Board, Task, watched
from refllm.lab.running.progress import Told, path_of

DONE_ONES = [Task(f"done-{i}", state=DONE, told=Told(9, 9, 1.5, 1), seconds=65.0) for i in range(30)]
RUNNING_ONES = [Task(f"running-{i}", state=RUNNING, told=Told(250, 1000, 2.25, 1), seconds=30.0) for i in range(4)]
WAITING_ONES = [Task(f"waiting-{i}") for i in range(30)]


def terminal(width=80, height=24):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def names(tasks):
    return [task.name for task in tasks]


def test_as_many_tasks_are_shown_as_there_are_rows_those_at_work_before_all():
    every = DONE_ONES + RUNNING_ONES + WAITING_ONES
    assert chosen(every, 100) == every
    some = names(chosen(every, 10))
    assert some == ["done-27", "done-28", "done-29", *names(RUNNING_ONES), "waiting-0", "waiting-1", "waiting-2"]
    assert names(chosen(every, 2)) == ["running-0", "running-1"]
    assert names(chosen(DONE_ONES + WAITING_ONES[:1], 6)) == [*names(DONE_ONES[-5:]), "waiting-0"]
    assert names(chosen(DONE_ONES[:1] + WAITING_ONES, 6)) == ["done-0", *names(WAITING_ONES[:5])]


def board(folder):
    """A board on which one task is at work for five seconds, one is done and many wait."""
    seen = Board()
    seen.open(folder, [(f"a-name-that-is-longer-than-its-column-{i}", 1.0) for i in range(60)], later=0.0)
    path_of(folder, "a-name-that-is-longer-than-its-column-1").write_text(
        '{"done": 1204, "of": 8192, "loss": 1.625, "models": 1}'
    )
    seen.look(time.monotonic() - 5)
    seen.end("a-name-that-is-longer-than-its-column-0", Told(8192, 8192, 1.5, 1), 40.0)
    return seen


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 10), (79, 60)])
def test_the_table_fits_a_screen(tmp_path, width, height):
    console = terminal(width, height)
    console.print(drawn(board(tmp_path), console))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= height - 3
    assert max(map(len, lines)) <= WIDTH < 80
    assert lines[1].split() == ["task", "updates", "loss", "time", "left"]
    assert lines[2].split()[1:] == ["done", "1.500", "40", "s"]
    assert re.search(r"━ +1,204 of 8,192 +1\.625 +5 s +29 s$", lines[3])
    assert lines[4].split()[1:] == ["waits"]
    assert lines[-1].startswith("1 done, 1 at work, 58 waiting; all done in about ")


def test_nothing_is_drawn_while_no_pool_works():
    console = terminal()
    console.print(drawn(Board(), console))
    assert console.file.getvalue().strip() == ""


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (WAITING_ONES[0], "waits"),
        (Task("a", state=RUNNING), "at work"),
        (Task("a", state=RUNNING, told=Told(3, 1000, None, 1)), "3 of 1,000"),
        (Task("a", state=RUNNING, told=Told(250_000, 1_000_000, None, 1)), "25%"),
        (Task("a", state=RUNNING, told=Told(1, 4, None, 3)), "model 3, 25%"),
        (DONE_ONES[0], "done"),
        (Task("a", state=DONE), "was there"),
    ],
)
def test_how_far_a_task_is(task, says):
    assert how_far(task) == says


def test_a_tasks_own_time_left_is_that_of_all_its_models():
    name, bar, far, loss, spent, left = cells(Task("a", state=RUNNING, told=Told(1, 2, 1.0, 2), seconds=30.0), 3)
    assert (name, bar.completed, far, loss, spent, left) == ("a", 0.5, "model 2, 50%", "1.000", "30 s", "30 s")
    assert cells(Task("a", state=RUNNING, told=Told(), seconds=9.0), 1)[3:] == ("", "9 s", "")


def test_the_end_is_foretold_as_a_time_of_the_day(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    at = time.strftime("%H:%M", time.localtime(1_000_000.0 + 250))
    assert counts(WAITING_ONES, 250.0) == f"30 waiting; all done in about 4:10 min, at {at}."
    assert counts(WAITING_ONES, None) == "30 waiting."
    assert counts(DONE_ONES, 0.0) == "30 done."


def test_tasks_are_watched_on_a_terminal_only(tmp_path):
    with watching(terminal(), tmp_path):
        assert watched() is not None
    plain = Console(file=io.StringIO())
    with watching(plain, tmp_path):
        assert watched() is None
    assert plain.file.getvalue() == ""


@pytest.mark.parametrize("console", [terminal(200), Console(file=io.StringIO(), width=200)])
def test_a_stopped_experiment_says_how_it_goes_on(tmp_path, console):
    with pytest.raises(KeyboardInterrupt), watching(console, tmp_path):
        raise KeyboardInterrupt
    assert f"Stopped; what is done is kept in {tmp_path}, and the same command continues from there." in console.file.getvalue()


def test_a_sweep_on_a_terminal_shows_its_tasks_and_leaves_its_lines(refllm, text, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    tiny = ["widths=4", "steps=16", "batch=2", "context=16", "tuned=4,8", "rates=0.01", "tuning_steps=4", "snapshots=1"]
    changes = [argument for change in (*tiny, "seeds=2", "windows=4", f"text={text}") for argument in ("--set", change)]
    done = refllm("lab", "sweep", "--workers", "1", "--out", tmp_path, *changes)
    assert done.status == 0, done
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.err)
    assert "sweep, models" in shown
    assert re.search(r"d4-seed1 +done +\d\.\d{3} ", shown)
    assert "2 done.\n" in shown
    assert re.search(r"d4-seed0: [\d,]+ parameters", shown)
    assert done.err.endswith("\x1b[1A\x1b[2K")  # the table is wiped away
    assert not list(tmp_path.rglob("*.progress*"))


def test_what_claims_conduct_is_watched(refllm, tmp_path, monkeypatch):
    def conducted(*arguments):
        assert watched() is not None
        raise ValueError("enough was seen.")

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("refllm.lab.claims.conducted", conducted)
    done = refllm("lab", "claims", "--only", "4", "--out", tmp_path)
    assert done.status == 2
    assert "enough was seen." in done.err
