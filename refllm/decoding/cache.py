"""The memory of decoding, made once: after it, no step allocates a cache or joins two arrays."""

from refllm.layers.kv_cache import KVCache
from refllm.models.model import Model


def new_cache(model: Model, batch: int, length: int) -> KVCache:
    """An empty cache for `batch` sequences of at most `length` positions, in the model's backend and dtype.

    It takes 2 · n_layers · batch · n_kv_heads · length · d_head numbers.
    Raises ValueError where the model cannot reach that length.
    """
    config = model.config
    if batch < 1 or length < 1:
        raise ValueError(f"a cache for {batch} sequences of {length} positions holds nothing; both must be at least 1.")
    if length > config.max_positions:
        raise ValueError(
            f"a cache of {length} positions is longer than the model's context, max_positions={config.max_positions}."
        )
    xp, dtype = model.backend.xp, model.params["embedding"].dtype

    def buffers():
        return tuple(xp.zeros((batch, config.n_kv_heads, length, config.d_head), dtype=dtype) for _ in range(config.n_layers))

    return KVCache(keys=buffers(), values=buffers(), length=0, valid=None)
