"""What MLX's backend promises beyond the laws of every name."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'refllm[mlx]'")

import mlx.core as mx

from refllm.array_api import load


def test_float32_products_keep_all_their_bits_by_default():
    code = "from refllm.array_api import load; load('mlx'); import os; print(os.environ['MLX_ENABLE_TF32'])"
    clean = {k: v for k, v in os.environ.items() if k != "MLX_ENABLE_TF32"}
    said = [
        subprocess.run([sys.executable, "-c", code], env=clean | extra, capture_output=True, text=True, check=True).stdout.strip()
        for extra in ({}, {"MLX_ENABLE_TF32": "1"})
    ]
    assert said == ["0", "1"], "the user's own choice stands"


def test_float64_becomes_float32_and_is_no_dtype_of_the_backend():
    xp = load("mlx").xp
    assert "float64" not in xp.dtypes()
    assert xp.from_numpy(np.asarray([0.1, 1e30])).dtype == mx.float32


def test_bfloat16_crosses_to_the_host_as_float32_without_loss():
    xp = load("mlx").xp
    every_finite = np.arange(2**16, dtype=np.uint32) << 16
    values = every_finite.view(np.float32)[np.isfinite(every_finite.view(np.float32))]
    back = xp.to_numpy(xp.from_numpy(values, dtype=xp.bfloat16))
    assert back.dtype == np.float32
    assert np.array_equal(back, values)


def test_a_buffer_given_away_is_written_in_place():
    xp = load("mlx").xp
    buffer = xp.zeros((64, 1024, 16), dtype=xp.float32)
    value = xp.ones((64, 1, 16), dtype=xp.float32)
    xp.evaluate(buffer, value)
    size = 64 * 1024 * 16 * 4
    mx.reset_peak_memory()
    before = xp.memory()[0]
    for start in range(3):
        buffer = xp.write(buffer, start, value, 1)
        xp.evaluate(buffer)
    assert xp.memory()[1] < before + size / 2, "the whole buffer was copied"


def test_infinities_are_the_least_of_a_segment_of_infinities():
    xp = load("mlx").xp
    values = xp.asarray([xp.inf, xp.inf, -1.0], dtype=xp.float32)
    assert xp.to_numpy(xp.segment_min(values, xp.asarray([0, 2], dtype=xp.int32))).tolist() == [np.inf, -1.0]


def test_kernels_are_in_force_where_they_are_fused():
    backend = load("mlx")
    assert bool(backend.kernels) == backend.device.startswith("gpu")
