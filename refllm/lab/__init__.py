"""Floor 4: the laboratory, where what is said about scale is measured on models that the user trains."""
