"""Freed memory kept for the next array.

NumPy asks the C library for every array. glibc gives large ones back to the system at once (above 128 KiB to 32 MiB, by what it
has seen) and trims the end of its heap, so that a training step gets every array as pages that the kernel must first clear: at
0.2 to 2 µs for each 4 KiB that can take longer than the arithmetic. Two settings keep what was freed in the process.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # <malloc.h>
ENOUGH = 2**31 - 1  # bytes, mallopt's largest number


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, in the whole process; returns whether it does now.

    Large arrays come from the heap, the heap's end is not trimmed, and all threads share one heap: what a helper thread freed
    serves the main one. A user's own MALLOC_…_ settings or tunables stand.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_THRESHOLD, ENOUGH), (M_TRIM_THRESHOLD, ENOUGH), (M_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
