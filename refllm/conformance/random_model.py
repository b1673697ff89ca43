"""A small model of any architecture with random weights of the size that training gives them, where no checkpoint is at hand."""

from dataclasses import fields

import numpy as np

from refllm.array_api import Backend, generator, load
from refllm.models import architecture
from refllm.models.model import Model

SIZES = {
    "vocab_size": 512,
    "d_model": 64,
    "n_layers": 4,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_head": 16,
    "d_ff": 160,
    "max_positions": 1024,
    "n_experts": 4,
    "top_k": 2,
    "query_pre_attn_scalar": 16,
}


def random_model(name: str, backend: str | Backend | None = None, dtype: str | None = None, seed: int = 0) -> Model:
    """A model of an architecture by name, the same for one seed on every backend: gains near 1, matrices that keep lengths.

    Raises ValueError for a name that is not in the table of architectures, and for a dtype that the backend does not compute in.
    """
    module, xp = architecture(name), load(backend).xp
    known = sorted(d for d in xp.dtypes() if "float" in d)
    if dtype is not None and dtype not in known:
        raise ValueError(f"dtype={dtype!r} is none that {xp.__name__} computes in; choose one of {', '.join(known)}.")
    config = module.Config(**{field.name: SIZES[field.name] for field in fields(module.Config) if field.name in SIZES})
    params = {}
    for i, (parameter, shape) in enumerate(module.parameter_shapes(config).items()):
        values = generator(seed, "random model", i).standard_normal(shape, dtype=np.float32)
        values = 1 + 0.1 * values if len(shape) == 1 else values * np.float32(shape[-2] ** -0.5)
        params[parameter] = xp.from_numpy(values.astype(np.float32), getattr(xp, dtype or "float32"))
    return Model(module, config, params)
