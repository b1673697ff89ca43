"""`refllm conform` prints what it proved, and exits 1 when something fails."""

import json

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "tpu"], "'tpu' is not a backend; choose one of"),
        (["--only", "no such op"], "matches no check"),
    ],
)
def test_a_wrong_option_gives_one_sentence_and_exit_status_2(arguments, said, capsys):
    assert run(["conform", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
