"""Heads are slices of the model's width, moved to an axis of their own for attention and back."""

from refllm.array_api import namespace


def split_heads(x, n: int):
    """x: (B, T, n·K) -> (B, n, T, K)"""
    xp = namespace(x)
    B, T, width = x.shape
    return xp.permute_dims(xp.reshape(x, (B, T, n, width // n)), (0, 2, 1, 3))


def merge_heads(x):
    """x: (B, n, T, K) -> (B, T, n·K), the inverse of split_heads and so its gradient too."""
    xp = namespace(x)
    B, n, T, K = x.shape
    return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (B, T, n * K))
