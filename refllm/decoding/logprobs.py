"""Log-probabilities: how likely a model itself finds a token, whatever a sampler makes of its logits.

log p = z − log Σ_V exp(z),   z the logits,   in nats
"""

from refllm.array_api import namespace
from refllm.layers.precision import widen

FEW = 16  # tokens that are found one after another


def log_softmax(logits):
    """log softmax of logits: (..., V), in float32 at least."""
    xp = namespace(logits)
    z = widen(logits)
    z = z - xp.max(z, axis=-1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))


def likeliest(log_probabilities, k: int):
    """The ids of the k largest of (..., V), the lower first among equals, and their values: (..., k) each."""
    xp = namespace(log_probabilities)
    if k > FEW:
        ids = xp.argsort(log_probabilities, axis=-1, descending=True, stable=True)[..., :k]
    else:
        ids = _one_after_another(log_probabilities, k)
    return ids, xp.take_along_axis(log_probabilities, ids, axis=-1)


def _one_after_another(x, k: int):
    """The ids of the k largest of (..., V): sorting a whole vocabulary takes longer than to look for a few."""
    xp = namespace(x)
    rest, every = xp.maximum(x, xp.full_like(x, xp.finfo(x.dtype).min)), xp.arange(x.shape[-1], dtype=xp.int32)
    ids = [xp.argmax(rest, axis=-1, keepdims=True)]
    while len(ids) < k:
        rest = xp.where(every == ids[-1], -xp.inf, rest)  # below all that have not been found, −∞ too
        ids.append(xp.argmax(rest, axis=-1, keepdims=True))
    return xp.concat(ids, axis=-1)
