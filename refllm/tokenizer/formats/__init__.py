"""The files that tokenizers are kept in: one format a file."""
