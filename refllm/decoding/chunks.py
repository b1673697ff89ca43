"""How much of a prompt to read at a time, so that what a call computes fits a number of bytes.

    bytes(T) = size · B · (T · kept + copies · H·T·S + 2 · G·K·S + V),   S the positions that the last of T queries attends

kept is what a block keeps of one token, every matrix's input and output; the scores of attention are there once with a kernel,
and several times without; the keys and values of a layer are joined into one array each.
"""

from refllm.array_api.dispatch import kernels_wanted
from refllm.models.accounting import ITEMSIZE, kept_per_token, windows
from refllm.models.model import Model

KERNEL, BODY = 1, 6  # copies of the scores: a kernel's, at most, and those of the readable definition with a soft cap


def chunk_within(model: Model, batch: int, n_bytes: int, positions: int | None = None) -> int:
    """The most positions that `prefill` may read at a time, so that a call computes in n_bytes, its cache and weights apart.

    batch: rows    positions: of the longest row; None: as many as the model's context
    Raises ValueError where not even one position fits.
    """
    longest = model.config.max_positions if positions is None else positions
    least = call_bytes(model, batch, 1, longest)
    if least > n_bytes:
        raise ValueError(f"n_bytes={n_bytes:,} is too little: one position for each of {batch} rows takes {least:,}.")
    fits, beyond = 1, longest + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if call_bytes(model, batch, middle, longest) <= n_bytes else (fits, middle)
    return fits


def call_bytes(model: Model, batch: int, T: int, positions: int) -> int:
    """An estimate, from above, of the bytes that reading T positions of each row computes in, the last at `positions`."""
    config, with_kernel = model.config, kernels_wanted() and "attention" in model.backend.kernels
    attended = max(positions if window is None else min(positions, window + T - 1) for window in windows(config))
    kept = -(-kept_per_token(model.architecture, config) // config.n_layers)
    scores = (KERNEL if with_kernel else BODY) * config.n_heads * T * attended
    joined = 2 * config.n_kv_heads * config.d_head * attended
    size = ITEMSIZE[str(model.params["embedding"].dtype).rpartition(".")[2]]
    return size * batch * (T * kept + scores + joined + config.vocab_size)
