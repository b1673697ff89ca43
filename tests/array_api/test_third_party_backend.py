"""Somebody else's backend, in a distribution of its own, is found by its entry point and passes the kit unmodified.

`refllm_torch.py`, beside this file, is that distribution's module: PyTorch on the CPU through array-api-compat.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refllm.array_api import backend_of, describe, load, names, namespace
from refllm.array_api.dispatch import _BY_TYPE
from refllm.array_api.registry import _LOADED

pytestmark = pytest.mark.oracle

TESTS = Path(__file__).parent
CONFORM = "import sys; from refllm.cli import main; sys.argv = ['refllm', *sys.argv[1:]]; main()"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of installed distributions that holds refllm-torch 1.0, as pip would leave it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(TESTS / "refllm_torch.py", folder)
    information = folder / "refllm_torch-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: refllm-torch\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[refllm.backends]\ntorch = refllm_torch\nbroken = refllm_torch:DTYPES\nlost = refllm_lost\n"
    )
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    """refllm-torch, installed for one test."""
    monkeypatch.syspath_prepend(site)
    yield
    _LOADED.pop("torch", None)
    for array_type in [t for t, entry in _BY_TYPE.items() if entry.backend.name == "torch"]:
        del _BY_TYPE[array_type]


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python where refllm-torch is installed and chosen."""
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "REFLLM_BACKEND": "torch"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_it_is_found_by_its_entry_point(installed):
    assert "torch" in names()
    backend = load("torch")
    assert backend.name == "torch"
    x = backend.xp.ones((2,), dtype=backend.xp.bfloat16)
    assert type(x).__module__ == "torch"
    assert backend_of(x) is backend
    assert namespace(x) is backend.xp
    assert next(d for d in describe() if d.name == "torch").dtypes == tuple(sorted(backend.xp.dtypes()))


def test_an_entry_point_that_leads_to_no_backend_is_refused_and_listed(installed):
    with pytest.raises(ImportError, match=r"the entry point 'refllm_torch:DTYPES' for broken is no backend; it must name a"):
        load("broken")
    with pytest.raises(
        ImportError, match=r"the lost backend, 'refllm_lost', does not load \(ModuleNotFoundError: No module named"
    ):
        load("lost")
    assert {d.name for d in describe() if d.missing} >= {"broken", "lost"}


def test_it_keeps_the_laws_of_every_name(site):
    done = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "test_names.py"), "-k", "[torch")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_passes_the_kit_unmodified(site):
    done = python(site, "-c", CONFORM, "conform", "--examples", "3", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [row["failure"] for row in rows if not row["passed"]]
    assert done.returncode == 0, done.stderr
    assert {row["group"] for row in rows} >= {"array_api", "layers", "models", "training", "decoding"}
    assert {row["dtype"] for row in rows} == {"float32", "float16", "bfloat16", "int32"}  # the last for tokens
