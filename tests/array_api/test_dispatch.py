"""Arrays carry their backend, and a backend may replace an op by name."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from refllm.array_api import OPS, backend_of, kernels, kernels_of, load, namespace, op


@pytest.fixture
def doubled():
    """An op of one line, gone when the test ends."""

    @op
    def doubled(x, times=2):
        """The readable body."""
        return x * times

    yield doubled
    del OPS["doubled"]


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    import os

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False)
    return (done.stdout + done.stderr).strip()


def test_an_array_names_its_backend(backend):
    x = backend.xp.zeros((2,), dtype=backend.xp.float32)
    assert namespace(x) is backend.xp
    assert backend_of(x) is backend


def test_backends_stand_side_by_side():
    arrays = [load(name).xp.ones((2,), dtype=load(name).xp.float32) for name in ("numpy", "strict")]
    assert [backend_of(x).name for x in arrays] == ["numpy", "strict"]


def test_numpy_scalars_and_subclasses_are_numpys_arrays(tmp_path):
    numpy_backend = load("numpy")
    on_disk = np.memmap(tmp_path / "tokens", dtype=np.uint16, mode="w+", shape=(3,))
    for x in (np.sum(np.ones(3, dtype=np.float32)), np.int64(3), np.bool_(True), on_disk, np.ma.zeros(2)):
        assert namespace(x) is numpy_backend.xp


@pytest.mark.parametrize("x", [1.0, [1, 2], None, "text"])
def test_what_is_no_array_is_refused_with_what_to_do(x):
    load("numpy")
    said = rf"^{type(x).__name__} is not an array of any loaded backend \(.*numpy.*\); make arrays with refllm.load_backend"
    with pytest.raises(TypeError, match=said):
        namespace(x)


def test_an_array_loads_its_backend_by_itself():
    code = "import mlx.core as mx, refllm; print(refllm.namespace(mx.zeros((1,))))"
    pytest.importorskip("mlx.core", reason="MLX is not installed")
    assert run_python(code) == "<refllm array API over mlx>"


def test_an_op_runs_its_body_until_a_kernel_of_its_name_is_in_force(doubled):
    numpy_backend, strict = load("numpy"), load("strict")
    x, y = np.ones(2), strict.xp.ones(2, dtype=strict.xp.float32)
    assert np.array_equal(doubled(x), [2, 2])
    with kernels(numpy_backend, {"doubled": lambda x, times=2: x + 100 * times}):
        assert np.array_equal(doubled(x), [201, 201])
        assert np.array_equal(doubled(x, 3), [301, 301])
        assert np.array_equal(doubled(x, times=3), [301, 301])
        assert np.array_equal(doubled.reference(x), [2, 2])
        assert float(strict.xp.sum(doubled(y))) == 4, "another backend keeps its own"
        with kernels(numpy_backend, {}):
            assert np.array_equal(doubled(x), [2, 2])
        assert np.array_equal(doubled(x), [201, 201])
    assert np.array_equal(doubled(x), [2, 2])


def test_kernels_reach_types_first_seen_inside_the_block_and_leave_them_after(doubled):
    class Late(np.ndarray):
        pass

    x = np.ones(2).view(Late)
    with kernels(load("numpy"), {"doubled": lambda x, times=2: x + 100}):
        assert float(doubled(x)[0]) == 101
    assert float(doubled(x)[0]) == 2


def test_kernels_end_with_their_block_even_when_it_fails(doubled):
    before = kernels_of(load("numpy"))
    with pytest.raises(ZeroDivisionError), kernels(load("numpy"), {"doubled": abs}):
        raise ZeroDivisionError
    assert kernels_of(load("numpy")) is before


def test_kernels_hold_in_every_thread(doubled):
    found = []
    with kernels(load("numpy"), {"doubled": lambda x, times=2: x + 100}):
        thread = threading.Thread(target=lambda: found.append(float(doubled(np.ones(1))[0])))
        thread.start()
        thread.join()
    assert found == [101]


def test_an_op_keeps_its_name_and_its_documentation(doubled):
    assert (doubled.__name__, doubled.__doc__) == ("doubled", "The readable body.")
    assert OPS["doubled"] is doubled


def test_an_op_without_a_first_array_says_so(doubled):
    with pytest.raises(TypeError, match=r"doubled\(\) takes its first argument, an array, by position"):
        doubled(x=np.ones(1))


@pytest.mark.parametrize(("said", "count"), [("off", "0"), ("0", "0"), ("OFF", "0"), ("on", "True"), ("", "True")])
def test_refllm_kernels_turns_all_kernels_off(said, count):
    code = (
        "from refllm.array_api import kernels_of, load\n"
        "n = len(kernels_of(load('numpy')))\n"
        "print(n if n == 0 else n == len(load('numpy').kernels))"
    )
    assert run_python(code, REFLLM_KERNELS=said) == count


def test_refllm_kernels_refuses_any_other_word():
    said = run_python("import refllm; refllm.load_backend('numpy')", REFLLM_KERNELS="of")
    assert said.endswith("ValueError: REFLLM_KERNELS='of' is neither on nor off; off turns every backend's kernels off.")
