"""`refllm generate` as a process: what it shows of its speed, in a pipe and in a terminal, and how it stops."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from refllm import checkpoints
from refllm.bench import floor
from refllm.cli.live import LastRow, writing
from refllm.models import llama
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

CODE = "import sys; from refllm.cli import main; main()"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "80", "TERM": "xterm"}
CONTEXT = 100_000  # so many tokens that nothing ends before it is stopped


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """A small model whose context a test does not reach."""
    tokenizer = train_bpe("the cat sat on the mat and a dog ran under a tree near the mat. " * 5, 290)
    config = llama.Config(tokenizer.vocab_size, 16, 1, 2, 2, 8, 24, max_positions=CONTEXT, window=64)
    model = Model.initialise("llama", config, 3, "numpy", tokenizer)
    folder = tmp_path_factory.mktemp("endless") / "model"
    checkpoints.save(folder, Model(model.architecture, config, {n: 10 * p for n, p in model.params.items()}, tokenizer))
    return folder


def started(*arguments, **streams):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    command = [sys.executable, "-c", CODE, "generate", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **streams)


def interrupted(process, after):
    """Press Ctrl-C once some bytes have come, and return all that was written."""
    begun = b""
    while len(begun) < after:
        read = os.read(process.stdout.fileno(), 4096)
        assert read, process.stderr.read()
        begun += read
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return (begun + out).decode(), err.decode()


# Figures


def test_figures_beside_floors_stand_in_json_and_in_lines(refllm, endless):
    result = refllm("generate", endless, "the cat", "--max-tokens", 9, "--stats", "--json")
    stats = json.loads(result.out)["stats"]
    model = checkpoints.load(endless)
    n = stats["prompt_tokens"]
    assert stats["tokens"] == 9
    assert stats["cache_bytes"] == (n + 8) * floor.layer_bytes(model)
    prefill, decode, speeds = stats["prefill"], stats["decode"], floor.speeds(model)
    assert (prefill["bytes"], prefill["operations"]) == floor.prefill_work(model, n)
    assert (decode["bytes"], decode["operations"]) == floor.token_work(model, n + 4)
    assert stats["measured"] == {"bytes_per_second": speeds.bandwidth, "operations_per_second": speeds.matrix}
    assert prefill["tokens_per_second"] == pytest.approx(n / prefill["first_token_seconds"])
    assert prefill["floor_share"] == pytest.approx(prefill["floor_seconds"] / prefill["first_token_seconds"])
    assert decode["floor_share"] == pytest.approx(decode["floor_seconds"] * decode["tokens_per_second"])
    assert 0 < decode["token_seconds_median"] <= decode["token_seconds_worst"]
    lines = refllm("generate", endless, "the cat", "--max-tokens", 9, "--stats").err.splitlines()
    assert [line.split()[0] for line in lines] == [line.split()[0] for line in result.err.splitlines()]
    assert [line.split()[0] for line in lines] == ["prefill", "floor", "decode", "floor", "cache", "machine"]
    assert max(map(len, lines)) <= 80
    assert f"{n} tokens, first token after" in lines[0]
    assert "8 tokens" in lines[2]
    assert " at worst " in lines[2]
    quantised = refllm("generate", endless, "the cat", "--max-tokens", 9, "--stats", "--json", "--int8-cache")
    assert json.loads(quantised.out)["stats"]["cache_bytes"] == (n + 8) * floor.layer_bytes(model, quantised=True)


# Pipes


@pytest.mark.parametrize("arguments", [["the cat", "--stats"], ["--jsonl"]])
def test_a_closed_pipe_ends_quietly(endless, arguments):
    process = started(endless, *arguments, "--max-tokens", 50_000, stdin=subprocess.PIPE)
    prompts = (json.dumps({"prompt": "the cat", "max_tokens": 2}) + "\n" for _ in range(2000))
    process.stdin.write("".join(prompts).encode() if arguments == ["--jsonl"] else b"")
    process.stdin.close()
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=60) in (141, 1), "1 is click's own"
    assert process.stderr.read() == b""
    process.stderr.close()


# Ctrl-C


def test_text_streams_into_a_pipe_and_ctrl_c_leaves_it_with_a_newline_and_its_times(endless):
    process = started(endless, "the cat", "--max-tokens", 50_000, "--stats")
    out, err = interrupted(process, after=200)
    assert process.returncode == 130, err
    assert out.startswith("the cat")
    assert out.endswith("\n")
    assert [line.split()[0] for line in err.splitlines()] == ["prefill", "floor", "decode", "floor", "cache", "machine"]


def test_ctrl_c_leaves_whole_lines_of_json(endless):
    lines = [{"prompt": "the cat", "max_tokens": 3}, {"prompt": "a dog"}, {"prompt": "the mat", "max_tokens": 2}]
    process = started(endless, "--jsonl", "--max-tokens", 50_000, stdin=subprocess.PIPE)
    process.stdin.write("\n".join(map(json.dumps, lines)).encode())
    process.stdin.close()
    process.stdin = None
    out, err = interrupted(process, after=20)
    assert (process.returncode, err) == (130, "")
    first, cut, last = map(json.loads, out.splitlines())
    assert (first["finish"], len(first["tokens"])) == ("length", 3)
    assert (cut["prompt"], cut["finish"]) == ("a dog", "interrupted")
    assert 0 < len(cut["tokens"]) < 50_000
    assert (last["finish"], len(last["tokens"])) == ("length", 2)


# Terminals


def in_a_terminal(*arguments, until, then, rest=0.0):
    """What the program writes to a terminal of 80 columns; `then` is done with the process once `until` is there."""
    master, slave = pty.openpty()
    process = started(*arguments, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen, began = "", time.monotonic()
    try:
        while True:
            assert time.monotonic() < began + 60, seen
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(master, 4096).decode("utf-8", "replace")
            except OSError:  # the other end is closed
                break
            if until and re.search(until, seen):
                until = then(process)
    finally:
        process.kill()
        os.close(master)
    return process.wait(), seen


def on_the_screen(written):
    """The rows that a terminal shows in the end, of what moves its cursor as this program does."""
    rows, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r\n|\n|\r)", written):
        if part in ("\r\n", "\n"):
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif found := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(found[1] or 1)
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part and not part.startswith("\x1b") and part != "\r":
            rows[row] += part
    return rows


def test_a_terminal_shows_prefill_and_decode_apart_while_the_text_comes(endless):
    arguments = [endless, "the cat", "--max-tokens", 50_000, "--stats", "--temperature", 0]
    status, seen = in_a_terminal(*arguments, until=r"│ decode [\d,]{4,} of 50,000", then=lambda p: p.send_signal(signal.SIGINT))
    assert status == 130
    assert "Traceback" not in seen
    assert re.search(r"prefill \d", seen)
    rows = on_the_screen(seen)
    assert rows[0].startswith("the cat")
    assert not any("│ decode" in row for row in rows), "the line that moves is gone in the end"
    model = checkpoints.load(endless)
    text = "".join(row for row in rows if not row.startswith("  "))
    assert text.startswith("the cat")
    assert any(row.startswith("  prefill") for row in rows)
    assert len(text) > 80
    assert model.tokenizer is not None


def test_a_line_on_stderr_moves_beside_json_in_a_pipe(endless):
    master, slave = pty.openpty()
    process = started(endless, "the cat", "a dog", "--max-tokens", 600, "--stats", "--json", stderr=slave)
    os.close(slave)
    out, _ = process.communicate(timeout=60)
    assert [json.loads(line)["prompt"] for line in out.decode().splitlines()] == ["the cat", "a dog"]
    shown = os.read(master, 65536).decode("utf-8", "replace")
    os.close(master)
    assert "of 2 texts" in shown
    assert "prompt" not in shown


@pytest.mark.parametrize("ticker", [None, "a line that moves"])
def test_a_terminal_gets_no_character_that_would_move_its_cursor(ticker):
    out = Console(file=io.StringIO(), force_terminal=True, width=30, color_system=None)
    with writing(out, out, ticker) as write:
        write("a\x1b[2Jdog\a", "dim")
        write("\x07\x9b1m and\r a\tcat\n", "")
    seen = out.file.getvalue()
    assert not {"\a", "\x9b"} & set(seen)
    assert "\x1b[2J" not in seen
    assert "a[2Jdog1m and a" in "".join(on_the_screen(seen))
    with writing(pipe := Console(file=io.StringIO()), out, None) as write:
        write("a\x1b[2Jdog\a", "dim")
    assert pipe.file.getvalue() == "a\x1b[2Jdog\a", "a file gets the text as it is"


@given(st.lists(st.text("ab \n\u4e2d\U0001f30d", max_size=30)), st.integers(4, 12))
def test_full_rows_go_out_and_the_text_stays_whole(parts, width):
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    rows = LastRow(out, "")
    for part in parts:
        rows.write(part, "")
        rows.catch_up()
    whole = out.file.getvalue() + rows.row.plain
    assert all(cell_len(row) <= width for row in whole.split("\n"))
    assert whole.replace("\n", "") == "".join(parts).replace("\n", "")
    lines = iter(whole.split("\n"))
    for line in "".join(parts).split("\n"):  # each begins a row
        row = next(lines)
        while row != line:
            assert line.startswith(row)
            assert cell_len(row) >= width - 1, "a row that is broken is full"
            line, row = line[len(row) :], next(lines)
