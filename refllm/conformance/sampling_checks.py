"""The samplers, on draws that no rounding can tip: every uniform and every p falls in the middle of its interval."""

import numpy as np
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.decoding.cuts import temperature, top_k, top_p
from refllm.decoding.sampling import draw as draw_token
from refllm.decoding.sampling import greedy

from .check import Check
from .strategies import integers, normals, seeds


@st.composite
def _decided(draw):
    """logits (B, V), a uniform for each row and a p, none of them near a boundary between two tokens."""
    B, V = draw(st.integers(1, 3)), draw(st.integers(1, 17))
    logits = draw(normals((B, V), scale=2.0))
    rng = np.random.default_rng(draw(seeds))
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    chosen = exact.argmax(axis=1) if draw(st.booleans()) else np.array([rng.choice(np.flatnonzero(row > 1e-3)) for row in exact])
    upper = np.take_along_axis(exact.cumsum(axis=1), chosen[:, None], axis=1)[:, 0]
    uniforms = upper - np.take_along_axis(exact, chosen[:, None], axis=1)[:, 0] / 2
    likeliest = np.sort(exact[0])[::-1]
    k = int(rng.integers(0, np.count_nonzero(likeliest > 1e-3)))
    p = float(likeliest[:k].sum() + likeliest[k] / 2)
    return logits, uniforms.astype(np.float32), draw(st.integers(1, V)), p


def _samplers(backend: Backend, drawn):
    logits, uniforms, k, p = drawn
    return {
        "greedy": greedy(logits),
        "temperature": temperature(logits, 0.7),
        "top_k": top_k(logits, k),
        "top_p": top_p(logits[:1, :], p),
        "draw": draw_token(logits, uniforms),
    }


def _greedy_ties(backend: Backend, drawn):
    return {"greedy": greedy(drawn[0])}


CHECKS = [
    Check("sampling", "decoding", _decided(), _samplers, halves=False),
    Check("greedy among ties", "decoding", integers((5, 9), 0, 3).map(lambda x: (x.astype(np.float32),)), _greedy_ties),
]
