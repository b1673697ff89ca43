"""CuPy's kernels, as far as a machine without a GPU goes: compiled by NVRTC, and run on the CPU under the kit's own checks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import refllm.layers.attention  # the modules of the ops that have kernels
import refllm.layers.cross_entropy
import refllm.layers.gelu
import refllm.layers.layer_norm
import refllm.layers.rms_norm
import refllm.layers.rope
import refllm.layers.softmax
import refllm.layers.swiglu
import refllm.training.adamw  # noqa: F401 -- OPS holds what has been imported
from refllm.array_api import OPS, kernels, load
from refllm.conformance.kit import run
from refllm.conformance.layer_checks import CHECKS

NAMES = (
    "rms_norm",
    "layer_norm",
    "softmax",
    "gelu_tanh",
    "gelu_erf",
    "silu",
    "rope",
    "rope_interleaved",
    "attention",
    "cross_entropy",
)


@pytest.fixture(scope="module")
def nvrtc():
    """NVIDIA's run-time compiler, which needs no GPU."""
    pytest.importorskip("cupy", reason="CuPy is not installed: pip install cupy-cuda12x")
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:  # CuPy raises types of its own where the library is missing
        pytest.skip(f"NVRTC cannot be loaded ({str(error).splitlines()[0]}): pip install nvidia-cuda-nvrtc-cu12")
    return nvrtc


def compile_log(nvrtc, source, options) -> str:
    """Compile CUDA C for compute capability 8.0; the compiler's complaints, empty if there are none."""
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options, "-arch=sm_80"))
    except nvrtc.NVRTCError:
        return nvrtc.getProgramLog(program) or "failed without a word"
    return nvrtc.getProgramLog(program)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_kernels_compile_without_a_complaint(nvrtc, dtype):
    from refllm.backends.kernels.cupy_kernels import SOURCE, options

    assert not compile_log(nvrtc, SOURCE, options(dtype)).strip()


def test_the_compiler_finds_a_planted_error(nvrtc):
    from refllm.backends.kernels.cupy_kernels import SOURCE, options

    assert "undefined" in compile_log(nvrtc, SOURCE.replace("block_sum(squares)", "block_total(squares)"), options("float32"))


def test_every_kernel_is_checked_here(cupy_kernels_on_cpu):
    pairs = {name for n in NAMES for name in (n, f"{n}_backward")}
    assert pairs | {"adamw_update"} == cupy_kernels_on_cpu.KERNELS.keys()


@pytest.mark.parametrize("check", [c for c in CHECKS if c.name in NAMES], ids=lambda c: c.name)
def test_kernels_run_on_the_cpu_keep_their_bounds(cupy_kernels_on_cpu, check):
    backend, launched = load("numpy"), []
    launch = cupy_kernels_on_cpu.launch
    with pytest.MonkeyPatch.context() as patch, kernels(backend, cupy_kernels_on_cpu.KERNELS):
        patch.setattr(cupy_kernels_on_cpu, "launch", lambda *a: (launched.append(a[0]), launch(*a)))
        row = run(check, backend, examples=15)
    assert row.worst <= 1, row.failure
    assert launched, "the kernels passed everything on to the reference"


def there_and_back(forward, backward, arguments):
    """y and every gradient, for a random dy."""
    y, saved = forward(*arguments)
    dy = np.asarray(np.random.default_rng(0).standard_normal(y.shape), dtype=y.dtype)
    gradients = backward(dy, saved)
    return [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]


@pytest.mark.parametrize("name", NAMES)
@given(draw=st.data())
def test_kernels_compute_in_float64_what_they_are_given_in_float64(cupy_kernels_on_cpu, name, draw):
    drawn = draw.draw(next(c for c in CHECKS if c.name == name).draw)
    wide = tuple(a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in drawn)
    table = cupy_kernels_on_cpu.KERNELS
    found = there_and_back(table[name], table[f"{name}_backward"], wide)
    bodies = there_and_back(OPS[name].reference, OPS[f"{name}_backward"].reference, wide)
    for y, expected in zip(found, bodies, strict=True):
        assert y.dtype == np.float64
        assert np.all(np.abs(y - expected) <= 1e-10 * max(1.0, np.max(np.abs(expected), initial=0.0)))


