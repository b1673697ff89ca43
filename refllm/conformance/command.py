"""An outside program, in any language, held to the specification's vectors: one JSON request per line, one JSON reply per line.

    request  {"op": "rms_norm", "dtype": "float32", "inputs": {"x": ARRAY, "gain": ARRAY, "eps": 1e-05, "dy": ARRAY}}
    reply    {"outputs": {"y": ARRAY, "dx": ARRAY, "dgain": ARRAY}}    or {"unsupported": true}    or {"error": "what went wrong"}
    ARRAY    {"dtype": "float32", "shape": [2, 3], "values": [0.5, -1.25, 3.0, 2.0, 0.0, 1.0]}

The program reads requests from standard input until it ends, and answers each on standard output, flushed. spec/README.md
tells an implementer the same at greater length.
"""

import json
import os
import queue
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from .kit import Row
from .vectors import Case, all_cases, from_json, is_exact, narrowed, shares, to_json

DTYPES = ("float64", "float32", "float16", "bfloat16")
PATIENCE = 60.0  # seconds to wait for a reply


class Program:
    """A running program, and the conversation with it. A context manager: the program ends with the block."""

    def __init__(self, command: str | Sequence[str], patience: float = PATIENCE):
        self.words = shlex.split(command) if isinstance(command, str) else list(command)
        self.patience = patience
        if not self.words or shutil.which(self.words[0]) is None:
            raise FileNotFoundError(f"{' '.join(self.words) or 'an empty command'} cannot be run; give a program that can be.")
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.wait()

    def _listen(self) -> None:
        """Put every line that the program writes into the queue, and an empty one where its output ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request. Raises OSError when the program ends, stays silent, or writes something else."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request, separators=(",", ":")) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=self.patience)
        except queue.Empty:
            raise OSError(
                f"{self.words[0]} has not answered a request for {request['op']} in {self.patience:g} s; "
                "it must write one line for each line it reads, and flush it."
            ) from None
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait()
            raise OSError(f"{self.words[0]} ended (exit status {status}) instead of answering a request for {request['op']}.")
        try:
            reply = json.loads(line)
        except json.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict) or not reply.keys() & {"outputs", "unsupported", "error"}:
            raise OSError(
                f"{self.words[0]} wrote {line.strip()[:80]!r}; a reply is one line of JSON with outputs, unsupported or error."
            )
        return reply


def hold(
    command: str | Sequence[str], dtype: str = "float32", only: str | None = None, patience: float = PATIENCE
) -> Iterator[Row]:
    """A row for every op of the vectors: its cases, and the worst error as a share of its bound. No cases: not supported.

    command: a program and its arguments    dtype: whose bounds hold, for the cases whose inputs it holds exactly
    only: part of the ops' names, None for all    patience: seconds to wait for each reply
    Raises ValueError for an unknown dtype or op, OSError when the program cannot be run or breaks off the conversation.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} has no bounds; choose one of {', '.join(DTYPES)}.")
    by_op: dict[str, list[Case]] = {}
    for case in all_cases():
        if (only is None or only in case.op) and is_exact(case.inputs, dtype):
            by_op.setdefault(case.op, []).append(case)
    if not by_op:
        raise ValueError(
            f"no op of the vectors has {only!r} in its name; they are {', '.join(dict.fromkeys(c.op for c in all_cases()))}."
        )
    with Program(command, patience) as program:
        for op, cases in by_op.items():
            yield _row(program, op, cases, dtype)


def _row(program: Program, op: str, cases: list[Case], dtype: str) -> Row:
    worst, tried, failure = 0.0, 0, ""
    for case in cases:
        reply = program.ask({"op": op, "dtype": dtype, "inputs": to_json(request_inputs(case, dtype))})
        if reply.get("unsupported"):
            continue
        tried += 1
        problem, share = judge(case, reply, dtype)
        worst = max(worst, share)
        failure = failure or (f"{case.name}: {problem}" if problem else "")
    return Row(op, "vectors", dtype, os.path.basename(program.words[0]), tried, worst, failure)


def request_inputs(case: Case, dtype: str) -> dict[str, Any]:
    """A case's inputs as a program sees them: float64 as in the file, else float32 and int32, which hold the same values."""
    return case.inputs if dtype == "float64" else narrowed(case.inputs)


def judge(case: Case, reply: dict[str, Any], dtype: str) -> tuple[str, float]:
    """What is wrong with a reply, or "", and its worst error as a share of the bound. Outputs may be left out, but not all."""
    if "error" in reply:
        return f"the program says {reply['error']!r}", float("inf")
    try:
        found = {name: from_json(y) for name, y in reply["outputs"].items()}
    except (AttributeError, TypeError, ValueError, KeyError) as problem:
        return f"its outputs cannot be read: {problem}", float("inf")
    given = case._replace(outputs={name: y for name, y in case.outputs.items() if name in found})
    if not given.outputs:
        return f"its outputs are {', '.join(found) or 'none'}; there must be some of {', '.join(case.outputs)}", float("inf")
    worst = shares(given, found, dtype)
    wrong = [f"{name} is {share:.3g} times its bound away" for name, share in worst.items() if not share <= 1]
    return ", ".join(wrong), max(worst.values())
