"""Parameters for models in tests."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_parameters():
    """A function that makes a model's parameters as training leaves them: none of them zero, or one, or tiny."""

    def make(shapes, seed, dtype=np.float64):
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(s) / np.sqrt(s[-2]) if len(s) >= 2 else 1 + 0.3 * rng.standard_normal(s)).astype(dtype)
            for name, s in shapes.items()
        }

    return make