@given(draw=st.data())
def test_adamw_updates_in_place_as_the_body_does(cupy_kernels_on_cpu, draw):
    n = draw.draw(st.integers(1, 20))
    vectors = [draw.draw(arrays(np.float32, (n,), elements=st.floats(-4, 4, width=32))) for _ in range(4)]
    vectors[3] = np.abs(vectors[3])
    rest = (draw.draw(st.integers(1, 50)), 1e-2, 0.9, 0.95, 1e-8, 0.1, draw.draw(st.integers(0, n)))
    expected = OPS["adamw_update"].reference(*(v.astype(np.float64) for v in vectors), *rest)
    given_buffers = [v.copy() for v in vectors]
    results = cupy_kernels_on_cpu.adamw_update(*given_buffers, *rest)
    assert all(r is given_buffers[i] for r, i in zip(results, (0, 2, 3), strict=True))
    assert np.array_equal(given_buffers[1], vectors[1]), "the gradients were changed"
    for found, exact in zip(results, expected, strict=True):
        assert np.all(np.abs(found - exact) <= 2.0**-23 * 16 * (np.abs(exact) + 4))


@given(draw=st.data())
def test_rows_are_added_in_the_order_of_the_indices(cupy_kernels_on_cpu, draw):
    n, v, d = draw.draw(st.integers(0, 12)), draw.draw(st.integers(1, 5)), draw.draw(st.integers(1, 3))
    rows = draw.draw(arrays(np.float32, (n, d), elements=st.floats(-100, 100, width=32)))
    indices = draw.draw(arrays(np.int32, (n,), elements=st.integers(0, v - 1)))
    total = draw.draw(arrays(np.float32, (v, d), elements=st.floats(-100, 100, width=32)))
    expected = total.astype(np.float64)
    np.add.at(expected, indices, rows.astype(np.float64))
    found = cupy_kernels_on_cpu.add_rows(total.copy(), indices, rows)
    assert np.all(np.abs(found - expected) <= 2.0**-23 * (n + 1) * 100 * (n + 1))


def test_a_target_outside_the_vocabulary_makes_the_loss_nan(cupy_kernels_on_cpu):
    logits = np.zeros((2, 3), dtype=np.float32)
    loss, _ = cupy_kernels_on_cpu.cross_entropy(logits, np.asarray([0, 3], dtype=np.int32))
    assert math.isnan(float(loss))


def test_nan_and_infinite_scores_stay_visible(cupy_kernels_on_cpu):
    x = np.asarray([[1.0, math.nan, 2.0, 3.0, 4.0], [math.inf, 1, 2, 3, 4]], dtype=np.float32)
    p, _ = cupy_kernels_on_cpu.softmax(x)
    assert np.isnan(p[0]).all()
    assert np.isnan(p[1, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_passes_on_what_it_cannot_serve_and_its_backward_knows(cupy_kernels_on_cpu, name):
    table = cupy_kernels_on_cpu.KERNELS

    @settings(max_examples=3)
    @given(next(c for c in CHECKS if c.name == name).draw)
    def passes_on(drawn):
        halves = tuple(a.astype(np.float16) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in drawn)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cupy_kernels_on_cpu, "REAL", {})
            y, saved = table[name](*halves)
        expected, _ = OPS[name].reference(*halves)
        assert np.array_equal(y, expected, equal_nan=True)
        dy = np.ones(y.shape, dtype=y.dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cupy_kernels_on_cpu, "REAL", {})
            table[f"{name}_backward"](dy, saved)

    passes_on()


@pytest.mark.parametrize("name", ["rope", "rope_interleaved"])
def test_angles_may_differ_by_sequence_and_heads_may_be_strided(cupy_kernels_on_cpu, name):
    rng = np.random.default_rng(0)
    x = np.swapaxes(rng.standard_normal((2, 5, 3, 4)), 1, 2)  # (B, H, T, K) over (B, T, H, K)
    angle = rng.standard_normal((2, 1, 5, 2))
    arguments = (x, np.cos(angle), np.sin(angle))
    table = cupy_kernels_on_cpu.KERNELS
    found = there_and_back(table[name], table[f"{name}_backward"], arguments)
    expected = there_and_back(OPS[name].reference, OPS[f"{name}_backward"].reference, arguments)
    assert all(np.all(np.abs(f - e) <= 1e-10) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("n", [63, 64, 65, 150])
def test_gradients_of_a_gain_add_up_every_row_once(cupy_kernels_on_cpu, n):
    rng = np.random.default_rng(n)
    arguments = (rng.standard_normal((n, 5)), rng.standard_normal(5), rng.standard_normal(5), 1e-5)
    found = there_and_back(cupy_kernels_on_cpu.layer_norm, cupy_kernels_on_cpu.layer_norm_backward, arguments)
    expected = there_and_back(OPS["layer_norm"].reference, OPS["layer_norm_backward"].reference, arguments)
    assert all(np.all(np.abs(f - e) <= 1e-10) for f, e in zip(found, expected, strict=True))
