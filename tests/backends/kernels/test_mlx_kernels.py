"""MLX's kernels keep the bounds of the ops they replace, in every dtype, wherever MLX runs."""

import pytest

pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'refllm[mlx]'")

import refllm.layers.cross_entropy  # the modules of the ops that have kernels
import refllm.layers.layer_norm
import refllm.layers.rms_norm  # noqa: F401 -- OPS holds what has been imported
from refllm.array_api import kernels, load
from refllm.backends.kernels.mlx_kernels import KERNELS
from refllm.conformance.kit import run
from refllm.conformance.layer_checks import CHECKS
from refllm.layers.attention import Mask

FORWARDS = sorted(name for name in KERNELS if not name.endswith("_backward"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", FORWARDS)
def test_kernels_keep_the_bounds_of_their_ops(name, dtype):
    check, backend, ran = next(c for c in CHECKS if c.name == name), load("mlx"), set()

    def watched(name):
        return lambda *arguments: (ran.add(name), KERNELS[name](*arguments))[1]

    with kernels(backend, {name: watched(name) for name in KERNELS}):
        row = run(check, backend, dtype, examples=15)
    assert row.worst <= 1, row.failure
    assert ran >= {name, f"{name}_backward"}  # a body that a kernel passes on to may run others


@pytest.mark.parametrize("name", FORWARDS)
def test_a_kernel_passes_on_what_it_cannot_serve_and_its_backward_knows(name):
    xp = load("mlx").xp
    x = xp.ones((2, 3), dtype=xp.float32)
    vector = xp.ones((3,), dtype=xp.float16)  # not of x's dtype
    heads = xp.zeros((1, 2, 0, 4), dtype=xp.float32)
    keys = xp.ones((1, 1, 3, 4), dtype=xp.float32)
    arguments = {
        "rms_norm": (x, vector, 1e-5),
        "layer_norm": (x, vector, vector, 1e-5),
        "softmax": (xp.zeros((0, 3), dtype=xp.float32),),
        "attention": (heads, keys, keys, Mask(), 0.5),
        "cross_entropy": (xp.zeros((0, 3), dtype=xp.float32), xp.zeros((0,), dtype=xp.int32)),
    }[name]
    y, saved = KERNELS[name](*arguments)
    gradients = KERNELS[f"{name}_backward"](xp.ones_like(y), saved)
    xp.evaluate(y, gradients)
    first = gradients[0] if isinstance(gradients, tuple) else gradients
    assert tuple(first.shape) == tuple(arguments[0].shape)
