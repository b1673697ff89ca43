"""Half precision stores and float32 computes: a layer widens what it reads, and narrows only its results.

A half has 8 or 11 bits: a running sum of ones stops growing at 256 (bfloat16) or 2048 (float16), and exp loses
half of its digits. So every sum, product of matrices, exponential and root of halves is taken in float32.
"""

from refllm.array_api import namespace


def widen(x):
    """Return x in float32 if it is in half precision, else x itself."""
    xp = namespace(x)
    dtype = xp.result_type(x.dtype, xp.float32)
    return x if x.dtype == dtype else xp.astype(x, dtype)


def narrow(y, like):
    """Return y in the dtype of `like`."""
    return y if y.dtype == like.dtype else namespace(y).astype(y, like.dtype)
