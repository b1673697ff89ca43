"""Random numbers from the host, addressed by (seed, purpose, step), so that every backend sees the same ones."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """A Philox generator of its own for each address; the same address gives the same numbers everywhere.

    seed: the run's seed, 0 … 2⁶⁴−1    purpose: what the numbers are for, such as "batch"    step: 0 … 2⁶⁴−1
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
