"""Backends are found by name, chosen by argument, `use`, REFLLM_BACKEND or default, and described."""

import dataclasses
import importlib.util
import threading

import numpy as np
import pytest

from refllm.array_api import BUILT_IN, backend_of, describe, is_installed, load, names, namespace, replaced, use


def test_numpy_is_the_default(monkeypatch):
    monkeypatch.delenv("REFLLM_BACKEND", raising=False)
    assert load().name == "numpy"


def test_refllm_backend_chooses_and_use_comes_before_it(monkeypatch):
    monkeypatch.setenv("REFLLM_BACKEND", "strict")
    assert load().name == "strict"
    with use("numpy") as backend:
        assert load() is backend
        assert backend.name == "numpy"
        with use("strict"):
            assert load().name == "strict"
        assert load().name == "numpy"
        assert load("strict").name == "strict"
    assert load().name == "strict"


def test_use_holds_for_its_thread_alone(monkeypatch):
    monkeypatch.delenv("REFLLM_BACKEND", raising=False)
    found = []
    with use("strict"):
        thread = threading.Thread(target=lambda: found.append(load().name))
        thread.start()
        thread.join()
    assert found == ["numpy"]


def test_a_backend_loads_once_and_passes_through():
    assert load("numpy") is load("numpy") is load(load("numpy"))


def test_an_unknown_name_is_refused_with_the_choices(monkeypatch):
    said = r"backend='tpu' is not a backend; choose one of cupy, mlx, numpy, strict.* \(installed: .*numpy.*\)\."
    with pytest.raises(ValueError, match=said):
        load("tpu")
    monkeypatch.setenv("REFLLM_BACKEND", "tpu")
    with pytest.raises(ValueError, match=r"^REFLLM_BACKEND='tpu' is not a backend"):
        load()


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    absent = BUILT_IN["mlx"]._replace(library="no_such_library_here")
    monkeypatch.setitem(BUILT_IN, "absent", absent)
    assert not is_installed("absent")
    with pytest.raises(ImportError, match=r"the absent backend needs a package that is not installed: pip install .*mlx"):
        load("absent")


def test_a_library_that_does_not_import_says_why(monkeypatch, tmp_path):
    (tmp_path / "refllm_broken_library.py").write_text("raise ImportError('libfoo.so is missing\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BUILT_IN, "broken", BUILT_IN["numpy"]._replace(module="refllm_broken_library"))
    with pytest.raises(ImportError, match=r"the broken backend's package does not import \(libfoo.so is missing\); pip install"):
        load("broken")


def test_a_backend_without_its_device_is_refused_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "refllm_without_device.py").write_text(
        "import dataclasses\n"
        "from refllm.array_api import load\n"
        "numpy = load('numpy')\n"
        "fields = {f.name: getattr(numpy, f.name) for f in dataclasses.fields(numpy) if f.init}\n"
        "backend = type(numpy)(**fields | {'name': 'far', 'unavailable': 'the far backend finds no device.'})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BUILT_IN, "far", BUILT_IN["numpy"]._replace(module="refllm_without_device"))
    with pytest.raises(ImportError, match="^the far backend finds no device.$"):
        load("far")
    assert next(d for d in describe() if d.name == "far").missing == "the far backend finds no device."
    assert backend_of(np.ones(1)).name == "numpy"


def test_descriptions_tell_all_there_is_or_what_is_missing():
    descriptions = {d.name: d for d in describe()}
    assert list(descriptions) == names()
    for name, d in descriptions.items():
        if d.missing:
            assert "pip install" in d.missing or "device" in d.missing
            continue
        backend = load(name)
        assert (d.version, d.device) == (backend.version, backend.device)
        assert set(d.dtypes) == backend.xp.dtypes()
        assert set(d.kernels) <= backend.kernels.keys()
    assert descriptions["numpy"].dtypes
    assert descriptions["numpy"].device == "cpu"


def test_cupy_without_a_gpu_says_what_it_needs():
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(ImportError, match=r"cupy backend needs a package that is not installed: pip install 'cupy-cuda13x"):
            load("cupy")
        return
    from refllm.backends.cupy_backend import UNAVAILABLE

    if UNAVAILABLE:
        with pytest.raises(ImportError, match=r"finds no CUDA device \(.+\); it needs an NVIDIA GPU and a driver for CUDA"):
            load("cupy")
    else:
        assert load("cupy").device.startswith("gpu")


def test_a_backend_can_stand_in_for_the_loaded_one_of_its_name():
    strict = load("strict")
    fields = {f.name: getattr(strict, f.name) for f in dataclasses.fields(strict) if f.init}
    other = type(strict)(**fields | {"device": "elsewhere"})
    x = strict.xp.zeros((1,), dtype=strict.xp.float32)
    with replaced(other):
        assert load("strict") is other
        assert namespace(x) is other.xp
    assert load("strict") is strict
    assert namespace(x) is strict.xp
