"""Floor 3: prefill, decode and sampling with a KV cache."""
