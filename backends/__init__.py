"""The backends, one array library a file; loaded by name through refllm.array_api.load."""
