"""A file is written whole or not at all."""

import errno
import os

import pytest

from refllm.atomic import replacing, write_atomically


def test_a_written_file_holds_the_data_and_nothing_stands_beside_it(tmp_path):
    write_atomically(tmp_path / "state", b"first")
    write_atomically(tmp_path / "state", b"second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"state": b"second"}


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "state", b"old")

    def interrupted():
        with replacing(tmp_path / "state") as file:
            file.write(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"state": b"old"}


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    write_atomically(tmp_path / "state", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"state could not be written \(No space left on device\); the file that was there is unch"):
        write_atomically(tmp_path / "state", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"state": b"old"}


def test_a_leftover_of_a_kill_does_not_disturb_the_next_write(tmp_path):
    (tmp_path / ".state.part").write_bytes(b"torn")
    write_atomically(tmp_path / "state", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"state": b"new"}
