"""What all tests share: the Hypothesis profile, the installed backends, and where the outside data lies."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from refllm.array_api import is_installed, load

settings.register_profile("default", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

ORACLES = ("torch", "transformers", "tokenizers", "tiktoken", "array_api_compat")


def _has_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:  # no driver: each version of the libraries raises its own type
        return False


HAS_GPU = _has_gpu()
BACKENDS: list = [name for name in ("numpy", "strict", "mlx") if is_installed(name)]
if HAS_GPU:
    BACKENDS.append(pytest.param("cupy", marks=pytest.mark.gpu))
if os.environ.get("REFLLM_BACKEND", "numpy") not in ("numpy", "strict", "mlx", "cupy"):
    BACKENDS.append(os.environ["REFLLM_BACKEND"])  # somebody else's


def pytest_collection_modifyitems(items):
    without_gpu = pytest.mark.skip(reason="no NVIDIA GPU with CuPy")
    missing = [name for name in ORACLES if importlib.util.find_spec(name) is None]
    without_oracle = pytest.mark.skip(reason=f"not installed: {', '.join(missing)}; pip install '.[oracle]'")
    for item in items:
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(without_gpu)
        if item.get_closest_marker("oracle") and missing:
            item.add_marker(without_oracle)


@pytest.fixture(params=BACKENDS, scope="module")  # not "function": Hypothesis draws many examples for one
def backend(request):
    """Each backend that is installed and can compute here."""
    return load(request.param)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of outside test data: REFLLM_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("REFLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set REFLLM_DATA to a folder that holds it")
    return folder


@pytest.fixture
def transformers_in_float64():
    """Hugging Face transformers, computing in float64 all through.

    Its models cast RMSNorm, softmax and RoPE to torch.float32 whatever their dtype, so that name means float64 meanwhile.
    Modules are imported before, lest they keep the changed name.
    """
    import safetensors.torch  # noqa: F401  # imported for what its module level reads
    import torch
    import transformers

    assert transformers.AutoModelForCausalLM
    assert transformers.GPT2LMHeadModel
    assert transformers.LlamaForCausalLM
    assert transformers.MistralForCausalLM
    default = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        yield transformers
    torch.set_default_dtype(default)
