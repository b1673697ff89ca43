"""Floor 1: one concept a file; every layer a function and its backward, pure, over the array API."""
