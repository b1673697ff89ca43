"""Pre-tokenization: text to words that no merge crosses."""
