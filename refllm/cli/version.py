"""`refllm version`: the version of refllm, of Python and of NumPy."""

import platform


def version() -> None:
    """Print the version."""
    import numpy

    import refllm

    print(f"refllm {refllm.__version__} (Python {platform.python_version()}, NumPy {numpy.__version__})")
