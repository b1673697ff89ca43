"""`refllm conform` prints what it proved, and exits 1 when something fails."""

import json
import sys

import numpy as np
import pytest

from refllm.array_api import OPS, kernels, load
from refllm.cli.doors import run


def test_a_right_backend_passes_and_each_row_says_how_near_its_bound_it_came(capsys):
    assert run(["conform", "--backend", "numpy", "--only", "rms_norm", "--examples", "5"]) == 0
    out = capsys.readouterr().out
    assert "rms_norm" in out
    assert "float32" in out
    assert "pass" in out
    assert "worst" in out


def test_a_wrong_kernel_fails_with_exit_status_1_and_the_smallest_input(capsys):
    def without_gain(x, gain, eps):
        y, saved = OPS["rms_norm"].reference(x, gain, eps)
        return (y * np.float32(1.5)).astype(x.dtype), saved

    with kernels(load("numpy"), {"rms_norm": without_gain}):
        assert run(["conform", "--backend", "numpy", "--only", "rms_norm", "--examples", "5"]) == 1
    out = capsys.readouterr().out
    assert "fail" in out
    assert "times its bound away" in out


def test_json_has_one_object_per_row(capsys):
    assert run(["conform", "--backend", "strict", "--only", "softmax", "--examples", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["softmax"]
    assert rows[0]["passed"]
    assert 0 < rows[0]["worst"] <= 1


SERVER = """
import json, math, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] != "linear":
        print(json.dumps({"unsupported": True}), flush=True)
        continue
    x, w = request["inputs"]["x"], request["inputs"]["weight"]
    I, O = w["shape"]
    rows = [x["values"][i : i + I] for i in range(0, len(x["values"]), I)]
    y = [sum(a * w["values"][i * O + o] for i, a in enumerate(row)) * SCALE for row in rows for o in range(O)]
    print(json.dumps({"outputs": {"y": {"dtype": "float64", "shape": [*x["shape"][:-1], O], "values": y}}}), flush=True)
"""


@pytest.mark.parametrize(("scale", "status"), [("1", 0), ("1.001", 1)])
def test_a_program_outside_is_held_to_the_vectors(scale, status, tmp_path, capsys):
    program = tmp_path / "server.py"
    program.write_text(SERVER.replace("SCALE", scale))
    assert run(["conform", "--command", f"{sys.executable} {program}", "--only", "l"]) == status
    out = capsys.readouterr().out
    assert "not supported" in out
    assert (" pass\n" in out) == (status == 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "tpu"], "'tpu' is not a backend; choose one of"),
        (["--only", "no such op"], "matches no check"),
        (["--command", "no-such-program"], "no-such-program cannot be run"),
    ],
)
def test_a_wrong_option_gives_one_sentence_and_exit_status_2(arguments, said, capsys):
    assert run(["conform", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
