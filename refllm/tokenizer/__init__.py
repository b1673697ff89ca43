"""Floor 1, a side room: text to token ids and back."""
