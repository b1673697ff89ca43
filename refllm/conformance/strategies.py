"""What Hypothesis draws: shapes small enough for sharp bounds, values that provoke (huge, equal, zero, one alone)."""

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


@st.composite
def reals(draw, shape, largest=1e3):
    """A float32 array of a shape: normal numbers on a drawn scale, or all equal, or mostly zero, or one giant among them."""
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([1.0, 1.0, 1e-3, 10.0, largest]))
    x = rng.standard_normal(shape) * scale
    kind = draw(st.sampled_from(["normal", "normal", "normal", "equal", "sparse", "spike"]))
    if kind == "equal":
        x = np.broadcast_to(x[..., :1], x.shape) if x.ndim else x
    elif kind == "sparse":
        x = x * (rng.random(shape) < 0.3)
    elif kind == "spike" and x.size:
        x = np.array(x)
        x.reshape(-1)[rng.integers(x.size)] = largest * rng.choice((-1, 1))
    return np.ascontiguousarray(x, dtype=np.float32)


@st.composite
def normals(draw, shape, scale=1.0):
    """A float32 array of standard normal numbers times scale."""
    return (np.random.default_rng(draw(seeds)).standard_normal(shape) * scale).astype(np.float32)


@st.composite
def integers(draw, shape, low, high, dtype=np.int32):
    """An integer array with values in low … high−1."""
    return np.random.default_rng(draw(seeds)).integers(low, high, size=shape).astype(dtype)


@st.composite
def truths(draw, shape, share=0.7):
    """A boolean array, true at about a share of the places."""
    return np.random.default_rng(draw(seeds)).random(shape) < share


leading = st.sampled_from([(), (1,), (3,), (2, 3)])  # any leading axes
width = st.integers(1, 33)  # D, F, V, … : reduction lengths stay small, so that bounds stay sharp
