"""Log-probabilities: how likely a model itself finds a token, whatever a sampler makes of its logits.

log p = z − log Σ_V exp(z),   z the logits,   in nats
"""

from refllm.array_api import namespace
from refllm.layers.precision import widen


def log_softmax(logits):
    """log softmax of logits: (..., V), in float32 at least."""
    xp = namespace(logits)
    z = widen(logits)
    z = z - xp.max(z, axis=-1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))


def likeliest(log_probabilities, k: int):
    """The ids of the k largest of (..., V), the lower first among equals, and their values: (..., k) each."""
    xp = namespace(log_probabilities)
    if k == 1:
        ids = xp.argmax(log_probabilities, axis=-1, keepdims=True)
    else:
        ids = xp.argsort(log_probabilities, axis=-1, descending=True, stable=True)[..., :k]
    return ids, xp.take_along_axis(log_probabilities, ids, axis=-1)
