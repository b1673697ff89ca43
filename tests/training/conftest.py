"""What the tests of training share: a small text and a small configuration over it."""

import os

import pytest

from refllm.array_api import kernels, load
from refllm.training.config import from_tables

LINES = [
    f"the {size} {animal} {verb} over the {colour} {thing}.\n"
    for size in ("small", "large", "quiet")
    for animal in ("fox", "cat", "bear", "wren")
    for verb in ("jumps", "looks")
    for colour in ("red", "green", "grey")
    for thing in ("fence", "stone", "river")
]


@pytest.fixture(autouse=True, scope="session")
def unforced_writes():
    """Writes are not forced to the disk: no test cuts the power, and forcing takes most of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(params=["plain", "kernels"], scope="module")  # not "function": Hypothesis draws many examples for one
def numpy(request):
    """NumPy, with the plain bodies of all ops and with its kernels."""
    backend = load("numpy")
    with kernels(backend, {} if request.param == "plain" else backend.kernels):
        yield backend


@pytest.fixture
def text_file(tmp_path):
    """A file of 216 short sentences."""
    path = tmp_path / "text.txt"
    path.write_text("".join(LINES), encoding="utf-8")
    return path


@pytest.fixture
def configure(text_file):
    """Makes a small configuration: configure(steps=4) sets training.steps."""

    def make(architecture="llama", **training):
        model = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
        if architecture == "llama":
            model |= {"n_kv_heads": 1, "d_head": 8, "tied": True}
        settings = {"context": 16, "batch": 4, "steps": 6, "learning_rate": 1e-2, "evaluation_windows": 4}
        settings |= {"evaluate_every": 3, "checkpoint_every": 2, "warmup_steps": 2}
        data = {"path": str(text_file), "vocab_size": 300}
        return from_tables({"model": {"architecture": architecture} | model, "data": data, "training": settings | training})

    return make
