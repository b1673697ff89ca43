"""Errors leave as one sentence and exit status 2; nobody sees a traceback who does not ask for it."""

import errno
import subprocess
import sys
import warnings

import pytest
import typer

from refllm.cli import commands, doors
from refllm.cli.doors import sentence


def test_help_names_every_command(refllm):
    for arguments in ([], ["--help"], ["-h"]):
        result = refllm(*arguments)
        assert result.status == 0
        assert all(name in result.out for name in commands.COMMANDS)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help_and_a_summary_in_the_list(refllm, name):
    result = refllm(name, "--help")
    assert result.status == 0
    assert f"refllm {name}" in result.out


@pytest.mark.parametrize("name", [n for n in commands.COMMANDS if n not in ("bench", "conform")])
def test_a_commands_summary_begins_its_own_help(refllm, name):
    assert commands.COMMANDS[name].split(",")[0].rstrip(".") in " ".join(refllm(name, "--help").out.split())


def test_version_is_told_by_command_and_by_flag(refllm):
    import refllm as package

    assert refllm("version").out == refllm("--version").out
    assert refllm("version").out.startswith(f"refllm {package.__version__} (Python")


def test_help_imports_no_model_and_no_array_library():
    code = "import sys; from refllm.cli.doors import run; run(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {m for m in modules if m.partition(".")[0] in ("mlx", "cupy", "torch", "matplotlib", "safetensors")}
    assert not {m for m in modules if m.startswith(("refllm.models", "refllm.training", "refllm.conformance", "refllm.bench"))}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["versoin"], "no such command 'versoin'"),
        (["version", "--loud"], "no such option: --loud"),
        (["generate"], "missing argument"),
        (["generate", "run", "text", "--seed", "x"], "invalid value for '--seed'"),
        (["quickstart", "--steps"], "requires an argument"),
    ],
)
def test_wrong_usage_is_one_sentence_that_says_where_to_look(refllm, arguments, says):
    result = refllm(*arguments)
    assert result.status == 2
    assert says in result.err.lower()
    assert "--help shows what there is" in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""


def raising(monkeypatch, error):
    def version():
        raise error

    monkeypatch.setattr("refllm.cli.version.version", version)


@pytest.mark.parametrize("error", [ValueError("tokens has shape (7,)."), ImportError("mlx is missing."), OSError("no room.")])
def test_what_is_refused_below_is_one_sentence_and_status_2(refllm, monkeypatch, error):
    raising(monkeypatch, error)
    assert refllm("version") == (2, "", f"refllm: {error}\n")


def test_a_message_of_several_lines_becomes_one(refllm, monkeypatch):
    raising(monkeypatch, ValueError("one\n  and two"))
    assert refllm("version").err == "refllm: one and two\n"


def test_a_warning_is_a_line_too(refllm, monkeypatch):
    monkeypatch.setattr("refllm.cli.version.version", lambda: warnings.warn("something is odd", stacklevel=2))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert refllm("version").err == "refllm: something is odd\n"


def test_debug_shows_the_traceback(refllm, monkeypatch):
    raising(monkeypatch, ValueError("tokens has shape (7,)."))
    for arguments in (["--debug", "version"], ["version", "--debug"]):
        with pytest.raises(ValueError, match="tokens has shape"):
            refllm(*arguments)


def test_a_mistake_of_our_own_is_not_hidden(refllm, monkeypatch):
    raising(monkeypatch, TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        refllm("version")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_has_the_status_that_shells_report(refllm, monkeypatch, error):
    raising(monkeypatch, error)
    assert refllm("version") == (130, "", "")


def test_an_interrupt_before_the_command_begins_is_one_too(refllm, monkeypatch):
    def program(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "program", program)
    assert refllm("version") == (130, "", "")


def test_a_pipe_that_closes_late_ends_quietly_too(refllm, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # the door points it nowhere
    raising(monkeypatch, BrokenPipeError())
    assert refllm("version") == (doors.CLOSED, "", "")


@pytest.mark.parametrize("arguments", [["version"], ["generate", "RUN", "the"]])
def test_a_closed_pipe_ends_quietly(finished_run, arguments):
    """The reader goes at once; what is written after it must not become an error."""
    arguments = [str(finished_run) if a == "RUN" else a for a in arguments]
    code = f"import sys; sys.argv[1:] = {arguments!r}; from refllm.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (doors.CLOSED, 1), "1 is rich's own"
    assert told == ""


def test_the_systems_errors_get_their_file_and_a_way_out():
    told = sentence(OSError(errno.ENOSPC, "No space left on device", "run/model.safetensors"))
    assert told == "run/model.safetensors: no space left on device; make room and run the command again."
    assert sentence(FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt")) == "a.txt: no such file or directory."
    assert "make the batch" in sentence(MemoryError())
