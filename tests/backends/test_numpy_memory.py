"""NumPy's backend keeps freed memory, so that a step does not wait for the kernel to clear pages; a user's own setting stands."""

import os
import platform
import subprocess
import sys

import pytest

PAGES_TAKEN = """
import resource
import numpy as np
import refllm

refllm.load_backend("numpy")
def touch():
    for _ in range(10):
        a = np.ones((4, 1 << 20), dtype=np.float32)
        del a
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = touch()
print(touch() - before)
"""


def pages_taken(**environment):
    """How many pages ten arrays of 16 MB, made and freed again, took from the system."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", PAGES_TAKEN], env=own | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly, and only it is told not to"
)
def test_freed_memory_serves_the_next_array_unless_the_user_chose():
    assert pages_taken() < 40
    assert pages_taken(MALLOC_MMAP_THRESHOLD_="131072") > 70  # eight for each array if they are huge, 4096 if not
