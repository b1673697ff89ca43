"""The memory of decoding, made once: after it, no step allocates a cache."""

from refllm.array_api import kernels_of
from refllm.layers.cache_blocks import quantise
from refllm.layers.kv_cache import KVCache, Layer, most_blocks
from refllm.models.accounting import windows
from refllm.models.model import Model

BLOCK = 256  # positions


def new_cache(
    model: Model, batch: int, length: int, *, quantised: bool = False, size: int | None = None, slack: int = 0
) -> KVCache:
    """An empty cache for `batch` sequences of at most `length` positions, in the model's backend and dtype.

    quantised: keep keys and values in eight bits
    size: positions of a block, at most: blocks are of equal size, and cover the length. None: what suits backend and windows
    slack: positions that can be taken back (`rewind`) also in layers with a window; others go back as far as one likes
    It takes 2 · batch · n_kv_heads · d_head numbers for each position and layer; a layer with a window keeps that and the slack,
    in whole blocks.
    Raises ValueError where the model cannot reach that length.
    """
    config = model.config
    if batch < 1 or length < 1:
        raise ValueError(f"a cache for {batch} sequences of {length} positions holds nothing; both must be at least 1.")
    if length > config.max_positions:
        raise ValueError(
            f"a cache of {length} positions is longer than the model's context, max_positions={config.max_positions}."
        )
    size = fitting_size(model, length) if size is None else size
    if size < 1 or slack < 0:
        raise ValueError(f"size={size} and slack={slack} are positions: of a block at least 1, kept behind a window at least 0.")
    xp, dtype, n_blocks = model.backend.xp, model.params["embedding"].dtype, -(-length // size)
    size = -(-length // n_blocks)

    def block():
        zeros = xp.zeros((batch, config.n_kv_heads, size, config.d_head), dtype=dtype)
        return quantise(zeros) if quantised else zeros

    def layer(window: int | None) -> Layer:
        n = n_blocks if window is None else min(n_blocks, most_blocks(window + slack, size))
        return Layer(spare=tuple((block(), block()) for _ in range(n)), window=window)

    layers = tuple(layer(window) for window in windows(config))
    return KVCache(layers, 0, size, room=length, rows=batch, slack=slack, quantised=quantised)


def fitting_size(model: Model, length: int) -> int:
    """Positions of a block: BLOCK where blocks can be shared or given up for nothing, else all in one.

    Without a kernel that reads blocks as they lie, attention joins them at each step: a copy that one block spares.
    """
    windowed = any(window is not None for window in windows(model.config))
    return BLOCK if windowed or "cached_attention" in kernels_of(model.backend) else length
