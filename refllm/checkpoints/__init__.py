"""Floor 3: models in and out of files."""
