"""AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2) over one flat vector, and clipping by the global norm.

    m ← β₁·m + (1 − β₁)·g          v ← β₂·v + (1 − β₂)·g²
    m̂ = m / (1 − β₁ᵗ)              v̂ = v / (1 − β₂ᵗ)
    p ← p − lr·(m̂ / (√v̂ + eps) + λ·p)

The decay λ·p is decoupled: it does not pass through the moments. It is applied to matrices only, the first elements.
"""

from refllm.array_api import namespace, op


@op
def adamw_update(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, n_decayed):
    """One update; may reuse the parameters, mean and square it is given.

    parameters, grads, mean, square: (P,), mean and square being the moments m and v    step: t, counted from 1
    lr, beta1, beta2, eps, weight_decay: Python floats    n_decayed: how many elements, from the first, decay
    Returns the new parameters, mean and square.
    """
    xp = namespace(parameters)
    mean = beta1 * mean + (1 - beta1) * grads
    square = beta2 * square + (1 - beta2) * grads * grads
    ascent = (mean / (1 - beta1**step)) / (xp.sqrt(square / (1 - beta2**step)) + eps)
    decayed = xp.concat([parameters[:n_decayed] * (1 - lr * weight_decay), parameters[n_decayed:]])
    return decayed - lr * ascent, mean, square


@op
def global_norm(vector):
    """√(Σ x²) of a vector (P,): a 0-d array."""
    xp = namespace(vector)
    return xp.sqrt(xp.sum(vector * vector))


def clip(vector, norm, limit):
    """The vector (P,), scaled down to length `limit` where its norm, a 0-d array, is more (Pascanu et al. 2012, arXiv:1211.5063).

    The scale is min(1, limit / (norm + 1e-6)), as in PyTorch. It stays on the device: nothing is read back.
    """
    xp = namespace(vector)
    return vector * xp.minimum(limit / (norm + 1e-6), xp.ones_like(norm))
