"""The door of the command line: an error leaves as one sentence on stderr and exit status 2, never as a traceback."""

import errno
import os
import sys
import warnings
from collections.abc import Sequence

WRONG = 2  # the exit status of an input that is refused
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
CLOSED = 141  # 128 + SIGPIPE: nobody reads any more
REFUSED = (ValueError, OSError, ImportError, MemoryError)  # what floors below raise for what came from outside


def run(argv: Sequence[str]) -> int:
    """Run the program with these arguments and return its exit status.

    `--debug`, anywhere before `--`, lets an error through with its traceback.
    """
    options = list(argv)
    before = options[: options.index("--")] if "--" in options else options
    debug = "--debug" in before
    arguments = [a for a in before if a != "--debug"] + options[len(before) :]
    told = warnings.showwarning
    try:
        from refllm.cli.commands import program

        warnings.showwarning = lambda message, *where: _say(str(message))
        status = program(arguments)(args=arguments or ["--help"], prog_name="refllm", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return CLOSED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        if type(error).__name__ == "Abort":  # older typers make one of Ctrl-C
            return INTERRUPTED
        if hasattr(error, "format_message"):  # typer's own: an option that it does not know, a value that is no number
            return _refuse_usage(error)
        if debug or not isinstance(error, REFUSED):
            raise
        _say(sentence(error))
        return WRONG
    finally:
        warnings.showwarning = told


def sentence(error: Exception) -> str:
    """What went wrong in one sentence; one that the system worded gets its file and what to do."""
    if isinstance(error, MemoryError):
        return "the memory does not suffice: make the batch, the context or the model smaller."
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        todo = "; make room and run the command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return f"{where}{(error.strerror or os.strerror(error.errno)).lower()}{todo}."
    return str(error) or type(error).__name__


def _refuse_usage(error) -> int:
    """Say what typer refuses, and where to look."""
    message = error.format_message() or str(error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "refllm"
    _say(f"{message[:1].lower()}{message[1:].rstrip('.')} ({path} --help shows what there is).")
    return WRONG


def _say(message: str) -> None:
    """One line on stderr, in red where it is a terminal."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write(f"{red}refllm:{plain} {' '.join(message.split())}\n")


def _discard_stdout() -> None:
    """Point stdout nowhere, so that Python's own flush at exit does not fail a second time."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file of the system, as under a test
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- it stays open until the process ends
