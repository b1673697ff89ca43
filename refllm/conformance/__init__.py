"""Floor 4: the kit that holds a backend, or any other implementation, to the specification."""
