"""The command line in this process, and a small run for commands to work on."""

import random
import shutil
from typing import NamedTuple

import pytest

from refllm.cli.doors import run

SMALL = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--context", "16", "--batch", "2", "--vocab-size", "280"]


class Result(NamedTuple):
    status: int
    out: str
    err: str

    def refused(self, *says):
        """Assert that one sentence on stderr, with these words in it, and status 2 are all that came of it."""
        assert self.status == 2, self
        assert self.err.startswith("refllm: ")
        assert self.err.count("\n") == 1, "one line"
        for words in says:
            assert words in self.err


@pytest.fixture
def refllm(capsys, monkeypatch):
    """A function from arguments to the exit status and what was written."""
    monkeypatch.delenv("REFLLM_BACKEND", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        capsys.readouterr()
        status = run([str(a) for a in arguments])
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A text of words that a small model can learn something of."""
    rng = random.Random(0)
    words = ["the", "cat", "the", "dog", "a", "tree", "sat", "ran", "slept", "on", "under", "near", "the", "mat", "süß", "🌍"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(" ".join(rng.choices(words, k=10)) + "." for _ in range(150)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished_run(text, tmp_path_factory):
    """A run of 6 steps with checkpoints after 3 and 6. Not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", "--data", text, "--out", folder, *SMALL, "--steps", "6", "--checkpoint-every", "3"]
    assert run([str(a) for a in arguments]) == 0
    return folder


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """The same run, to be broken."""
    return shutil.copytree(finished_run, tmp_path / "run")
