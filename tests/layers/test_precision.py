"""Half precision stores, float32 computes: one rounding at the end."""

import numpy as np
import pytest

from refllm.array_api import kernels
from refllm.layers.attention import Mask, attention
from refllm.layers.gelu import gelu_erf, gelu_tanh
from refllm.layers.layer_norm import layer_norm
from refllm.layers.linear import linear
from refllm.layers.precision import narrow, widen
from refllm.layers.rms_norm import rms_norm
from refllm.layers.rope import rope
from refllm.layers.softcap import softcap
from refllm.layers.softmax import softmax
from refllm.layers.swiglu import silu

CASES = {
    linear: ((3, 8), (8, 5)),
    rms_norm: ((3, 8), (8,), 1e-5),
    layer_norm: ((3, 8), (8,), (8,), 1e-5),
    softmax: ((3, 8),),
    gelu_erf: ((3, 8),),
    gelu_tanh: ((3, 8),),
    silu: ((3, 8),),
    softcap: ((3, 8), 0.8),
    rope: ((2, 3, 4, 8), (4, 4), (4, 4)),
    attention: ((1, 4, 3, 8), (1, 2, 3, 8), (1, 2, 3, 8), Mask(), 0.3),
}


@pytest.mark.parametrize("layer", CASES, ids=lambda layer: layer.__name__)
def test_a_layer_of_halves_is_the_layer_of_floats_rounded_once(layer, backend):
    xp, rng = backend.xp, np.random.default_rng(0)
    shapes = [c for c in CASES[layer] if type(c) is tuple]
    settings = [c for c in CASES[layer] if type(c) is not tuple]
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        halves = [xp.from_numpy(rng.standard_normal(s).astype(np.float32), getattr(xp, name)) for s in shapes]
        with kernels(backend, {}):  # a kernel keeps the bound, and may round a bit apart
            of_halves, _ = layer(*halves, *settings)
            of_floats, _ = layer(*(xp.astype(a, xp.float32) for a in halves), *settings)
        assert of_halves.dtype == halves[0].dtype
        np.testing.assert_array_equal(xp.to_numpy(of_halves), xp.to_numpy(xp.astype(of_floats, of_halves.dtype)))


def test_widening_leaves_what_is_wide_and_narrowing_gives_the_dtype_asked_for(backend):
    xp = backend.xp
    for name in sorted({"float16", "bfloat16", "float32", "float64"} & xp.dtypes()):
        x = xp.ones((2,), dtype=getattr(xp, name))
        assert widen(x).dtype == (xp.float32 if name in ("float16", "bfloat16") else x.dtype)
        assert narrow(widen(x), x).dtype == x.dtype
    wide = xp.ones((2,), dtype=xp.float32)
    assert widen(wide) is wide
    assert narrow(wide, wide) is wide
