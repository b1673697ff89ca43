"""Floor 4: timings, ours and a peer's in turn."""
