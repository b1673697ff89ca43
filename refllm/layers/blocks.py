"""How a long axis is cut, so that what is computed from it is held a part at a time."""


def blocks(n: int, block: int) -> list[tuple[int, int]]:
    """Return the (start, stop) of consecutive parts of an axis of n positions, all `block` long but the last.

    Raises ValueError if block is not positive.
    """
    if block < 1:
        raise ValueError(f"block is {block}; it counts positions and must be at least 1.")
    return [(start, min(start + block, n)) for start in range(0, n, block)]
