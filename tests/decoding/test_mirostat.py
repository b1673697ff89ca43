"""Mirostat: its cut, its correction, and that it steers."""

import numpy as np
import pytest

from refllm.decoding import Sampler, remember, sample
from refllm.decoding.mirostat import corrected, surprise_cut
from refllm.decoding.sampler import Mirostat
from refllm.decoding.sampling import uniforms


def surprise_of(logits, tokens):
    """−log₂ softmax in float64."""
    z = logits.astype(np.float64)
    p = np.exp(z - np.max(z, axis=-1, keepdims=True))
    p /= np.sum(p, axis=-1, keepdims=True)
    return -np.log2(p[np.arange(len(tokens)), tokens])


def test_the_cut_falls_at_each_rows_own_threshold(backend):
    xp = backend.xp
    logits = np.log2(np.array([[0.5, 0.25, 0.125, 0.125]] * 4)).astype(np.float32) * np.float32(np.log(2))  # 1, 2, 3, 3 bits
    mu = np.array([0.5, 1.5, 2.5, 3.5], np.float32)
    kept = np.isfinite(xp.to_numpy(surprise_cut(xp.from_numpy(logits), xp.from_numpy(mu))))
    np.testing.assert_array_equal(np.sum(kept, axis=1), [1, 1, 2, 4])


@pytest.mark.parametrize("tau", [3.2, 3.8])
def test_mirostat_steers_the_surprise_to_its_target(backend, tau):
    """Rows are texts; each is led from 2τ to its own threshold."""
    xp, B, V, steps = backend.xp, 64, 50, 60
    logits = np.random.default_rng(0).normal(0, 1.5, (1, V)).astype(np.float32)
    rows, sampler = np.broadcast_to(logits, (B, V)), Sampler(mirostat=(tau, 0.2))
    memory, told = remember(sampler, np.zeros((B, 1), np.int32), None, xp, V), []
    for step in range(steps):
        token, memory = sample(xp.from_numpy(rows), xp.from_numpy(uniforms(3, step, B)), sampler, memory)
        told.append(surprise_of(rows, xp.to_numpy(token)))
    # Σ(s − τ) = (μ₀ − μ_n)/η telescopes, so the mean of the whole text lies within that of τ
    drift = (2 * tau - xp.to_numpy(memory.mu)) / 0.2 / steps
    assert np.all(np.abs(np.mean(told, axis=0) - tau - drift) <= 1e-4)
    assert abs(np.mean(told[20:]) - tau) < 0.1
    p = np.exp(logits) / np.sum(np.exp(logits))
    everything = -np.sum(p * np.log2(p))
    assert everything > tau + 0.3, "uncut draws would surprise more"


def test_a_row_without_a_token_keeps_its_threshold(backend):
    xp = backend.xp
    mu, logits = xp.from_numpy(np.array([4, 5], np.float32)), xp.from_numpy(np.zeros((2, 4), np.float32))
    tokens = xp.from_numpy(np.array([-1, 1], np.int32))
    found = xp.to_numpy(corrected(mu, logits, tokens, Mirostat(3.0, 0.5)))
    np.testing.assert_allclose(found, [4, 5.5], rtol=1e-6)
