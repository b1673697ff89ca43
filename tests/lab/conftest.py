"""Runs that follow a law which is known."""

import numpy as np
import pytest

from refllm.lab.fits.laws import BESIROGLU
from refllm.lab.fits.runs import Runs


@pytest.fixture(scope="session")
def planted():
    """planted(law, seed, noise, sizes) -> Runs on a grid of N and D, with log-normal noise."""

    def make(law=BESIROGLU, seed=0, noise=0.0, sizes=8):
        N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e8, 1e11, sizes)))
        loss = law.loss(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(N.size))
        return Runs(N, D, 6 * N * D, loss, np.arange(N.size).astype(str), "nats/token")

    return make


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A file of lines that are alike, in which a tiny model soon finds something to learn."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"line {i * i} of a text that repeats itself\n" for i in range(400)))
    return str(path)
