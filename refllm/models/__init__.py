"""Floor 2: one architecture a file."""
