"""An outside program is held to the vectors: a right one passes, and each wrong one is told what is wrong."""

import re
import sys
from pathlib import Path

import pytest

from refllm.conformance.command import hold
from refllm.conformance.specification import spec_folder

PROGRAM = Path(__file__).parent / "rms_norm_program.py"


def rows(fault="", dtype="float32", only="rms_norm", patience=60.0):
    return list(hold([sys.executable, str(PROGRAM), *fault.split()], dtype, only, patience))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_right_program_keeps_every_bound(dtype):
    (row,) = rows(dtype=dtype)
    assert row.name == "rms_norm"
    assert row.cases == 5
    assert row.worst <= 1
    assert not row.failure


def test_a_program_need_not_support_every_op():
    by_name = {row.name: row for row in rows(only="norm")}
    assert by_name["rms_norm"].cases == 5
    assert by_name["layer_norm"].cases == 0
    assert not any(row.failure for row in by_name.values())


def test_a_program_without_a_backward_pass_is_held_to_its_forward():
    (row,) = rows("forward only")
    assert row.cases == 5
    assert not row.failure


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("eps", "times its bound away"),
        ("shape", "dgain is inf times its bound away"),
        ("nan", "dgain is inf times its bound away"),
        ("other names", "its outputs are result; there must be some of y, dx, dgain"),
        ("error", "the program says 'out of memory'"),
    ],
)
def test_a_wrong_program_is_told_what_is_wrong(fault, told):
    (row,) = rows(fault)
    assert row.worst > 1
    assert told in row.failure


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("ends", "ended (exit status 3) instead of answering a request for rms_norm"),
        ("silent", "has not answered a request for rms_norm in 0.5 s"),
        ("chatter", "wrote 'hello'; a reply is one line of JSON"),
    ],
)
def test_a_broken_conversation_is_one_sentence(fault, told):
    with pytest.raises(OSError, match="rms_norm|JSON") as problem:
        rows(fault, patience=0.5 if fault == "silent" else 60.0)
    assert told in str(problem.value)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="no-such-program --serve cannot be run"):
        list(hold("no-such-program --serve"))


def test_unknown_ops_and_dtypes_are_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no op of the vectors has 'rmsnorm' in its name; they are linear, affine|attention"):
        rows(only="rmsnorm")
    with pytest.raises(ValueError, match="dtype='int8' has no bounds"):
        rows(dtype="int8")


def test_the_program_in_the_specification_works_as_printed(tmp_path):
    text = (spec_folder() / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python program\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(program, encoding="utf-8")
    by_name = {row.name: row for row in hold([sys.executable, str(path)], only="norm")}
    assert by_name["rms_norm"].cases == 5
    assert not by_name["rms_norm"].failure
    assert by_name["layer_norm"].cases == 0
