"""Small models of both architectures, with weights large enough that a wrong position or key shows."""

import numpy as np
import pytest

from refllm.array_api import generator, load
from refllm.models import architecture
from refllm.models.model import Model

CONFIGS = {
    "llama": {"n_kv_heads": 2, "d_head": 4, "d_ff": 12},
    "llama, windowed": {"n_kv_heads": 4, "d_head": 2, "d_ff": 12, "window": 3, "tied": True},
    "gpt2": {"d_ff": 12},
}


@pytest.fixture(params=CONFIGS, scope="session")
def make_model(request):
    """A function from a backend's name to the same small model there; in float32 unless another dtype is named."""

    def make(backend, dtype="float32", max_positions=16):
        module, xp = architecture(request.param.partition(",")[0]), load(backend).xp
        sizes = {"vocab_size": 23, "d_model": 8, "n_layers": 2, "n_heads": 4, "max_positions": max_positions}
        config = module.Config(**sizes, **CONFIGS[request.param])
        params = {}
        for i, (name, shape) in enumerate(module.parameter_shapes(config).items()):
            vector = len(shape) == 1
            values = generator(0, "test", i).normal(float(vector), 0.1 if vector else shape[0] ** -0.5, shape)
            params[name] = xp.from_numpy(values.astype(np.float32), dtype=getattr(xp, dtype))  # the same in every dtype
        return Model(module, config, params)

    return make
